"""What someone between publisher and verifier can do to a release, and how each attempt ends.

Each attack spoils a copy of one honest release; the same table is run through Python and through the
command line, which must say what is wrong and where, leave with the exit code, and show no traceback.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worlds import MERGE, World, command, raw_safetensors

from parentage import KeySigner, PrivateKey
from parentage.attest import bundle, coverage, oms
from parentage.manifest import table

Attack = Callable[[World, Path], None]
ATTACKS: dict[str, tuple[Attack, str, int]] = {}


def attack(code: str, exit_code: int = 1) -> Callable[[Attack], Attack]:
    def register(function: Attack) -> Attack:
        ATTACKS[function.__name__.removeprefix("_")] = (function, code, exit_code)
        return function

    return register


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def edit_bundle(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document) + "\n")


def resign_oms(world: World, release: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Sign another model signature with the publisher's own key: a publisher who lies."""
    document = json.loads(release.joinpath("model.sig").read_bytes())
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    change(statement)
    signed = bundle.build(json.dumps(statement).encode(), KeySigner(world.key))
    release.joinpath("model.sig").write_bytes(signed)


@attack("tensor-digest")
def _one_bit_of_one_weight(world: World, release: Path) -> None:
    flip(release / "model.safetensors", -1)


@attack("safetensors-header")
def _truncated(world: World, release: Path) -> None:
    os.truncate(release / "model.safetensors", 5000)


@attack("safetensors-header")
def _appended(world: World, release: Path) -> None:
    with (release / "model.safetensors").open("ab") as file:
        file.write(b"payload for another reader")


@attack("safetensors-header")
def _header_of_petabytes(world: World, release: Path) -> None:
    data = (release / "model.safetensors").read_bytes()
    (release / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x00" + data[8:])


@attack("header-digest")
def _metadata_changed(world: World, release: Path) -> None:
    """The header is no tensor, and still signed."""
    data = (release / "model.safetensors").read_bytes()
    assert b'"format":"pt"' in data
    (release / "model.safetensors").write_bytes(data.replace(b'"format":"pt"', b'"format":"np"'))


@attack("header-digest")
def _tensors_renamed(world: World, release: Path) -> None:
    data = (release / "model.safetensors").read_bytes()
    swapped = data.replace(b"layers.0.w", b"layers.X.w").replace(b"layers.1.w", b"layers.0.w")
    (release / "model.safetensors").write_bytes(swapped.replace(b"layers.X.w", b"layers.1.w"))


@attack("file-unsigned")
def _code_added(world: World, release: Path) -> None:
    (release / "modeling_rio.py").write_text("import os")


@attack("malformed")
def _second_weights_file(world: World, release: Path) -> None:
    shutil.copy(release / "model.safetensors", release / "a.safetensors")


@attack("file-unsigned")
def _index_pointing_elsewhere(world: World, release: Path) -> None:
    """transformers prefers an index; so do we, and it is not signed."""
    shutil.copy(world.root / "a" / "model.safetensors", release / "other.safetensors")
    names = world.weights("a")
    (release / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(names, "other.safetensors")})
    )


@attack("file-missing")
def _file_removed(world: World, release: Path) -> None:
    shutil.copy(release / "model.safetensors", release / "weights.safetensors")
    (release / "model.safetensors").unlink()


@attack("file-set")
def _no_weights(world: World, release: Path) -> None:
    (release / "model.safetensors").unlink()


@attack("file-set")
def _link_out(world: World, release: Path) -> None:
    (release / "model.safetensors").unlink()
    (release / "model.safetensors").symlink_to(world.root / "a" / "model.safetensors")


@attack("file-set")
def _fifo(world: World, release: Path) -> None:
    os.mkfifo(release / "config.json")


@attack("signature")
def _signed_by_a_stranger(world: World, release: Path) -> None:
    payload = base64.b64decode(
        json.loads((release / "model.sig").read_bytes())["dsseEnvelope"]["payload"]
    )
    (release / "model.sig").write_bytes(bundle.build(payload, KeySigner(PrivateKey.generate())))


@attack("signature")
def _statement_edited(world: World, release: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        payload = base64.b64decode(document["dsseEnvelope"]["payload"])
        changed = payload.replace(b'"sha256"', b'"sha512"', 1)
        document["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()

    edit_bundle(release / "model.sig", change)


@attack("bundle")
def _two_signatures(world: World, release: Path) -> None:
    edit_bundle(
        release / "model.sig",
        lambda d: d["dsseEnvelope"]["signatures"].append(d["dsseEnvelope"]["signatures"][0]),
    )


@attack("bundle")
def _another_payload_type(world: World, release: Path) -> None:
    edit_bundle(release / "model.sig", lambda d: d["dsseEnvelope"].update(payloadType="text/plain"))


@attack("bundle")
def _unknown_field_in_bundle(world: World, release: Path) -> None:
    edit_bundle(release / "model.sig", lambda d: d.update(trustMe=True))


@attack("bundle")
def _nesting_bomb(world: World, release: Path) -> None:
    (release / "model.sig").write_text("[" * 1_000_000)


@attack("unsigned", 3)
def _no_signature(world: World, release: Path) -> None:
    (release / "model.sig").unlink()


@attack("unsigned", 3)
def _no_claims(world: World, release: Path) -> None:
    (release / ".parentage" / "claims.jsonl").unlink()


@attack("unsigned", 3)
def _claims_of_junk(world: World, release: Path) -> None:
    (release / ".parentage" / "claims.jsonl").write_text(
        '{"a": 1}\n' + "[" * 100_000 + "\nnull\n\n"
    )


@attack("statement")
def _lineage_of_another_release(world: World, release: Path) -> None:
    """The publisher's own, truly signed lineage, about other weights."""
    other = world.merge(
        "other", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}}
    )
    shutil.copy(other / ".parentage" / "claims.jsonl", release / ".parentage" / "claims.jsonl")


@attack("statement")
def _table_edited(world: World, release: Path) -> None:
    flip(release / ".parentage" / "tensors.jsonl", 300)


@attack("malformed")
def _leaves_edited(world: World, release: Path) -> None:
    flip(release / ".parentage" / "leaves.bin", 5)


@attack("lineage")
def _table_removed(world: World, release: Path) -> None:
    (release / ".parentage" / "tensors.jsonl").unlink()


@attack("statement")
def _vacuous_resources(world: World, release: Path) -> None:
    resign_oms(world, release, lambda s: s["predicate"].update(resources=[]))


@attack("statement")
def _duplicate_resource(world: World, release: Path) -> None:
    resign_oms(
        world,
        release,
        lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]),
    )


@attack("statement")
def _resource_outside(world: World, release: Path) -> None:
    resign_oms(
        world, release, lambda s: s["predicate"]["resources"][0].update(name="../../etc/passwd")
    )


@attack("statement")
def _vacuous_ignore_list(world: World, release: Path) -> None:
    """The lineage names the first model signature by digest, so another one does not pass."""
    resign_oms(
        world,
        release,
        lambda s: s["predicate"]["serialization"]["ignore_paths"].append("model.safetensors"),
    )


@attack("malformed")
def _another_statement_in_model_sig(world: World, release: Path) -> None:
    line = (release / ".parentage" / "claims.jsonl").read_bytes().strip()
    (release / "model.sig").write_bytes(line)


@attack("json|shard-index")
def _index_of_junk(world: World, release: Path) -> None:
    (release / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x", "a": "y"}}')


def found_codes(result: Any) -> set[str]:
    return {found.code for found in result.findings if found.refutes}


@pytest.mark.parametrize("name", ATTACKS)
def test_from_python(attacked: Callable[[], World], name: str) -> None:
    spoil, expected, exit_code = ATTACKS[name]
    world = attacked()
    spoil(world, world.root / "merged")

    report = world.verify("merged", ["a", "b"])

    assert report.exit_code == exit_code
    assert found_codes(report) & set(expected.split("|")), found_codes(report)
    assert not report.verified


@pytest.mark.parametrize(
    ("name", "level"),
    [
        *((name, "integrity") for name in ATTACKS),
        ("one_bit_of_one_weight", "recompute"),
        ("no_claims", "recompute"),
    ],
)
def test_on_the_command_line(attacked: Callable[[], World], name: str, level: str) -> None:
    spoil, expected, exit_code = ATTACKS[name]
    world = attacked()
    spoil(world, world.root / "merged")

    done = command(
        "verify", world.root / "merged", "--key", world.root / "release.pub", "--level", level,
        "--parent", world.root / "a", "--parent", world.root / "b", "--device", "cpu",
    )  # fmt: skip

    assert done.returncode == exit_code, done.stdout + done.stderr
    assert any(f"[{code}]" in done.stdout for code in expected.split("|"))
    assert done.stdout.startswith("UNSIGNED" if exit_code == 3 else "REFUTED")


def test_the_honest_release_passes(honest: World) -> None:
    assert honest.verify("merged", ["a", "b"]).exit_code == 0


def signed_again(world: World, build: Callable[[dict[str, str]], bytes]) -> None:
    """Sign another model signature, and the lineage about that one: all subjects match."""
    import hashlib

    from parentage.attest import claims
    from parentage.attest.opening import open_bundle

    release = world.root / "merged"
    names = ["model.safetensors", table.TENSORS, table.LEAVES]
    digests = {n: hashlib.sha256((release / n).read_bytes()).hexdigest() for n in names}
    payload = build(digests)
    (release / "model.sig").write_bytes(bundle.build(payload, KeySigner(world.key)))
    opened = open_bundle((release / "model.sig").read_bytes(), world.trust, "t")
    lineage = world.lineage_unbound("merged")
    statement = claims.lineage_statement(opened, digests[table.TENSORS], lineage)
    line = bundle.build(statement, KeySigner(world.key))
    (release / ".parentage" / "claims.jsonl").write_bytes(line + b"\n")


def test_an_ignored_weights_file_is_refuted_even_when_all_subjects_match(world: World) -> None:
    """A publisher may sign an ignore list that leaves the code open; we do not let it pass."""
    release = world.merge()
    (release / "modeling.py").write_text("import os")
    ignored = [*coverage.DEFAULT_IGNORES, "modeling.py"]
    signed_again(world, lambda digests: oms.build("m", digests, ignore_paths=ignored))

    assert found_codes(world.verify("merged", ["a", "b"])) == {"ignored-content"}


@pytest.mark.parametrize(
    "how", [{"hash_type": "blake3"}, {"shard_size": 10**9}, {"allow_symlinks": True}]
)
def test_a_release_is_signed_by_sha256_over_files(world: World, how: dict[str, Any]) -> None:
    """What the tensor table is compared with; other model signatures are `oms verify`'s."""
    world.merge()

    def build(digests: dict[str, str]) -> bytes:
        sizes = {n: (world.root / "merged" / n).stat().st_size for n in digests}
        end = "{0}:0:{1}" if "shard_size" in how else "{0}"
        return oms.build("m", {end.format(n, sizes[n]): d for n, d in digests.items()}, **how)

    signed_again(world, build)
    report = world.verify("merged", ["a", "b"])
    assert found_codes(report) == {"statement"}
    assert "over files, by SHA-256" in report.findings[0].message


ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202eevil\n::error::"


def test_text_from_outside_can_not_drive_a_terminal(attacked: Callable[[], World]) -> None:
    world = attacked()
    release = world.root / "merged"
    (release / f"bad{ESCAPES}.json").write_text("{}")
    hostile = {ESCAPES: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    (world.root / "hostile").mkdir()
    (world.root / "hostile" / "model.safetensors").write_bytes(raw_safetensors(hostile, b"xy"))

    for arguments in (
        ("verify", release, "--key", world.root / "release.pub", "--level", "integrity"),
        ("declare", world.root / "hostile", "--observed"),
        ("show", world.root / ESCAPES),
    ):
        done = command(*arguments)
        assert done.returncode in {1, 2}
        for bad in ("\x1b", "\x07", "\u202e", "\n::error::"):
            assert bad not in done.stdout + done.stderr


def test_show_escapes_what_it_quotes(world: World) -> None:
    import parentage

    step = {"id": "x", "op": "opaque/v1", "inputs": ["a"], "description": ESCAPES}
    world.save("out", world.weights("b"))
    recipe = world.recipe(["a"], [step])
    parentage.declare(world.root / "out", recipe, parents={"a": world.root / "a"})
    world.sign("out")

    done = command("show", world.root / "out")

    assert done.returncode == 0
    assert "\x1b" not in done.stdout
