"""Make the golden cases: `python tests/vectors/make.py NAME...` writes each that does not exist yet.

A case is kept for ever: a later version must come to the same verdict about the same bytes. It holds
`release/`, `parents/`, `against/`, the public key, a policy and its keys where there is one, and
`case.json` with what must come out.
The private key is thrown away.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import torch
from safetensors.torch import load_file
from worlds import MERGE, World, training

import parentage
from parentage.attest import bundle
from parentage.attest.clock import parse_time
from parentage.attest.speaking import append
from parentage.attest.statements import dispute, endorsement, status
from parentage.attest.statements.dispute import Dispute
from parentage.attest.statements.endorsement import Endorsement
from parentage.attest.statements.shared import About, Digest, sha256
from parentage.attest.statements.status import Status
from parentage.verify.attesting import Verifier, attest

HERE = Path(__file__).parent
CASES: dict[str, Callable[[World], dict[str, Any]]] = {}


class SmallWorld(World):
    """Parents of a few hundred bytes."""

    def __init__(self, root: Path) -> None:
        """Make a key and three parents."""
        self.root, self.key = root, parentage.PrivateKey.generate()
        self.trust = parentage.TrustedKeys((self.key.public,))
        generator = torch.Generator().manual_seed(2026)
        base = {f"layers.{n}.w": torch.randn(6, 8, generator=generator) for n in range(2)}
        base["norm"] = torch.tensor([1.0, -0.0, float("inf"), 5e-324, float("nan"), -1.5])
        for name in ("base", "a", "b"):
            far = {k: v + 0.05 * torch.randn(v.shape, generator=generator) for k, v in base.items()}
            self.save(name, base if name == "base" else far)


def case(function: Callable[[World], dict[str, Any]]) -> Callable[[World], dict[str, Any]]:
    """Register a case under its name."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


def expect(
    verdict: str, codes: Sequence[str] = (), parents: Sequence[str] = ("a", "b"), **more: Any
) -> dict[str, Any]:
    """Return what `case.json` says."""
    return {"verdict": verdict, "codes": sorted(codes), "parents": list(parents), **more}


@case
def honest_linear(world: World) -> dict[str, Any]:
    """0.6 a + 0.4 b in fp32, made by our own engine."""
    world.merge("release")
    return expect("verified", rungs={"merge": "A"})


@case
def honest_linear_sharded_bf16_sha256(world: World) -> dict[str, Any]:
    """Several shards, one rounding to bf16, both digest profiles."""
    step = {**MERGE, "arithmetic": {"profile": "parentage-1", "store": "BF16"}}
    parentage.merge(
        world.recipe(["a", "b"], [step]),
        world.root / "release",
        parents={name: world.root / name for name in ("a", "b")},
        profiles=("ptd1-b3", "ptd1-sha256"),
        shard_bytes=100,
    )
    world.sign("release")
    return expect("verified", rungs={"merge": "A"})


@case
def honest_slerp(world: World) -> dict[str, Any]:
    """Norms and dot products in fixed order."""
    world.merge("release", {**MERGE, "op": "slerp/v1", "params": {"t": "0.35"}})
    return expect("verified", rungs={"merge": "A"})


@case
def honest_task_arithmetic(world: World) -> dict[str, Any]:
    """Task vectors of two models over a base."""
    params = {"weights": ["0.7", "-0.2"], "normalize": False, "base": "base", "scale": "1.1"}
    step = {**MERGE, "inputs": ["base", "a", "b"], "params": params}
    world.merge("release", step)
    return expect("verified", parents=["base", "a", "b"], rungs={"merge": "A"})


@case
def honest_merge_then_train(world: World) -> dict[str, Any]:
    """The merge is proven, the training is declared."""
    merged = world.merge("merged")
    tensors = {name: tensor + 0.0002 for name, tensor in world.weights("merged").items()}
    world.save("release", tensors)
    world.declare("release", ["a", "b"], [MERGE, training("merge")], merge=merged)
    return expect("unproven", rungs={"merge": "A", "train": "-"})


@case
def merge_called_training(world: World) -> dict[str, Any]:
    """The Rio story: a 0.6/0.4 merge declared as post-training of a base."""
    world.merge("release")
    world.declare("release", ["base"], [training("base", sumLearningRate="9", steps=100000)])
    return expect("refuted", ["hidden-merge"], parents=["base"], against=["a", "b"])


@case
def merge_uploaded_instead_of_trained(world: World) -> dict[str, Any]:
    """The weights are the output of step `merge`."""
    world.merge("release")
    world.declare("release", ["a", "b"], [MERGE, training("merge")])
    return expect("refuted", ["is-intermediate"])


@case
def one_ulp(world: World) -> dict[str, Any]:
    """One weight is one unit in the last place away."""
    world.merge("release")
    tensors = world.weights("release")
    tensors["layers.1.w"].view(torch.int32)[2, 3] += 1
    world.save("release", tensors)
    world.declare("release", ["a", "b"], [MERGE])
    return expect("refuted", ["recipe-mismatch"], where="layers.1.w[19]")


@case
def negative_zero(world: World) -> dict[str, Any]:
    """Equal as a number, another bit pattern."""
    world.save("release", world.weights("a"))
    tensors = load_file(world.root / "release" / "model.safetensors")
    tensors["layers.0.w"][0, 0] = 0.0
    world.save("a", tensors)
    other = {name: tensor.clone() for name, tensor in tensors.items()}
    other["layers.0.w"][0, 0] = -0.0
    world.save("release", other)
    world.declare("release", ["a"], [{"id": "copy", "op": "copy/v1", "inputs": ["a"]}])
    return expect("refuted", ["recipe-mismatch"], parents=["a"], where="layers.0.w[0]")


@case
def wrong_ratio(world: World) -> dict[str, Any]:
    """Declared 0.6, made with 0.600001."""
    params = {"weights": ["0.600001", "0.399999"], "normalize": True}
    world.merge("release", {**MERGE, "params": params})
    world.declare("release", ["a", "b"], [MERGE])
    return expect("refuted", ["recipe-mismatch"])


@case
def no_trace(world: World) -> dict[str, Any]:
    """Training is declared; the weights are the parent's."""
    world.save("release", world.weights("base"))
    world.declare("release", ["base"], [training("base")])
    return expect("refuted", ["no-trace"], parents=["base"])


@case
def parent_missing(world: World) -> dict[str, Any]:
    """An honest merge, and only one parent at hand."""
    world.merge("release")
    return expect("unproven", parents=["a"])


@case
def tampered_after_signing(world: World) -> dict[str, Any]:
    """One bit of one weight."""
    world.merge("release")
    path = world.root / "release" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return expect("refuted", ["tensor-digest", "recipe-mismatch"])


@case
def unsigned_code(world: World) -> dict[str, Any]:
    """A file that loaders would run, added after signing."""
    world.merge("release")
    (world.root / "release" / "modeling.py").write_text("import os\n")
    return expect("refuted", ["file-unsigned"])


@case
def unsigned(world: World) -> dict[str, Any]:
    """Weights and nothing else."""
    world.save("release", world.weights("a"))
    return expect("unsigned", ["unsigned"])


@case
def two_signatures(world: World) -> dict[str, Any]:
    """A bundle has exactly one."""
    world.merge("release")
    path = world.root / "release" / "model.sig"
    document = json.loads(path.read_bytes())
    document["dsseEnvelope"]["signatures"] *= 2
    path.write_text(json.dumps(document))
    return expect("refuted", ["bundle"])


@case
def another_signer(world: World) -> dict[str, Any]:
    """Correctly signed, by someone else."""
    world.merge("release")
    world.key = parentage.PrivateKey.generate()
    return expect("refuted", ["signature"])


CHAIN = [
    {
        "id": "fused",
        "op": "layout/v1",
        "inputs": ["a"],
        "params": {
            "rules": [
                {"do": "stack", "from": "layers.{n}.w", "to": "layers.w"},
            ]
        },
    },
    {
        "id": "turned",
        "op": "layout/v1",
        "inputs": ["fused"],
        "params": {"rules": [{"do": "transpose", "tensors": ["layers.w"], "dims": [1, 2]}]},
    },
    {
        "id": "abliterated",
        "op": "abliterate/v1",
        "inputs": ["turned", "directions"],
        "params": {"rules": [{"tensors": ["layers.w"], "direction": "r", "side": "left"}]},
        "arithmetic": {"profile": "parentage-1", "store": "BF16"},
    },
]


def chain(world: World, parents: list[str], steps: list[Any]) -> None:
    """Merge and sign a recipe of several steps as `release`."""
    paths = {name: world.root / name for name in parents}
    parentage.merge(world.recipe(parents, steps), world.root / "release", parents=paths)
    world.sign("release")


@case
def honest_layout_and_abliteration(world: World) -> dict[str, Any]:
    """Layers stacked and transposed, then a direction taken out."""
    world.save("directions", {"r": torch.linspace(-1, 2, 8)})
    chain(world, ["a", "directions"], CHAIN)
    rungs = {"fused": "A", "turned": "A", "abliterated": "A"}
    return expect("verified", parents=["a", "directions"], rungs=rungs)


@case
def another_direction(world: World) -> dict[str, Any]:
    """A direction was taken out, and another one is declared."""
    world.save("directions", {"r": torch.linspace(-1, 2, 8)})
    chain(world, ["a", "directions"], CHAIN)
    world.save("directions", {"r": torch.linspace(-1, 2.001, 8)})
    world.declare("release", ["a", "directions"], CHAIN)
    return expect("refuted", ["recipe-mismatch"], parents=["a", "directions"])


@case
def honest_dora(world: World) -> dict[str, Any]:
    """An adapter with magnitudes folded in."""
    generator = torch.Generator().manual_seed(5)
    stem = "base_model.model.q"
    world.save("model", {"q.weight": torch.randn(6, 8, generator=generator).bfloat16()})
    world.save(
        "adapter",
        {
            f"{stem}.lora_A.weight": torch.randn(2, 8, generator=generator),
            f"{stem}.lora_B.weight": torch.randn(6, 2, generator=generator),
            f"{stem}.lora_magnitude_vector": torch.rand(6, generator=generator) + 1,
        },
    )
    step = {
        "id": "folded",
        "op": "dora_merge/v1",
        "inputs": ["model", "adapter"],
        "params": {"alpha": "4"},
        "arithmetic": {"profile": "parentage-1"},
    }
    world.merge("release", step)
    return expect("verified", parents=["model", "adapter"], rungs={"folded": "A"})


@case
def honest_running_mean(world: World) -> dict[str, Any]:
    """The mean of three checkpoints."""
    step = {
        "id": "mean",
        "op": "running_mean/v1",
        "inputs": ["base", "a", "b"],
        "arithmetic": {"profile": "parentage-1"},
    }
    world.merge("release", step)
    return expect("verified", parents=["base", "a", "b"], rungs={"mean": "A"})


@case
def honest_vocabulary(world: World) -> dict[str, Any]:
    """A head tied to the embeddings, rows cut, shipped, and filled with the mean."""
    embed = torch.arange(24, dtype=torch.float32).reshape(6, 4) / 7
    world.save("model", {"embed": embed})
    world.save("rows", {"embed": -embed[:2], "head": -embed[2:4]})
    rows = [
        {"rows": "range", "input": "tied", "end": 5},
        {"rows": "range", "input": "rows", "start": 1},
        {"rows": "mean", "input": "tied", "count": 2},
    ]
    steps = [
        {"id": "tied", "op": "tie/v1", "inputs": ["model"], "params": {"names": {"head": "embed"}}},
        {
            "id": "resized",
            "op": "vocab_resize/v1",
            "inputs": ["tied", "rows"],
            "params": {"tensors": ["embed", "head"], "rows": rows},
        },
    ]
    chain(world, ["model", "rows"], steps)
    return expect("verified", parents=["model", "rows"], rungs={"tied": "A", "resized": "A"})


ROLES = """version: "0.1"
roles:
  publisher: {any: [{key: release.pub}]}
  verifier: {any: [{key: lab1.pub}, {key: lab2.pub}], threshold: 2}
  witness: {any: [{key: hub.pub}]}
  recovery: {any: [{key: safe1.pub}, {key: safe2.pub}, {key: safe3.pub}], threshold: 2}
"""
NOW = "2026-07-01T00:00:00Z"


class Speakers:
    """A release, a policy beside it, and what was said since."""

    def __init__(self, world: World, policy: str) -> None:
        """Make a merge, everybody's key, and the policy."""
        self.world, self.release = world, world.merge("release")
        names = ("lab1", "lab2", "hub", "safe1", "safe2", "safe3", "stranger")
        self.keys = {name: parentage.PrivateKey.generate() for name in names} | {
            "release": world.key
        }
        for name, key in self.keys.items():
            (world.root / f"{name}.pub").write_bytes(key.public.pem)
        (world.root / "trust.yaml").write_text(ROLES + policy)
        oms, lineage = (bundle.parse(d, "t").payload for d in self.lines())
        self.about = About(sha256(lineage), json.loads(oms)["subject"][0]["digest"]["sha256"])

    def lines(self) -> list[bytes]:
        """Return model.sig and the claims."""
        path = self.release / ".parentage" / "claims.jsonl"
        return [(self.release / "model.sig").read_bytes(), *path.read_bytes().splitlines()]

    def say(self, payload: bytes, *names: str) -> str:
        """Sign a statement, and return what it is known by."""
        for name in names:
            append(
                self.release, [bundle.build(payload, parentage.KeySigner(self.keys[name])) + b"\n"]
            )
        return sha256(payload)

    def status(self, by: Sequence[str], state: str, sequence: int, since: str, **more: Any) -> str:
        """Say where the release stands."""
        found = Status(state=state, sequence=sequence, effective_at=since, **more)  # type: ignore[arg-type]
        return self.say(status.build(self.about, found), *by)

    def expect(self, verdict: str, denials: Sequence[str] = (), **more: Any) -> dict[str, Any]:
        """Return what `case.json` says."""
        more |= {
            "policy": "trust.yaml",
            "now": NOW,
            "denials": sorted(denials),
            "level": "integrity",
        }
        return expect(verdict, parents=[], **more)


@case
def status_current_and_endorsed(world: World) -> dict[str, Any]:
    """A policy that demands freshness and an endorsement, and has both; a stranger disputes it."""
    gate = Speakers(world, "require: [{endorsement: {}}]\nstatus: {onMissing: fail, maxAge: 60d}\n")
    gate.status(
        ["release"], "current", 1, "2026-06-01T00:00:00Z", valid_until="2026-08-01T00:00:00Z"
    )
    gate.say(endorsement.build(gate.about.lineage, Endorsement()), "hub")
    claim = Digest(sha256=gate.about.lineage)
    gate.say(dispute.build(gate.about, Dispute(claim=claim, reason="other")), "stranger")
    return gate.expect("verified", state="current")


@case
def status_withdrawn(world: World) -> dict[str, Any]:
    """Current, then withdrawn by the publisher."""
    gate = Speakers(world, "")
    first = gate.status(
        ["release"], "current", 1, "2026-06-01T00:00:00Z", valid_until="2026-08-01T00:00:00Z"
    )
    gate.status(
        ["release"],
        "withdrawn",
        2,
        "2026-06-20T00:00:00Z",
        reason="license",
        previous=Digest(sha256=first),
    )
    return gate.expect("denied", ["release-withdrawn"], state="withdrawn")


@case
def status_fork(world: World) -> dict[str, Any]:
    """Two statuses of one sequence."""
    gate = Speakers(world, "")
    for end in ("2026-08-01T00:00:00Z", "2026-08-02T00:00:00Z"):
        gate.status(["release"], "current", 1, "2026-06-01T00:00:00Z", valid_until=end)
    return gate.expect("denied", ["status-fork"], state="forked")


@case
def status_key_stolen(world: World) -> dict[str, Any]:
    """Two of three for recovery say that the key was stolen; the thief says that all is well."""
    gate = Speakers(world, "")
    gate.status(["safe1", "safe3"], "withdrawn", 1, "2026-06-10T00:00:00Z", reason="key-compromise")
    gate.status(["release"], "current", 9, "2026-06-20T00:00:00Z", valid_until="2027-01-01T00:00:00Z",
                previous=Digest(sha256="0" * 64))  # fmt: skip
    return gate.expect("denied", ["key-compromised"], state="compromised")


@case
def status_too_few_for_recovery(world: World) -> dict[str, Any]:
    """One of three, twice, and a stranger: shown, and no more."""
    gate = Speakers(world, "")
    gate.status(
        ["safe1", "safe1", "stranger"], "withdrawn", 1, "2026-06-10T00:00:00Z", reason="security"
    )
    return gate.expect("verified", state="unknown")


@case
def recomputed_by_two(world: World) -> dict[str, Any]:
    """Two verifiers signed the same recompute, as the policy demands."""
    gate = Speakers(world, "require: [{recompute: {min: exact, coverage: '1'}}]\n")
    _attested(gate, "lab1", "lab2")
    return gate.expect("verified", state="unknown")


@case
def recomputed_by_one(world: World) -> dict[str, Any]:
    """One verifier, twice, and the publisher."""
    gate = Speakers(world, "require: [{recompute: {min: exact, coverage: '1'}}]\n")
    payload = _attested(gate, "lab1")
    gate.say(payload, "lab1", "release")
    return gate.expect("denied", ["requirement-not-met"], state="unknown")


def _attested(gate: Speakers, *names: str) -> bytes:
    for name in names:
        key = gate.keys[name]
        verifier = Verifier(
            signer=parentage.KeySigner(key), trust=parentage.TrustedKeys((key.public,))
        )
        found = attest(gate.release, verifier, trust=gate.world.trust,
                       parents=[(None, gate.world.root / "a"), (None, gate.world.root / "b")],
                       demands=parentage.Demands(device="cpu", now=parse_time(NOW, "now")))  # fmt: skip
        append(gate.release, found.fit)
    return bundle.parse(found.fit[0], "t").payload


def make(name: str) -> None:
    """Write one case."""
    target = HERE / name
    with tempfile.TemporaryDirectory() as folder:
        world = SmallWorld(Path(folder))
        found = CASES[name](world)
        target.mkdir()
        shutil.copytree(world.root / "release", target / "release")
        for kind in ("parents", "against"):
            for parent in found.get(kind, []):
                shutil.copytree(world.root / parent, target / kind / parent)
        (target / "release.pub").write_bytes(world.key.public.pem)
        if "policy" in found:
            for file in [*world.root.glob("*.pub"), world.root / found["policy"]]:
                shutil.copy(file, target / file.name)
        for extra in found.pop("files", []):
            shutil.copy(world.root / extra, target / extra)
    found["about"] = (CASES[name].__doc__ or "").strip()
    (target / "case.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        if not (HERE / wanted).exists():
            make(wanted)
