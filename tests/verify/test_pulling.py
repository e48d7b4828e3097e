"""A release downloaded: verified before it is anywhere, whatever the Hub does meanwhile."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_rig import LocalHub
from hubs import outside
from safetensors.torch import load_file, save_file
from worlds import World

import parentage
from parentage import Demands, KeySigner, PrivateKey, Report, TrustedKeys, Verdict
from parentage.manifest.errors import (
    CannotRunError,
    HubContentError,
    HubError,
    HubNotFoundError,
    HubUnreachableError,
    UsageError,
)
from parentage.verify.pulling import Pull, pull
from parentage.verify.sources.place import parse_place
from parentage.verify.sources.web import Patience

QUICK = Patience(attempts=3, pause=0.01, stall=0.5, answer=2.0, longest=0.05)
KEY, REPO, SHARD = PrivateKey.generate(), "acme/rio", "model-00002-of-00002.safetensors"
TRUST = TrustedKeys((KEY.public,))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release of 5 MB in two shards, with a config."""
    folder = tmp_path_factory.mktemp("published")
    generator = torch.Generator().manual_seed(3)
    shards = {f"model-0000{i}-of-00002.safetensors": f"t{i}" for i in (1, 2)}
    for shard, name in shards.items():
        save_file({name: torch.randn(700_000, generator=generator)}, folder / shard)
    weight_map = "{" + ",".join(f'"{name}":"{shard}"' for shard, name in shards.items()) + "}"
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map":{weight_map}}}')
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    parentage.sign_release(folder, KeySigner(KEY), TRUST, observed=True)
    return folder


@pytest.fixture
def there(hub: LocalHub, published: Path) -> LocalHub:
    """The Hub, with that release."""
    hub.put_folder(REPO, published)
    return hub


def get(target: Path, revision: str = "", **changes: Any) -> Report:
    place = parse_place(f"hf://{REPO}" + (f"@{revision}" if revision else ""))
    return pull(
        Pull(**{"place": place, "target": target, "trust": TRUST, "waiting": QUICK, **changes})
    )


def codes(report: Report) -> set[str]:
    return {found.code for found in report.findings}


def left(tmp_path: Path) -> list[str]:
    """Return what lies beside the target."""
    return sorted(path.name for path in tmp_path.iterdir())


def test_what_is_placed_is_the_release(there: LocalHub, published: Path, tmp_path: Path) -> None:
    report = get(tmp_path / "rio")
    assert report.verdict is Verdict.VERIFIED
    assert report.release == f"hf://{REPO}@{there.head(REPO)}"
    assert left(tmp_path) == ["rio"]
    names = [p.relative_to(published) for p in published.rglob("*") if p.is_file()]
    assert sorted(
        p.relative_to(tmp_path / "rio") for p in (tmp_path / "rio").rglob("*") if p.is_file()
    ) == sorted(names)
    assert all((tmp_path / "rio" / n).read_bytes() == (published / n).read_bytes() for n in names)
    again = parentage.verify_release(published, trust=TRUST, demands=Demands(level="integrity"))
    assert (report.coverage, report.root) == (again.coverage, again.root)


def weights_read(there: LocalHub) -> int:
    """Return the bytes of weights that the Hub sent so far."""
    return sum(asked.sent for asked in there.log.requests if asked.route == "lfs-get")


def break_off(there: LocalHub) -> None:
    """Let a stream stall in the middle of a shard, and nothing of it come any more."""
    there.faults.add("stop", route="lfs-get", path=SHARD, keep=1_500_000)
    then = {"route": "lfs-get", "path": SHARD, "code": 503}
    there.faults.after("lfs-get", lambda: there.faults.add("status", **then), path=SHARD)


def test_an_unsigned_release_is_refused_before_anything_is_fetched(
    there: LocalHub, tmp_path: Path
) -> None:
    there.put(REPO, {"model.sig": None})
    report = get(tmp_path / "rio")
    assert (report.verdict, report.exit_code) == (Verdict.UNSIGNED, 3)
    assert not [asked for asked in there.log.requests if asked.route in {"resolve", "lfs-get"}]
    assert left(tmp_path) == []


def test_a_stranger_is_refused_before_weights_are_fetched(there: LocalHub, tmp_path: Path) -> None:
    report = get(tmp_path / "rio", trust=TrustedKeys((PrivateKey.generate().public,)))
    assert codes(report) == {"signature"}
    assert weights_read(there) < 200_000  # leaves.bin may be there
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({SHARD: bytes(2_800_080)}, "file-digest"),
        ({"config.json": b'{"model_type": "evil"}'}, "file-digest"),
        ({"modeling.py": b"evil()"}, "file-unsigned"),
        ({"extra.safetensors": b"x" * 100}, "file-unsigned"),
        ({"config.json": None}, "file-missing"),
        ({SHARD: None}, "file-missing"),
        ({".parentage/leaves.bin": b""}, "malformed"),
        ({".parentage/claims.jsonl": None}, "unsigned"),
        ({"model.sig": b"{}"}, "bundle"),
    ],
)
def test_whatever_was_changed_is_refused_before_weights_are_fetched(
    changes: dict[str, bytes | None], code: str, there: LocalHub, tmp_path: Path
) -> None:
    there.put(REPO, changes)
    report = get(tmp_path / "rio")
    assert code in codes(report)
    assert report.exit_code in {1, 3}
    assert weights_read(there) < 200_000
    assert left(tmp_path) == []


def test_bytes_that_are_others_than_signed_are_refused_and_the_next_call_goes_on(
    there: LocalHub, published: Path, tmp_path: Path
) -> None:
    there.faults.add("corrupt", route="lfs-get", path=SHARD, at=2_000_000)
    with pytest.raises(HubContentError, match="other bytes than were signed"):
        get(tmp_path / "rio")
    assert not (tmp_path / "rio").exists()
    there.faults.clear()
    assert get(tmp_path / "rio").verified
    assert left(tmp_path) == ["rio"]


def test_a_corrupt_small_file_is_refused(there: LocalHub, tmp_path: Path) -> None:
    there.faults.add("corrupt", route="resolve", path="config.json", at=3)
    with pytest.raises(HubContentError):
        get(tmp_path / "rio")
    assert not (tmp_path / "rio").exists()


def test_a_swap_between_listing_and_download(there: LocalHub, tmp_path: Path) -> None:
    swapped = bytes((there.hub.content(REPO, SHARD)[:-1]) + b"!")
    there.faults.add("replace", route="lfs-get", path=SHARD, data=swapped)
    with pytest.raises(HubContentError):
        get(tmp_path / "rio")
    assert not (tmp_path / "rio").exists()


def test_a_branch_that_moves_meanwhile_changes_nothing(there: LocalHub, tmp_path: Path) -> None:
    before = there.head(REPO)
    there.faults.after("tree", lambda: there.put(REPO, {"config.json": b"later", SHARD: b"later"}))
    report = get(tmp_path / "rio")
    assert report.verified
    assert report.release.endswith(before)
    assert there.head(REPO) != before


def test_a_force_push_in_between_is_named(there: LocalHub, tmp_path: Path) -> None:
    there.faults.after("tree", lambda: there.hub.force_push(REPO, {"config.json": b"{}"}))
    with pytest.raises(HubNotFoundError):
        get(tmp_path / "rio")
    assert not (tmp_path / "rio").exists()


def test_a_stream_that_breaks_is_taken_up_where_it_broke(there: LocalHub, tmp_path: Path) -> None:
    there.faults.add("truncate", route="lfs-get", path=SHARD, keep=1_500_000, times=2)
    there.faults.add("status", route="lfs-get", code=503, times=1)
    assert get(tmp_path / "rio").verified
    assert weights_read(there) < 6_000_000


def test_a_stall_and_a_storm_are_named_and_what_came_is_kept(
    there: LocalHub, tmp_path: Path
) -> None:
    break_off(there)
    with pytest.raises(HubUnreachableError):
        get(tmp_path / "rio")
    there.faults.clear()
    there.faults.add("status", code=502)
    with pytest.raises(HubUnreachableError):
        get(tmp_path / "rio")
    assert not (tmp_path / "rio").exists()
    there.faults.clear()
    before = weights_read(there)
    assert get(tmp_path / "rio").verified
    assert weights_read(there) - before < 2_000_000  # of 5.6 MB


def test_a_mirror_that_ignores_range_is_named(there: LocalHub, tmp_path: Path) -> None:
    there.faults.add("truncate", route="lfs-get", path=SHARD, keep=1_500_000, times=1)
    there.faults.add("ignore-range", route="lfs-get", path=SHARD)
    with pytest.raises(HubError, match="ignores Range"):
        get(tmp_path / "rio")
    assert not (tmp_path / "rio").exists()


def test_killed_it_goes_on_from_what_came(there: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "k.pub").write_bytes(KEY.public.pem)
    there.faults.add("stop", route="lfs-get", path=SHARD, keep=2_500_000)
    command = [
        sys.executable,
        "-m",
        "parentage",
        "pull",
        f"hf://{REPO}",
        "-o",
        "rio",
        "--key",
        "k.pub",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, env=outside(there), stderr=subprocess.PIPE)
    end = time.monotonic() + 30
    while sum(path.stat().st_size for path in tmp_path.rglob("model-*.part")) < 4_800_000:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "rio").exists()
    there.faults.clear()
    before = weights_read(there)
    done = subprocess.run(
        command, cwd=tmp_path, env=outside(there), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("VERIFIED")
    assert weights_read(there) - before < 1_000_000
    assert left(tmp_path) == ["k.pub", "rio"]


def test_parts_that_were_spoilt_on_this_side_are_read_again(
    there: LocalHub, tmp_path: Path
) -> None:
    break_off(there)
    with pytest.raises(HubUnreachableError):
        get(tmp_path / "rio")
    there.faults.clear()
    [part] = tmp_path.rglob(f"{SHARD}.*part")
    with part.open("r+b") as stream:
        stream.seek(900_000)
        stream.write(b"spoilt")
    assert get(tmp_path / "rio").verified


def test_what_is_there_already_is_verified_or_refused(
    there: LocalHub, published: Path, tmp_path: Path
) -> None:
    target = Path(shutil.copytree(published, tmp_path / "rio"))
    before = weights_read(there)
    assert get(target).verified
    assert weights_read(there) - before < 200_000
    (target / "config.json").write_text("{}")
    assert codes(get(target)) == {"file-digest"}
    for other in ("file", "folder", "link"):
        path = tmp_path / other
        if other == "folder":
            path.mkdir()
            (path / "mine.txt").write_text("mine")
        elif other == "file":
            path.write_text("mine")
        else:
            path.symlink_to(tmp_path / "nowhere")
        with pytest.raises(UsageError, match="something else is there"):
            get(path)
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"
    assert left(tmp_path) == ["file", "folder", "link", "rio"]


def test_an_empty_folder_is_taken_and_a_missing_parent_is_not(
    there: LocalHub, tmp_path: Path
) -> None:
    (tmp_path / "rio").mkdir()
    assert get(tmp_path / "rio").verified
    with pytest.raises(UsageError, match="no such folder"):
        get(tmp_path / "none" / "rio")


def test_a_folder_that_somebody_planted_is_not_used(there: LocalHub, tmp_path: Path) -> None:
    there.faults.add("status", route="resolve", code=404)
    with pytest.raises(HubError):
        get(tmp_path / "rio")
    there.faults.clear()
    [staging] = tmp_path.glob(".parentage-pull-*")
    staging.chmod(0o777)
    with pytest.raises(UsageError, match="not yours alone"):
        get(tmp_path / "rio")
    staging.rename(tmp_path / "elsewhere")
    staging.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not yours alone"):
        get(tmp_path / "rio")


def test_two_at_once_do_not_meet(there: LocalHub, tmp_path: Path) -> None:
    met: list[Exception] = []

    def second() -> None:
        try:
            get(tmp_path / "rio")
        except UsageError as error:
            met.append(error)

    there.faults.after("resolve", second)
    assert get(tmp_path / "rio").verified
    assert "another process" in str(met[0])


def test_too_little_space_is_known_before_weights_are_fetched(
    there: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(CannotRunError, match="not enough space"):
        get(tmp_path / "rio")
    assert weights_read(there) < 200_000


def test_a_recipe_that_can_not_be_recomputed_keeps_what_came_and_places_nothing(
    hub: LocalHub, world: World, tmp_path: Path
) -> None:
    hub.put_folder(REPO, world.merge())
    target, demands = tmp_path / "rio", Demands(level="recompute", device="cpu")
    parents = [(None, world.root / name) for name in ("a", "b")]
    report = get(target, trust=world.trust, demands=demands)
    assert report.verdict is Verdict.UNPROVEN
    assert not target.exists()
    before = weights_read(hub)
    report = get(target, trust=world.trust, demands=demands, parents=parents)
    assert (report.verdict, report.reached) == (Verdict.VERIFIED, "A (exact)")
    assert weights_read(hub) - before < 50_000
    assert load_file(target / "model.safetensors").keys() == world.weights("merged").keys()


@pytest.mark.parametrize("whole_files", [False, True])
def test_the_report_is_that_of_verify(
    whole_files: bool, there: LocalHub, published: Path, tmp_path: Path
) -> None:
    demands = Demands(level="integrity", whole_files=whole_files)
    pulled = get(tmp_path / "rio", demands=demands)
    verified = parentage.verify_release(published, trust=TRUST, demands=demands)
    verified.release = pulled.release
    assert pulled.to_json() == verified.to_json()
