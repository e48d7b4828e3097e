"""`parentage export` as a user meets it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from worlds import World, command


@pytest.fixture
def released(world: World) -> World:
    world.merge()
    (world.root / "release.pub").write_bytes(world.key.public.pem)
    return world


def export(world: World, form: str, *arguments: object, **options: Any) -> Any:
    key = ("--key", world.root / "release.pub")
    return command("export", world.root / "merged", "--format", form, *key, *arguments, **options)


@pytest.mark.parametrize(
    ("form", "field", "value"),
    [
        ("slsa", "predicateType", "https://slsa.dev/provenance/v1"),
        ("cyclonedx", "specVersion", "1.7"),
    ],
)
def test_the_document_is_the_output(released: World, form: str, field: str, value: str) -> None:
    done = export(released, form)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[field] == value
    assert done.stderr == ""


def test_a_result_of_a_recompute_in_a_file(released: World) -> None:
    out = released.root / "svr.json"
    parents = [x for name in "ab" for x in ("--parent", released.root / name)]

    done = export(released, "svr", "--verifier-id", "https://lab.example/v1", *parents, "-o", out, "--json", "--device", "cpu")  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] == str(out)
    found = json.loads(out.read_text())["predicate"]
    assert found["properties"][-1] == "PARENTAGE_RECIPE_EXACT"


def test_a_policy_decides_and_its_digest_is_named(released: World) -> None:
    policy = released.root / "trust.yaml"
    init = command("trust", "init", "-o", policy, "--publisher", released.root / "release.pub")
    assert init.returncode == 0, init.stderr
    asked = ("export", released.root / "merged", "--policy", policy, "--format", "svr", "--verifier-id", "https://lab.example/v1")  # fmt: skip

    done = command(*asked, "--json")
    digest = hashlib.sha256(policy.read_bytes()).hexdigest()
    verifier = f"verifier: {{any: [{{keySha256: '{'0' * 64}'}}]}}"
    demand = "require: [{recompute: {min: exact, coverage: '1', by: verifier}}]"
    policy.write_text(
        policy.read_text()
        .replace("require: [oms, lineage]", demand)
        .replace("roles:", f"roles:\n  {verifier}")
    )
    denied = command(*asked, "--json")

    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["predicate"]["verifier"]["policies"] == [
        {"digest": {"sha256": digest}}
    ]
    assert denied.returncode == 5, denied.stdout
    assert json.loads(denied.stdout)["verdict"] == "denied"


def test_what_is_not_verified_is_reported_and_not_written(released: World) -> None:
    (released.root / "merged" / "config.json").write_text("{}")
    out = released.root / "bom.json"

    done = export(released, "cyclonedx", "-o", out)

    assert done.returncode == 1
    assert done.stdout.startswith("REFUTED")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "svr"), "named by a URI"),
        (("--format", "spdx"), "spdx"),
        ((), "--format"),
    ],
)
def test_mistakes(released: World, arguments: tuple[str, ...], message: str) -> None:
    done = command("export", released.root / "merged", "--key", released.root / "release.pub", *arguments, "--json")  # fmt: skip

    assert done.returncode == 2
    assert message in json.loads(done.stdout)["error"]["message"]


def test_without_the_library_the_extra_is_named(released: World) -> None:
    """A real interpreter in which cyclonedx can't be found."""
    shadow = released.root / "shadow"
    shadow.mkdir()
    (shadow / "cyclonedx.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'cyclonedx'\", name='cyclonedx')"
    )
    path = os.pathsep.join([str(shadow), str(Path(__file__).parents[2])])

    done = export(released, "cyclonedx", env={"PYTHONPATH": path})

    assert done.returncode == 4
    assert "pip install 'parentage[export]'" in done.stderr
    assert export(released, "slsa", env={"PYTHONPATH": path}).returncode == 0
