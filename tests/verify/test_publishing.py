"""A release published: whole and compared, or main stays as it is, whatever happens in between."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hub_rig import READ_TOKEN, LocalHub
from hubs import outside, running
from safetensors.torch import save_file

import parentage
from parentage import Demands, KeySigner, PrivateKey, TrustedKeys
from parentage.manifest.errors import (
    FileSetError,
    HubContentError,
    HubMovedError,
    HubNotFoundError,
    HubOfflineError,
    HubTokenError,
    HubUnreachableError,
    MissingExtraError,
    UsageError,
)
from parentage.verify.publication import PushReport, differences, publication
from parentage.verify.publishing import Checked, Push, Result, push
from parentage.verify.pulling import Pull, pull
from parentage.verify.sources import hub_writing
from parentage.verify.sources.hub import listing, resolve
from parentage.verify.sources.place import parse_place
from parentage.verify.sources.web import Patience

QUICK = Patience(attempts=3, pause=0.01, stall=1.0, answer=5.0, longest=0.05)
KEY, REPO, NAME = PrivateKey.generate(), "acme/rio", "model.safetensors"
TRUST = TrustedKeys((KEY.public,))


def sign(folder: Path) -> None:
    parentage.sign_release(folder, KeySigner(KEY), TRUST, observed=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    save_file({"t": torch.arange(50_000)}, folder / NAME)
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Rio\n")
    sign(folder)
    return folder


@pytest.fixture
def release(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "rio"))


def verified(release: Path) -> Checked:
    report = parentage.verify_release(release, trust=TRUST, demands=Demands(level="integrity"))
    return Checked(report, report, TRUST)


def put(release: Path, **changes: Any) -> Result:
    given = {"place": parse_place(f"hf://{REPO}"), "waiting": QUICK, "create": True}
    return push(Push(**{"folder": release, "check": lambda: verified(release), **given, **changes}))


def done(result: Result) -> PushReport:
    assert isinstance(result, PushReport)
    assert result.exit_code == 0
    return result


def on_hub(hub: LocalHub, revision: str = "main") -> dict[str, bytes]:
    files = hub.hub.repo(REPO).find(revision).files
    return {name: hub.hub.content(REPO, name, revision) for name in files}


def on_disk(release: Path) -> dict[str, bytes]:
    files = (path for path in release.rglob("*") if path.is_file())
    return {str(path.relative_to(release)): path.read_bytes() for path in files}


def count(hub: LocalHub, route: str) -> int:
    return hub.log.counts()[route]


def pulls(hub: LocalHub) -> dict[int, str]:
    return {number: pull.status for number, pull in hub.hub.repo(REPO).pulls.items()}


def test_what_is_published_is_the_release_by_one_pull_request(hub: LocalHub, release: Path) -> None:
    (release / ".git").mkdir()
    (release / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (release / ".gitattributes").write_text("*.safetensors filter=lfs")
    report = done(put(release, private=True))
    shutil.rmtree(release / ".git")
    (release / ".gitattributes").unlink()
    assert on_hub(hub) == on_disk(release)
    assert hub.hub.repo(REPO).private
    assert pulls(hub) == {1: "merged"} == {report.pull_request: "merged"}
    assert count(hub, "commit") == 1
    assert report.commit == hub.head(REPO)
    assert report.repo == f"hf://{REPO}@{report.commit}"
    assert report.next.startswith(
        f"parentage locate {release} --at pkg:huggingface/{REPO}@{report.commit}"
    )
    assert report.left_out == [".git/HEAD", ".gitattributes"]
    assert report.report.verified


def test_what_is_refused_is_never_sent(hub: LocalHub, release: Path) -> None:
    (release / "config.json").write_text("{}")
    assert put(release).exit_code == 1
    (release / "model.sig").unlink()
    assert put(release).exit_code == 3
    assert not hub.log.requests


def test_again_there_is_nothing_to_do(hub: LocalHub, release: Path) -> None:
    first = done(put(release))
    again = done(put(release))
    assert again.commit == first.commit
    assert (again.pull_request, again.uploaded, again.unchanged) == (0, {}, len(on_disk(release)))
    assert pulls(hub) == {1: "merged"}


def test_only_what_changed_is_sent(hub: LocalHub, release: Path) -> None:
    put(release)
    before = count(hub, "lfs-put")
    (release / "config.json").write_text('{"model_type": "other"}')
    sign(release)
    report = done(put(release))
    assert count(hub, "lfs-put") == before
    assert NAME not in report.uploaded
    assert {"config.json", "model.sig"} <= report.uploaded.keys()
    assert on_hub(hub) == on_disk(release)


def test_a_repository_that_is_not_there_is_named(hub: LocalHub, release: Path) -> None:
    with pytest.raises(HubNotFoundError, match="--create"):
        put(release, create=False)
    assert REPO not in hub.hub.repos


def test_files_that_the_release_does_not_have_are_named_or_replaced(
    hub: LocalHub, release: Path
) -> None:
    hub.put(REPO, {"old.safetensors": b"x" * 10, "old/notes.txt": b"n", ".gitattributes": b"a"})
    before = hub.head(REPO)
    with pytest.raises(UsageError, match=r"old\.safetensors, old/notes\.txt"):
        put(release)
    assert (hub.head(REPO), pulls(hub)) == (before, {})
    report = done(put(release, replace=True))
    assert report.deleted == ["old.safetensors", "old/notes.txt"]
    assert on_hub(hub) == {**on_disk(release), ".gitattributes": b"a"}


def test_a_dry_run_writes_nothing(hub: LocalHub, release: Path) -> None:
    report = done(put(release, dry_run=True))
    assert REPO not in hub.hub.repos
    hub.put(REPO, {"config.json": (release / "config.json").read_bytes()})
    before = hub.head(REPO)
    report = done(put(release, dry_run=True))
    assert (hub.head(REPO), pulls(hub), report.commit) == (before, {}, "")
    assert report.uploaded.keys() == on_disk(release).keys() - {"config.json"}
    assert any("--dry-run" in text for text in report.not_checked)
    assert not {"create", "preupload", "commit", "lfs-put"} & set(hub.log.counts())


def test_a_push_between_plan_and_commit_is_named(hub: LocalHub, release: Path) -> None:
    hub.put(REPO, {})
    hub.faults.after("preupload", lambda: hub.put(REPO, {"theirs.txt": b"theirs"}))
    with pytest.raises(HubMovedError, match="somebody else changed"):
        put(release)
    assert on_hub(hub) == {"theirs.txt": b"theirs"}
    assert pulls(hub) == {}


def test_a_push_between_commit_and_merge_is_named(hub: LocalHub, release: Path) -> None:
    hub.faults.after("commit", lambda: hub.put(REPO, {"theirs.txt": b"theirs"}))
    with pytest.raises(HubMovedError, match="pull request #1 is open and not merged"):
        put(release)
    assert on_hub(hub) == {"theirs.txt": b"theirs"}
    assert pulls(hub) == {1: "open"}
    # The old one is older than main: a new one is made, and the person told of the old one.
    told: list[str] = []
    done(put(release, replace=True, tell=told.append))
    assert any("pull request #1 is this release, and older than main" in text for text in told)
    assert pulls(hub) == {1: "open", 2: "merged"}
    assert on_hub(hub) == on_disk(release)


def test_a_push_in_the_moment_of_the_merge_is_found_afterwards(
    hub: LocalHub, release: Path
) -> None:
    asked = 0

    def third_time() -> None:  # main, the pull request, and main once more: then it is merged
        nonlocal asked
        asked += 1
        if asked == 3:
            hub.put(REPO, {"theirs.txt": b"theirs"})

    hub.put(REPO, {})
    hub.faults.after("info", third_time, times=3)
    with pytest.raises(HubMovedError, match="merged, and main is not the release"):
        put(release)
    assert on_hub(hub) == {**on_disk(release), "theirs.txt": b"theirs"}
    done(put(release, replace=True))
    assert on_hub(hub) == on_disk(release)


def test_a_pull_request_that_somebody_changed_is_not_merged(hub: LocalHub, release: Path) -> None:
    evil = {"modeling.py": b"evil()"}
    hub.faults.after("commit", lambda: hub.hub.put(REPO, evil, revision="refs/pr/1"))
    with pytest.raises(HubMovedError, match="changed the pull request"):
        put(release)
    assert on_hub(hub) == {}
    assert pulls(hub) == {1: "open"}


@pytest.mark.parametrize("name", [NAME, "config.json"])
def test_a_file_that_changes_after_the_check_is_not_sent(
    name: str, hub: LocalHub, release: Path
) -> None:
    def check() -> Checked:
        found = verified(release)
        (release / name).write_bytes(b"changed since")
        return found

    with pytest.raises(FileSetError, match="changed since it was verified"):
        put(release, check=check)
    assert on_hub(hub) == {}
    assert pulls(hub) == {}


def test_a_file_that_changes_while_it_is_sent_is_not_merged(hub: LocalHub, release: Path) -> None:
    hub.faults.after("validate-yaml", lambda: (release / "config.json").write_text("{}"))
    with pytest.raises(HubContentError, match="pull request #1 is open and not merged"):
        put(release)
    assert on_hub(hub) == {}


def test_weights_that_change_once_they_were_sent_are_not_proposed(
    hub: LocalHub, release: Path
) -> None:
    sha256 = hashlib.sha256((release / NAME).read_bytes()).hexdigest()

    def spoil() -> None:
        if not hub.hub.objects.has(sha256):
            return  # it was another large file's turn
        with (release / NAME).open("r+b") as stream:
            stream.seek(-1, 2)
            stream.write(b"!")

    hub.faults.after("lfs-verify", spoil, times=2)
    with pytest.raises(FileSetError, match="changed while it was uploaded"):
        put(release)
    assert pulls(hub) == {}


@pytest.mark.parametrize("of", ["weights", "config"])
def test_a_signature_exchanged_after_the_check_is_not_sent(
    of: str, hub: LocalHub, release: Path
) -> None:
    def check() -> Checked:
        found = verified(release)
        if of == "weights":
            save_file({"t": torch.zeros(3)}, release / NAME)
        else:
            (release / "config.json").write_text('{"auto_map": {"AutoModel": "evil--x.Y"}}')
        sign(release)  # by the same publisher, over weights that nobody asked about
        return found

    with pytest.raises(FileSetError, match="changed while it was verified"):
        put(release, check=check)
    assert not hub.log.requests


def test_a_hub_that_keeps_other_bytes_is_found_out(hub: LocalHub, release: Path) -> None:
    hub.faults.add("corrupt", route="resolve", path="config.json", at=2)
    with pytest.raises(HubContentError, match="open and not merged"):
        put(release)
    assert on_hub(hub) == {}


def lost() -> None:
    """Drop a connection instead of answering, after everything was done."""
    raise ConnectionAbortedError("the answer is lost")


@pytest.mark.parametrize("route", ["commit", "merge"])
def test_an_answer_that_is_lost_is_looked_for(route: str, hub: LocalHub, release: Path) -> None:
    hub.faults.after(route, lost)
    report = done(put(release))
    assert pulls(hub) == {1: "merged"}
    assert report.pull_request == 1
    assert on_hub(hub) == on_disk(release)


@pytest.mark.parametrize("route", ["create", "commit", "merge"])
def test_a_storm_leaves_main_as_it_is_and_the_next_run_goes_on(
    route: str, hub: LocalHub, release: Path
) -> None:
    hub.faults.add("status", route=route, code=502)
    with pytest.raises(HubUnreachableError):
        put(release)
    assert REPO not in hub.hub.repos or on_hub(hub) == {}
    hub.faults.clear()
    done(put(release))
    assert pulls(hub) == {1: "merged"}
    assert on_hub(hub) == on_disk(release)


def test_a_stall_ends(hub: LocalHub, release: Path) -> None:
    hub.faults.add("stall", route="merge")
    waiting = Patience(attempts=2, pause=0.01, answer=0.7)
    with pytest.raises(HubUnreachableError, match="pull request #1 is open and not merged"):
        put(release, waiting=waiting)
    assert on_hub(hub) == {}


@pytest.mark.parametrize("route", ["lfs-put", "merge"])
def test_killed_the_next_run_completes_it(route: str, hub: LocalHub, release: Path) -> None:
    (release.parent / "k.pub").write_bytes(KEY.public.pem)
    command = [sys.executable, "-m", "parentage", "push", "rio", f"hf://{REPO}", "--create"]
    command += ["--key", "k.pub", "--level", "integrity"]
    hub.faults.add("stall", route=route, seconds=30)
    process = subprocess.Popen(
        command, cwd=release.parent, env=outside(hub), stderr=subprocess.PIPE
    )
    end = time.monotonic() + 30
    while not count(hub, route):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert on_hub(hub) == {}
    hub.faults.clear()
    again = subprocess.run(
        command, cwd=release.parent, env=outside(hub), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("VERIFIED")
    assert ("going on with pull request #1" in again.stderr) == (route == "merge")
    assert pulls(hub) == {1: "merged"}
    assert on_hub(hub) == on_disk(release)


def test_a_token_that_may_not_write_is_named_and_never_shown(
    hub: LocalHub, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(REPO, {})
    token = "hf_" + "a1B2" * 8
    hub.faults.add("status", route="commit", code=403, message=f"{token} may not")
    with pytest.raises(HubTokenError) as error:
        put(release)
    assert token not in str(error.value)
    assert "may not" in error.value.found
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(HubTokenError) as error:
        put(release)
    assert "hf auth login" in error.value.hint
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubOfflineError):
        put(release)


def test_limits_of_one_commit_are_known_before_it_is_made(
    hub: LocalHub, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_writing, "MAX_REGULAR", 100)
    with pytest.raises(UsageError, match="more bytes of regular files"):
        put(release)
    monkeypatch.setattr(hub_writing, "MAX_FILES", 3)
    with pytest.raises(UsageError, match="more files than one commit"):
        put(release)
    assert pulls(hub) == {}


def test_a_file_that_the_repository_ignores_is_named(hub: LocalHub, release: Path) -> None:
    listed = [
        {"path": name, "uploadMode": "regular", "shouldIgnore": name == "config.json", "oid": None}
        for name in on_disk(release)
    ]
    data = json.dumps({"files": listed}).encode()
    hub.faults.add("garbage", route="preupload", data=data)
    with pytest.raises(UsageError, match=r"\.gitignore leaves out"):
        put(release)
    assert pulls(hub) == {}


def test_a_blob_of_the_same_sha1_is_not_believed(hub: LocalHub, release: Path) -> None:
    report = done(put(release))
    mine = publication(release, TRUST, report.report)
    repo = resolve(parse_place(f"hf://{REPO}"), waiting=QUICK)
    assert differences(repo, listing(repo), mine) == []
    other = msgspec.structs.replace(mine.files["config.json"], sha256="0" * 64)
    collided = msgspec.structs.replace(mine, files={**mine.files, "config.json": other})
    assert differences(repo, listing(repo), collided) == ["config.json is another file"]


@pytest.mark.parametrize("revision", ["dev", "refs/pr/1", "0" * 40])
def test_only_main_is_published_on(revision: str, hub: LocalHub, release: Path) -> None:
    with pytest.raises(UsageError, match="on main"):
        put(release, place=parse_place(f"hf://{REPO}@{revision}"))
    assert not hub.log.requests


def test_without_the_extra_it_is_named(
    hub: LocalHub, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError) as error:
        put(release)
    assert "parentage[hub]" in error.value.hint


def test_through_xet(release: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("xet"), xet=True) as hub:
        done(put(release))
        assert on_hub(hub) == on_disk(release)
        target = release.parent / "pulled"
        pulled = pull(Pull(place=parse_place(f"hf://{REPO}"), target=target, trust=TRUST))
        assert pulled.exit_code == 0
        assert on_disk(target) == on_disk(release)
