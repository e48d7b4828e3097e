"""Shards and their join: the report of a whole run, byte for byte, and nobody else's word for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import MERGE, World, command

from parentage import Demands, KeySigner, PrivateKey, Report, TrustedKeys
from parentage.attest import bundle
from parentage.attest.statement import build_statement, parse_statement
from parentage.manifest.errors import CannotRunError, PartError, UsageError
from parentage.manifest.model import open_model
from parentage.verify.check import verify_part
from parentage.verify.engine import bind
from parentage.verify.join import join
from parentage.verify.parts import PARTIAL, parse
from parentage.verify.values import FileSource, Scratch
from parentage.verify.way import Way

FREE = {**MERGE, "arithmetic": {"profile": "mk-0.1.5", "compute": "F32"}}


class Verifier:
    """Somebody who verifies in shards."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.key = PrivateKey.generate()
        self.trust = TrustedKeys((self.key.public,))

    def part(
        self, name: str, i: int, n: int, parents: Any = ("a", "b"), key: Any = None, **way: Any
    ) -> Path:
        report, data = verify_part(
            self.world.root / name,
            trust=self.world.trust,
            parents=[(None, self.world.root / p) for p in parents],
            demands=Demands(device="cpu", way=Way(shard=(i, n), **way)),
            signer=KeySigner(key or self.key),
        )
        assert report.verdict == "unproven"
        path = self.world.root / f"{name}-{i}-of-{n}.json"
        path.write_bytes(data)
        return path

    def parts(self, name: str, n: int, **way: Any) -> list[Path]:
        return [self.part(name, i, n, **way) for i in range(1, n + 1)]

    def join(self, name: str, parts: list[Path]) -> Report:
        return join(self.world.root / name, parts, trust=self.world.trust, verifiers=self.trust)


@pytest.fixture
def verifier(world: World) -> Verifier:
    return Verifier(world)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_joined_is_whole(world: World, verifier: Verifier, n: int) -> None:
    world.merge()
    parts = verifier.parts("merged", n)

    assert (
        verifier.join("merged", parts[::-1]).to_json()
        == world.verify("merged", ["a", "b"]).to_json()
    )


def test_a_joined_chain_is_whole(world: World, verifier: Verifier) -> None:
    world.chain("chained")
    parts = verifier.parts("chained", 3)
    whole = world.verify("chained", ["a", "b"])

    assert whole.verified
    assert len(whole.steps) == 2
    assert verifier.join("chained", parts).to_json() == whole.to_json()


def tamper(world: World, step: Any, *places: str) -> None:
    world.merge("merged", step)
    tensors = world.weights("merged")
    for name in places:
        tensors[name].view(torch.int32)[5, 7] += 1 << 12
    world.save("merged", tensors)
    world.declare("merged", ["a", "b"], [step])


@pytest.mark.parametrize("step", [MERGE, FREE], ids=["parentage-1", "mk-0.1.5"])
def test_a_joined_refutation_is_whole(world: World, verifier: Verifier, step: Any) -> None:
    tamper(world, step, "layers.2.w")
    whole = world.verify("merged", ["a", "b"])

    assert whole.verdict == "refuted"
    assert whole.tensors[2].first is not None
    assert verifier.join("merged", verifier.parts("merged", 4)).to_json() == whole.to_json()


def test_another_engine_than_the_likeliest(world: World, verifier: Verifier) -> None:
    """A shard whose tensors both engines give stops at the first; the others decide for the second."""
    for name in ("a", "b"):
        world.save(name, {**world.weights(name), "norm": torch.zeros(64)})
    recipe = world.recipe(["a", "b"], [FREE])
    with open_model(world.root / "a") as a, open_model(world.root / "b") as b:
        method = bind(recipe.steps, {"a": FileSource(a), "b": FileSource(b)})["merge"].method
        engine, scratch = method.variants[1], Scratch(torch.device("cpu"))
        made = {
            name: method.chunk(name, 0, spec.elements, engine, scratch).clone().reshape(spec.shape)
            for name, spec in method.specs.items()
        }
    world.save("merged", made)
    world.declare("merged", ["a", "b"], [FREE])
    whole = world.verify("merged", ["a", "b"])
    parts = verifier.parts("merged", 8)

    assert whole.verified
    assert whole.steps[0].engine == engine
    with pytest.raises(CannotRunError, match="not tried on each") as caught:
        verifier.join("merged", parts)
    assert caught.value.where == "norm"
    assert "--every-engine" in caught.value.hint
    again = verifier.part("merged", 8, 8, every_engine=True)
    assert verifier.join("merged", [*parts[:7], again]).to_json() == whole.to_json()


def test_a_missing_shard_leaves_it_unproven(world: World, verifier: Verifier) -> None:
    world.merge()
    parts = verifier.parts("merged", 3)

    report = verifier.join("merged", [parts[0], parts[2]])

    assert (report.verdict, report.exit_code) == ("unproven", 4)
    assert any("2/3" in text for text in report.not_checked)


def test_a_missing_shard_does_not_hide_a_refutation(world: World, verifier: Verifier) -> None:
    tamper(world, MERGE, "layers.0.w")

    assert verifier.join("merged", [verifier.part("merged", 1, 3)]).verdict == "refuted"


def test_a_part_by_a_stranger_is_refused(world: World, verifier: Verifier) -> None:
    world.merge()
    stranger = verifier.part("merged", 1, 1, key=PrivateKey.generate())

    with pytest.raises(PartError, match="signed by a key that is not trusted"):
        verifier.join("merged", [stranger])


def test_the_publisher_is_no_verifier(world: World, verifier: Verifier) -> None:
    world.merge()
    own = verifier.part("merged", 1, 1, key=world.key)

    with pytest.raises(PartError, match="not trusted"):
        verifier.join("merged", [own])
    for keys in ((world.key.public,), (verifier.key.public, world.key.public)):
        with pytest.raises(UsageError, match="publisher"):
            join(world.root / "merged", [own], trust=world.trust, verifiers=TrustedKeys(keys))


def test_one_changed_byte_of_a_part_is_refused(world: World, verifier: Verifier) -> None:
    world.merge()
    path = verifier.part("merged", 1, 1)
    data = path.read_bytes()
    for at in range(0, len(data) - 1, 211):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(PartError):
            verifier.join("merged", [path])


def test_shards_that_do_not_belong_together(world: World, verifier: Verifier) -> None:
    world.merge()
    one, two = verifier.parts("merged", 2)

    with pytest.raises(PartError, match="stands twice"):
        verifier.join("merged", [one, two, one])
    with pytest.raises(PartError, match="do not belong together"):
        verifier.join("merged", [one, verifier.part("merged", 2, 3)])
    with pytest.raises(PartError, match="do not belong together"):
        verifier.join("merged", [one, verifier.part("merged", 2, 2, parents=("a", "b", "base"))])


def test_a_part_of_another_release_is_refused(world: World, verifier: Verifier) -> None:
    world.merge()
    world.merge("other", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}})

    with pytest.raises(PartError, match="of another release"):
        verifier.join("merged", [verifier.part("other", 1, 1)])


def test_a_part_of_another_demand_is_refused(world: World, verifier: Verifier) -> None:
    world.merge()
    part = verifier.part("merged", 1, 1)

    with pytest.raises(PartError, match="rung"):
        join(
            world.root / "merged", [part], trust=world.trust, verifiers=verifier.trust,
            demands=Demands(rung="C"),
        )  # fmt: skip


def spoilt(verifier: Verifier, path: Path, change: Any) -> Path:
    """Let the verifier itself sign something else."""
    statement = parse_statement(bundle.parse(path.read_bytes().strip(), "part").payload, "part")
    change(statement.predicate)
    payload = build_statement(statement.subjects, PARTIAL, statement.predicate)
    path.write_bytes(bundle.build(payload, KeySigner(verifier.key)))
    return path


def _tensor_dropped(p: Any) -> None:
    p["steps"]["merge"]["tried"].popitem()


def _tensor_added(p: Any) -> None:
    p["steps"]["merge"]["tried"]["more"] = next(iter(p["steps"]["merge"]["tried"].values()))


def _another_share(p: Any) -> None:
    p["shard"] = 2


def _unknown_field(p: Any) -> None:
    p["more"] = 1


def _number_as_text(p: Any) -> None:
    p["of"] = str(p["of"])


def _no_such_shard(p: Any) -> None:
    p["shard"] = 3


def _another_step(p: Any) -> None:
    p["steps"]["other"] = p["steps"].pop("merge")


def _another_version(p: Any) -> None:
    p["inputs"]["parentage"] = "0.0.1"


@pytest.mark.parametrize(
    "change",
    [_tensor_dropped, _tensor_added, _another_share, _unknown_field, _number_as_text, _no_such_shard, _another_step, _another_version],
)  # fmt: skip
def test_a_verifier_that_says_nonsense_is_told_so(
    world: World, verifier: Verifier, change: Any
) -> None:
    world.merge()
    path = spoilt(verifier, verifier.part("merged", 1, 2), change)

    with pytest.raises(PartError):
        verifier.join("merged", [path])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["inputs", "shard", "of", "device", "steps", "rules", "tensors", "tried", "counts"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_any_json_is_a_part_or_a_named_error(document: Any) -> None:
    try:
        part = parse(document, "test")
    except PartError:
        return
    assert 1 <= part.shard <= part.of


def test_what_can_not_be_shared_out(world: World, verifier: Verifier) -> None:
    world.merge()

    with pytest.raises(UsageError, match="--against"):
        verify_part(
            world.root / "merged", trust=world.trust, against=[world.root / "a"],
            demands=Demands(way=Way(shard=(1, 2))), signer=KeySigner(verifier.key),
        )  # fmt: skip


def test_nothing_is_signed_where_a_parent_is_missing(world: World, verifier: Verifier) -> None:
    world.merge()
    report, data = verify_part(
        world.root / "merged", trust=world.trust, parents=[(None, world.root / "a")],
        demands=Demands(device="cpu", way=Way(shard=(1, 2))), signer=KeySigner(verifier.key),
    )  # fmt: skip

    assert (report.verdict, data) == ("unproven", b"")


def test_the_command_line(world: World) -> None:
    world.merge()
    root = world.root
    (root / "k.pub").write_bytes(world.key.public.pem)
    assert command("keygen", "-o", root / "v.key", "--no-passphrase").returncode == 0
    verify = ["verify", root / "merged", "--key", root / "k.pub", "--device", "cpu",
              "--parent", root / "a", "--parent", root / "b"]  # fmt: skip
    for i in (1, 2):
        done = command(
            *verify, "--shard", f"{i}/2", "-o", root / f"p{i}", "--sign-key", root / "v.key"
        )
        assert done.returncode == 4, done.stderr
    joined = command("join", root / "merged", root / "p2", root / "p1",
                     "--key", root / "k.pub", "--verifier", root / "v.pub", "--json")  # fmt: skip

    assert joined.returncode == 0, joined.stdout
    assert joined.stdout == command(*verify, "--json").stdout
    refused = command("join", root / "merged", root / "p2", root / "p1",
                      "--key", root / "k.pub", "--verifier", root / "k.pub")  # fmt: skip
    assert refused.returncode == 2
    for wrong in (
        ["--shard", "1/2"],
        ["--shard", "x", "-o", "o", "--sign-key", root / "v.key"],
        ["-o", "o"],
        ["--every-engine"],
    ):
        assert command(*verify, *wrong).returncode == 2
    sampled = command(*verify, "--sample", "2", "--json")
    assert sampled.returncode == 4
    assert json.loads(sampled.stdout)["sample"]["chunks"] == 2
    assert not (root / "o").exists()
