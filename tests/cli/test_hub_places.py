"""Releases and parents on a Hub, given to commands as hf://org/name@revision."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from commandline import Run, ok
from hub_rig import LocalHub
from hubs import running
from huggingface_hub import HfApi, snapshot_download
from worlds import World

from parentage.cli import main
from parentage.cli.locking import LockChoice
from parentage.manifest import atomic
from parentage.manifest.errors import CannotRunError
from parentage.verify.sources import spool
from parentage.verify.sources.cached import folder_of, name_of, place_of
from parentage.verify.sources.place import HubPlace, parse_place

RECIPE = """\
version: "0.1"
parents: [{id: a}, {id: b}]
steps:
  - id: merge
    op: weighted_sum/v1
    inputs: [a, b]
    params: {weights: ["0.6", "0.4"], normalize: true}
    arithmetic: {profile: parentage-1}
"""


def quietly(*arguments: object) -> tuple[int, str, str]:
    """Run a command where no test captures what it says."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


class Published:
    """A release and its parents on a Hub; the lineage names the parents by their commits."""

    def __init__(self, hub: LocalHub, world: World) -> None:
        self.hub, self.world = hub, world
        self.key = world.root / "release.pub"
        self.key.write_bytes(world.key.public.pem)
        (world.root / "release.key").write_bytes(world.key.to_pem(None))
        (world.root / "recipe.yaml").write_text(RECIPE)
        self.commits = {n: hub.put_folder(f"acme/{n}", world.root / n) for n in ("a", "b")}
        for name in self.commits:  # main moves on: only the commits hold the parents now
            hub.put(f"acme/{name}", {"model.safetensors": b"other"})
        world.merge("rio")
        shutil.rmtree(world.root / "rio" / ".parentage")
        (world.root / "rio" / "model.sig").unlink()
        parents = [f"--parent={n}=hf://acme/{n}@{c}" for n, c in self.commits.items()]
        ok(quietly("declare", world.root / "rio", "--recipe", world.root / "recipe.yaml", *parents))
        ok(quietly("sign", world.root / "rio", "--key", world.root / "release.key"))
        self.commit = hub.put_folder("acme/rio", world.root / "rio")

    @property
    def place(self) -> str:
        return f"hf://acme/rio@{self.commit}"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    with (
        running(tmp_path_factory.mktemp("hub")) as hub,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PARENTAGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Published(hub, World(tmp_path_factory.mktemp("world")))


@pytest.fixture
def there(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The same, with an empty cache and no faults."""
    monkeypatch.setenv("PARENTAGE_CACHE", str(tmp_path / "cache"))
    published.hub.faults.clear()
    published.hub.log.clear()
    return published


def verify(run: Run, there: Published, *options: object, release: str = "") -> tuple[int, Any]:
    code, out, _ = run(
        "verify", release or there.place, "--key", there.key, "--device", "cpu", "--json", *options
    )
    return code, json.loads(out)


def test_a_lineage_says_where_parents_are(there: Published) -> None:
    uris = {parent.id: parent.uri for parent in there.world.lineage("rio").parents}
    assert uris == {n: f"pkg:huggingface/acme/{n}@{c}" for n, c in there.commits.items()}


def test_a_release_and_its_parents_are_fetched_and_recomputed(there: Published, run: Run) -> None:
    code, report = verify(run, there, "--fetch-parents", release="hf://acme/rio")
    assert (code, report["verdict"], report["reached"]) == (0, "verified", "A (exact)"), report
    assert report["release"] == there.place
    assert report["parentsFound"] == ["a", "b"]
    assert all("not followed" in text or "cache" not in text for text in report["notChecked"])
    there.hub.log.clear()
    again, same = verify(run, there, "--fetch-parents")
    assert (again, same) == (code, report)
    assert there.hub.log.requests == []  # a commit is fetched once


def test_what_was_fetched_is_used_offline(
    there: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify(run, there, "--level", "integrity")[0] == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert verify(run, there, "--level", "integrity")[0] == 0
    code, error = verify(run, there, "--level", "integrity", release="hf://acme/rio@main")
    assert (code, error["error"]["code"]) == (4, "hub-offline")


def test_parents_by_hand(there: Published, run: Run) -> None:
    parents = [f"--parent={n}=hf://acme/{n}@{c}" for n, c in there.commits.items()]
    assert verify(run, there, *parents)[0] == 0
    code, report = verify(
        run, there, "--parent", "hf://acme/a@main", "--parent", there.world.root / "b"
    )
    assert code == 4  # main of a is something else by now
    assert report["parentsMissing"] == ["a"]
    assert "hf://acme/a@" in json.dumps(report["findings"])


def test_parents_that_cannot_be_had_leave_it_unproven(there: Published, run: Run) -> None:
    there.hub.hub.repo("acme/b").private = True
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_TOKEN", "hf_local_stranger")
            code, report = verify(run, there, "--fetch-parents")
    finally:
        there.hub.hub.repo("acme/b").private = False
    notes = [found for found in report["findings"] if found["code"] == "parent-unreachable"]
    assert (code, report["verdict"], report["parentsMissing"]) == (4, "unproven", ["b"])
    assert "no such repository, or a private one" in notes[0]["message"]
    assert notes[0]["where"].startswith("pkg:huggingface/acme/b@")


def test_a_parent_from_the_wrong_place_is_not_the_parent(there: Published, run: Run) -> None:
    there.hub.faults.add("replace", path="model.safetensors", data=b"x" * 100)
    code, report = verify(run, there, "--fetch-parents", release=str(there.world.root / "rio"))
    assert code == 4
    assert {f["code"] for f in report["findings"]} == {"parent-unreachable"}


def test_bytes_changed_on_the_way_are_never_verified(there: Published, run: Run) -> None:
    there.hub.faults.add("corrupt", path="model.safetensors")
    code, error = verify(run, there, "--level", "integrity")
    assert (code, error["error"]["code"]) == (4, "hub-content")
    there.hub.faults.clear()
    assert verify(run, there, "--level", "integrity")[0] == 0


def test_a_spoilt_cache_is_never_verified(there: Published, run: Run) -> None:
    assert verify(run, there, "--level", "integrity")[0] == 0
    folder = folder_of(parse_place(there.place), there.hub.url)
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    code, report = verify(run, there, "--level", "integrity")
    assert (code, report["verdict"]) == (1, "refuted")
    weights.write_bytes(good)
    (folder / "extra.py").write_bytes(b"")
    code, error = verify(run, there, "--level", "integrity")
    assert (code, error["error"]["code"]) == (1, "file-set")
    assert error["error"]["next"] == f"rm -r {folder}"
    (folder / "extra.py").unlink()
    weights.unlink()
    weights.symlink_to(there.world.root / "rio" / "model.safetensors")
    assert verify(run, there, "--level", "integrity")[0] == 1


def test_show_fetches_claims_only(there: Published, run: Run) -> None:
    text = ok(run("show", there.place))
    assert "lineage/v0.1" in text
    assert f"pkg:huggingface/acme/a@{there.commits['a']}" in text
    asked = {a.path for a in there.hub.log.of("resolve")}
    assert not any("safetensors" in path for path in asked)


def test_identify_by_place(there: Published, run: Run) -> None:
    found = json.loads(
        ok(run("identify", there.world.root / "a", "--against",
               f"hf://acme/a@{there.commits['a']}", "--json"))
    )  # fmt: skip
    assert found["overlaps"][0]["known"] == f"hf://acme/a@{there.commits['a']}"
    assert found["overlaps"][0]["identical"]


def test_a_lock_remembers_a_repository_by_its_name(
    there: Published, run: Run, tmp_path: Path
) -> None:
    lock = tmp_path / "parentage.lock"
    for release in ("hf://acme/rio", there.place):
        assert verify(run, there, "--level", "integrity", "--lock", lock, release=release)[0] == 0
    assert [*json.loads(lock.read_bytes())["releases"]] == ["acme/rio"]


def test_a_lock_knows_a_repository_however_it_is_typed(
    there: Published, run: Run, tmp_path: Path
) -> None:
    lock = tmp_path / "parentage.lock"
    assert verify(run, there, "--level", "integrity", "--lock", lock)[0] == 0
    lock.write_bytes(lock.read_bytes().replace(b'"acme/rio"', b'"Acme/Rio"'))
    for typed in ("hf://acme/RIO", "hf://acme/rio", "hf://Acme/Rio@main"):
        known = LockChoice(lock=lock).remembered(parse_place(typed))
        assert known is not None
        assert known.name == "Acme/Rio"
        assert known.entry is not None
    folder = LockChoice(lock=lock).remembered(tmp_path / "rio")
    assert folder is not None
    assert folder.entry is None


def test_weights_that_nobody_signed_are_not_fetched(there: Published, run: Run) -> None:
    there.hub.put("acme/bare", {"model.safetensors": bytes(4096), "config.json": b"{}"})
    code, out, _ = run("verify", "hf://acme/bare", "--key", there.key, "--json")
    assert (code, json.loads(out)["verdict"]) == (3, "unsigned")
    asked = {a.path for a in there.hub.log.of("resolve") if "acme/bare" in a.path}
    assert any("config.json" in path for path in asked)
    assert not any("safetensors" in path for path in asked)


@pytest.mark.parametrize("name", ["hf://acme", "hf://acme/rio@", "hf://a/b/c", "hf://../x@y"])
def test_a_place_that_is_none(run: Run, name: str) -> None:
    code, out, _ = run("verify", name, "--json")
    assert code == 2
    assert json.loads(out)["error"]["found"] == name


def test_attest_cannot_add_to_a_hub(there: Published, run: Run) -> None:
    code, out, _ = run("attest", there.place, "--key", there.key, "--level", "integrity",
                       "--sign-key", there.world.root / "release.key", "--json")  # fmt: skip
    assert code == 2
    assert "-o FILE" in json.loads(out)["error"]["next"]


# The cache of fetched files


def test_only_the_weights_that_a_reader_takes_are_fetched(there: Published) -> None:
    whole = (there.world.root / "a" / "model.safetensors").read_bytes()
    index = json.dumps({"weight_map": {"x": "w-1.safetensors", "y": "w-2.safetensors"}}).encode()
    files = {
        "w-1.safetensors": whole,
        "w-2.safetensors": b"2",
        "consolidated.safetensors": b"3",
        "sub/onnx.safetensors": b"4",
        "m.gguf": b"5",
        "pytorch_model.bin": b"6",
        "config.json": b"{}",
        ".parentage/leaves.bin": b"7",
    }
    there.hub.put("acme/many", {**files, "model.safetensors.index.json": index})
    place = HubPlace("acme/many")

    def brought(choice: spool.Choice) -> set[str]:
        folder = spool.bring(place, choice)
        return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}

    small = {"config.json", ".parentage/leaves.bin", "model.safetensors.index.json"}
    assert brought(spool.weights) == {*small, "w-1.safetensors", "w-2.safetensors"}
    assert brought(spool.release) == {*small, "w-1.safetensors", "w-2.safetensors"}
    for kept, gone in (
        ("consolidated.safetensors", "model.safetensors.index.json"),
        ("m.gguf", "consolidated.safetensors"),
        ("pytorch_model.bin", "m.gguf"),
    ):
        removed = {n: None for n in files if n.startswith("w-")} if "index" in gone else {}
        there.hub.put("acme/many", {gone: None, **removed})
        assert kept in brought(spool.weights)
        assert brought(spool.weights).isdisjoint({"sub/onnx.safetensors", gone})


def test_names_of_what_was_fetched(there: Published, tmp_path: Path) -> None:
    place = parse_place(there.place)
    folder = folder_of(place, "https://huggingface.co")
    assert place_of(folder) == place
    assert name_of(folder) == there.place
    assert folder != folder_of(place, there.hub.url)
    assert place_of(tmp_path) is None
    assert place_of(folder / "config.json") is None
    assert place_of(folder.parent) is None
    assert name_of(tmp_path) == str(tmp_path)


def test_a_fetch_goes_on_after_a_kill(there: Published) -> None:
    weights, faults = "model.safetensors", there.hub.faults
    faults.add("truncate", path=weights, keep=30_000, times=1)
    # Files come side by side: only the second answer about the weights is a refusal.
    faults.after(
        "lfs-get",
        lambda: faults.add("status", route="lfs-get", path=weights, code=404),
        path=weights,
    )
    with pytest.raises(Exception, match="HTTP 404"):
        spool.bring(parse_place(there.place))
    folder = folder_of(parse_place(there.place), there.hub.url)
    part = folder.with_name(f"{there.commit}.parts") / "model.safetensors.parentage.part"
    kept = part.stat().st_size
    assert kept > 0
    assert not (folder / "model.safetensors").exists()
    there.hub.faults.clear()
    there.hub.log.clear()
    spool.bring(parse_place(there.place))
    assert (
        there.hub.log.sent("lfs-get")
        <= (folder / "model.safetensors").stat().st_size - kept + 10**5
    )
    assert (folder / "model.safetensors").read_bytes() == (
        there.world.root / "rio" / "model.safetensors"
    ).read_bytes()


def test_a_killed_process_loses_next_to_nothing(there: Published, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 9
    there.hub.put("acme/blob", {"model.safetensors": data, "model.sig": b"{}"})
    there.hub.faults.add("stop", path="model.safetensors", keep=7 << 20)
    code = (
        "from parentage.verify.sources import spool, place;"
        "spool.bring(place.parse_place('hf://acme/blob'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    end = time.monotonic() + 30
    while sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.part")) < 4 << 20:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    there.hub.faults.clear()
    there.hub.log.clear()
    folder = spool.bring(HubPlace("acme/blob"))
    assert (folder / "model.safetensors").read_bytes() == data
    assert there.hub.log.sent("lfs-get") <= 5 << 20


def test_two_processes_do_not_fetch_the_same_files(
    there: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = atomic.alone
    monkeypatch.setattr(atomic, "alone", lambda folder: alone(folder, wait=0.0))
    folder = folder_of(parse_place(there.place), there.hub.url)
    folder.mkdir(parents=True)
    with alone(folder), pytest.raises(CannotRunError, match="another process is fetching"):
        spool.bring(parse_place(there.place))
    assert spool.bring(parse_place(there.place)) == folder


def test_a_repository_that_moved_is_named(there: Published, run: Run) -> None:
    there.hub.put_folder("acme/first", there.world.root / "rio")
    HfApi(endpoint=there.hub.url).move_repo("acme/first", "acme/second")
    code, out, err = run("verify", "hf://acme/first", "--key", there.key, "--level", "integrity")
    assert code == 0
    assert out.startswith("VERIFIED  hf://acme/second@")
    assert "acme/first is acme/second by now" in err
    code, report = verify(run, there, "--level", "remote", release="hf://acme/first")
    assert (code, report["release"].partition("@")[0]) == (0, "hf://acme/second")
    assert [found["code"] for found in report["findings"]] == ["repository-moved"]


def test_a_list_that_was_kept_is_not_believed_blindly(there: Published) -> None:
    folder = spool.bring(parse_place(there.place))
    kept = folder.with_name(f"{folder.name}.json")
    for nonsense in (b"", b"{}", b"[" * 100_000, b'[{"path": 1}]'):
        kept.write_bytes(nonsense)
        there.hub.log.clear()
        assert spool.bring(parse_place(there.place)) == folder
        assert there.hub.log.counts()["tree"] == 1


def test_a_snapshot_of_the_real_client_with_shared_blobs(
    tmp_path: Path, run: Run, published: Published
) -> None:
    with running(tmp_path / "hub", xet=True) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        api = HfApi(endpoint=hub.url)
        api.create_repo("acme/rio")
        api.upload_folder(repo_id="acme/rio", folder_path=published.world.root / "rio")
        snapshot = Path(
            snapshot_download("acme/rio", cache_dir=tmp_path / "cache", endpoint=hub.url)
        )
    weights = (snapshot / "model.safetensors").resolve()
    assert weights.is_relative_to(tmp_path / "cache" / "blobs"), weights
    options = ("--key", published.key, "--level", "integrity")
    assert "VERIFIED" in ok(run("verify", snapshot, *options))
    (tmp_path / "cache" / "blobs" / ".huggingface-shared-blobs").unlink()
    assert run("verify", snapshot, *options)[0] == 1
    assert os.path.lexists(snapshot / "model.safetensors")


# Without a download


def test_a_check_without_a_download(there: Published, run: Run, tmp_path: Path) -> None:
    lock = tmp_path / "parentage.lock"
    text = ok(run("verify", "hf://acme/rio", "--key", there.key, "--level", "remote",
                  "--slices", "2", "--lock", lock))  # fmt: skip
    assert text.startswith(f"VERIFIED  {there.place}")
    assert "by the SHA-256 that the Hub declares" in text
    assert "2 of 5 chunks of 1 MiB, drawn at random: --slice-seed" in text
    assert "none was read, but for 2 slices" in text
    assert "requests" in text
    assert not (tmp_path / "cache").exists()
    code, report = verify(run, there, "--level", "remote", "--lock", lock)
    assert (code, report["demanded"], report["lock"]["state"]) == (
        0,
        "remote",
        "as remembered",
    )
    assert report["remote"]["requests"] > 0
    jsonschema.validate(report, schema("report-v0.1.json"))


def schema(name: str) -> Any:
    return json.loads(resources.files("parentage.schemas").joinpath(name).read_text())


@pytest.mark.parametrize(
    "options",
    [
        ["--level", "remote", "--parent", "a=./a"],
        ["--level", "remote", "--fetch-parents"],
        ["--level", "remote", "--files"],
        ["--level", "remote", "--sample", "3"],
        ["--level", "remote", "--slice-seed", "00"],
        ["--level", "remote", "--slices", "2", "--slice-seed", "zz"],
        ["--level", "integrity", "--slices", "2"],
    ],
)
def test_options_that_do_not_go_together(there: Published, run: Run, options: list[str]) -> None:
    code, error = verify(run, there, *options)
    assert (code, error["error"]["code"]) == (2, "usage")


def test_a_folder_is_not_checked_from_afar(there: Published, run: Run) -> None:
    code, error = verify(run, there, "--level", "remote", release=str(there.world.root / "rio"))
    assert (code, error["error"]["expected"]) == (2, "hf://org/name@revision")
