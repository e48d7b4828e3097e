"""pull and push as people type them: what is printed, what is written, and what they exit with."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from commandline import Run, ok
from hub_rig import LocalHub
from worlds import World

from parentage import PrivateKey

PLACE = "hf://acme/rio"


@pytest.fixture
def place(world: World, run: Run, monkeypatch: pytest.MonkeyPatch, hub: LocalHub) -> Path:
    """A signed merge, its keys, a trust policy and a gate."""
    monkeypatch.chdir(world.root)
    Path("release.pub").write_bytes(world.key.public.pem)
    Path("release.key").write_bytes(world.key.to_pem(None))
    Path("stranger.pub").write_bytes(PrivateKey.generate().public.pem)
    world.merge()
    Path("merged/README.md").write_text(
        "---\nbase_model: [acme/a, acme/b]\nbase_model_relation: merge\nlicense: mit\n---\n# merged\n"
    )
    world.declare("merged", ["a", "b"], list(map(dict, world_steps())))
    ok(run("trust", "init", "-o", "trust.yaml", "--publisher", "release.pub"))
    Path("gate.yaml").write_text(
        "version: '0.1'\ntrust: trust.yaml\nupload: {level: recompute, card: {all: ignore}}\n"
        "download: {level: recompute, card: {all: ignore}}\nlock: parentage.lock\n"
    )
    return world.root


def world_steps() -> list[dict[str, object]]:
    from worlds import MERGE

    return [MERGE]


PARENTS = ("--parent", "a", "--parent", "b")


def test_pushed_located_and_pulled(run: Run, place: Path, hub: LocalHub) -> None:
    code, out, err = run("push", "merged", PLACE, "--create", "--key", "release.pub", *PARENTS)
    assert code == 0, err
    assert out.startswith("VERIFIED  merged")
    commit = hub.head("acme/rio")
    phases = [
        "checking",
        "making",
        "uploading",
        "committing",
        "comparing pull",
        "merging",
        "comparing main",
    ]
    assert [err.index(phase) for phase in phases] == sorted(err.index(phase) for phase in phases)
    [command] = [line for line in out.splitlines() if "parentage locate" in line]
    assert f"@{commit}" in command
    ok(run(*shlex.split(command.partition("parentage ")[2])))
    # What was said of it is published like a release: only the claims are sent.
    again = json.loads(ok(run("push", "merged", PLACE, "--key", "release.pub", *PARENTS, "--json")))
    assert list(again["uploaded"]) == [".parentage/claims.jsonl"]
    code, out, err = run(
        "pull", PLACE, "-o", "there", "--key", "release.pub", "--level", "recompute", *PARENTS
    )
    assert code == 0, err
    assert out.startswith(f"VERIFIED  {PLACE}@")
    assert "rung A" in out
    names = sorted(str(p.relative_to("merged")) for p in Path("merged").rglob("*") if p.is_file())
    assert all(
        (Path("there") / name).read_bytes() == (Path("merged") / name).read_bytes()
        for name in names
    )


def test_a_gate_decides_what_is_pushed(run: Run, place: Path, hub: LocalHub) -> None:
    pushing = ("push", "merged", PLACE, "--create", "--gate", "gate.yaml", "--json")
    code, out, err = run(*pushing)
    refused = json.loads(out)
    assert (code, refused["gate"], refused["verdict"]) == (4, "upload", "unproven")
    assert "refused: nothing was sent" in err
    assert not hub.log.requests
    published = json.loads(ok(run(*pushing, *PARENTS)))
    assert published["commit"] == hub.head("acme/rio")
    assert published["report"]["reached"] == "A (exact)"
    for typed in (["--level", "integrity"], ["--policy", "trust.yaml"], ["--lock", "lock"]):
        code, out, _ = run(*pushing, *typed)
        assert (code, json.loads(out)["error"]["code"]) == (2, "usage")


def test_a_gate_decides_what_is_placed(run: Run, place: Path, hub: LocalHub) -> None:
    hub.put_folder("acme/rio", Path("merged"))
    pulling = ("pull", PLACE, "-o", "there", "--gate", "gate.yaml", "--json")
    code, out, _ = run(*pulling)
    refused = json.loads(out)
    assert (code, refused["gate"], refused["verdict"]) == (4, "download", "unproven")
    assert not Path("there").exists()
    assert not Path("parentage.lock").exists()
    passed = json.loads(ok(run(*pulling, *PARENTS)))
    assert passed["release"] == f"{PLACE}@{hub.head('acme/rio')}"
    assert passed["report"]["lock"] == {
        **passed["report"]["lock"],
        "name": "acme/rio",
        "state": "first use",
    }
    assert Path("there/model.safetensors").exists()
    assert Path("parentage.lock").exists()
    assert run(*pulling, *PARENTS, "--level", "integrity")[0] == 2
    Path("gate.yaml").write_text("version: '0.1'\ntrust: trust.yaml\ndownload: {level: remote}\n")
    code, out, _ = run(*pulling)
    assert (code, "parentage gate download" in out) == (2, True)


def test_a_pull_is_remembered(run: Run, place: Path, hub: LocalHub) -> None:
    hub.put_folder("acme/rio", Path("merged"))
    pulling = ("pull", PLACE, "--key", "release.pub", "--lock", "parentage.lock", "--json")
    first = json.loads(ok(run(*pulling, "-o", "one")))
    assert (first["lock"]["name"], first["lock"]["state"]) == ("acme/rio", "first use")
    hub.put("acme/rio", {"model.sig": None})
    code, out, _ = run(*pulling, "-o", "two")
    assert (code, json.loads(out)["lock"]["state"]) == (5, "refused")
    assert not Path("two").exists()


def test_refusals_exit_as_verify_does_and_place_nothing(
    run: Run, place: Path, hub: LocalHub
) -> None:
    hub.put_folder("acme/rio", Path("merged"))
    code, out, _ = run(
        "pull", PLACE, "-o", "there", "--key", "stranger.pub", "--output", "sarif=x.sarif"
    )
    assert code == 1
    assert out.startswith("REFUTED")
    assert json.loads(Path("x.sarif").read_text())["version"] == "2.1.0"
    hub.put("acme/rio", {"model.sig": None})
    assert run("pull", PLACE, "-o", "there", "--key", "release.pub")[0] == 3
    assert run("pull", "acme/rio", "-o", "there", "--key", "release.pub")[0] == 2
    code, out, _ = run("pull", "hf://acme/none", "-o", "there", "--key", "release.pub", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (4, "hub-not-found")
    assert not Path("there").exists()
    code, _, err = run("push", "merged", PLACE, "--key", "release.pub", "--private")
    assert (code, "--private goes with --create" in err) == (2, True)
