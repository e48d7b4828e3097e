"""The examination from end to end on small real releases: every verdict, for its own reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from worlds import MERGE, World, training

import parentage
from parentage import Report, Verdict


def codes(report: Report) -> set[str]:
    return {found.code for found in report.findings if found.refutes}


def test_an_honest_merge_is_verified_on_rung_a(world: World) -> None:
    world.merge()

    report = world.verify("merged", ["b", "a"])

    assert (report.verdict, report.exit_code) == (Verdict.VERIFIED, 0)
    assert {result.rung for result in report.tensors} == {"A"}
    assert report.coverage.tensors_checked == 5


def test_the_report_is_the_same_bytes_every_time(world: World) -> None:
    world.merge()

    assert (
        world.verify("merged", ["a", "b"]).to_json()
        == world.verify("merged", ["a", "b"], threads=1).to_json()
    )


def test_a_missing_parent_leaves_it_unproven(world: World) -> None:
    world.merge()

    report = world.verify("merged", ["a"])

    assert (report.verdict, report.exit_code) == (Verdict.UNPROVEN, 4)
    assert report.parents_missing == ["b"]


def test_another_parent_is_noted_and_not_used(world: World) -> None:
    world.merge()

    report = world.verify("merged", ["a", "base"])

    assert report.verdict == Verdict.UNPROVEN
    assert "parent-is-another" in {found.code for found in report.findings}


@pytest.mark.parametrize("ulps", [1, -1])
def test_one_ulp_in_one_weight_is_refuted_by_name(world: World, ulps: int) -> None:
    world.merge("tampered")
    tensors = world.weights("tampered")
    tensors["layers.2.w"].view(torch.int32)[5, 7] += ulps
    world.save("tampered", tensors)
    world.declare("tampered", ["a", "b"], [MERGE])

    report = world.verify("tampered", ["a", "b"])

    assert (report.verdict, codes(report)) == (Verdict.REFUTED, {"recipe-mismatch"})
    (found,) = report.findings
    assert found.where == f"layers.2.w[{5 * 64 + 7}]"


@pytest.mark.parametrize("weights", [["0.600001", "0.399999"], ["0.4", "0.6"]])
def test_a_wrong_ratio_is_refuted(world: World, weights: list[str]) -> None:
    world.merge("other", {**MERGE, "params": {"weights": weights, "normalize": True}})
    world.declare("other", ["a", "b"], [MERGE])

    assert codes(world.verify("other", ["a", "b"])) == {"recipe-mismatch"}


def test_a_merge_called_training_is_found_among_suspects(world: World) -> None:
    world.merge("claimed")
    world.declare("claimed", ["base"], [training("base", sumLearningRate="1", steps=100000)])

    report = world.verify("claimed", ["base"], against=["a", "b"])

    assert (report.verdict, codes(report)) == (Verdict.REFUTED, {"hidden-merge"})
    assert "0.6 x a + 0.4 x b" in report.findings[0].message


def test_a_displacement_beyond_the_declared_learning_rates_is_refuted(world: World) -> None:
    world.merge("claimed")
    world.declare("claimed", ["base"], [training("base")])

    assert codes(world.verify("claimed", ["base"])) == {"training-too-far"}


def test_the_merge_uploaded_instead_of_the_trained_model(world: World) -> None:
    world.merge("claimed")
    world.declare("claimed", ["a", "b"], [MERGE, training("merge")])

    report = world.verify("claimed", ["a", "b"])

    assert (report.verdict, codes(report)) == (Verdict.REFUTED, {"is-intermediate"})
    assert "this is the output of step `merge`" in report.findings[0].message


def test_the_merge_uploaded_is_told_from_roots_alone(world: World) -> None:
    merged = world.merge("claimed")
    world.declare("claimed", ["a", "b"], [MERGE, training("merge")], merge=merged)

    assert codes(world.verify("claimed", [])) == {"is-intermediate"}


def test_training_that_left_no_trace(world: World) -> None:
    world.save("same", world.weights("base"))
    world.declare("same", ["base"], [training("base")])

    assert codes(world.verify("same", ["base"])) == {"no-trace"}
    assert codes(world.verify("same", [])) == {"no-trace"}


def test_a_frozen_tensor_that_moved_is_refuted(world: World) -> None:
    tensors = world.weights("base")
    tensors["norm"] = tensors["norm"] + 0.0001
    world.save("tuned", tensors)
    world.declare("tuned", ["base"], [training("base", trainable=["layers.*"])])

    report = world.verify("tuned", ["base"])

    assert codes(report) == {"frozen-tensor-changed"}
    assert report.findings[0].where == "norm"


def test_honest_merge_then_train_is_unproven_and_says_why(world: World) -> None:
    merged = world.merge()
    tensors = {name: t + 0.0002 for name, t in world.weights("merged").items()}
    world.save("trained", tensors)
    world.declare("trained", ["a", "b"], [MERGE, training("merge")], merge=merged)

    report = world.verify("trained", ["a", "b"])

    assert (report.verdict, report.exit_code) == (Verdict.UNPROVEN, 4)
    assert codes(report) == set()
    assert [step.rung for step in report.steps] == ["A", "-"]
    assert any("that this training happened" in text for text in report.not_checked)


def test_a_wrong_step_output_is_refuted(world: World) -> None:
    tensors = {name: t + 0.0002 for name, t in world.weights("a").items()}
    world.save("trained", tensors)
    world.declare(
        "trained",
        ["a", "b"],
        [MERGE, training("merge", sumLearningRate="1")],
        merge=world.root / "a",
    )

    assert "step-output" in codes(world.verify("trained", ["a", "b"]))


def test_a_chain_of_computable_steps_is_recomputed_through(world: World) -> None:
    cast = {
        "id": "cast",
        "op": "cast/v1",
        "inputs": ["merge"],
        "arithmetic": {"profile": "parentage-1", "store": "BF16"},
    }
    recipe = world.recipe(["a", "b"], [MERGE, cast])
    parents = {"a": world.root / "a", "b": world.root / "b"}
    declared = parentage.merge(recipe, world.root / "chain", parents=parents)
    world.sign("chain")

    report = world.verify("chain", ["a", "b"])

    assert report.verdict == Verdict.VERIFIED
    assert [step.rung for step in report.steps] == ["A", "A"]
    assert declared.lineage.recipe.steps[0].output


def test_another_structure_is_refuted(world: World) -> None:
    world.merge("other")
    tensors = world.weights("other")
    tensors["extra"] = torch.zeros(3)
    del tensors["norm"]
    world.save("other", tensors)
    world.declare("other", ["a", "b"], [MERGE])

    assert codes(world.verify("other", ["a", "b"])) == {"tensor-not-there", "tensor-from-nowhere"}


def test_an_observation_is_never_verified_as_lineage(world: World) -> None:
    world.declare("base", [], [])

    assert world.verify("base", []).verdict == Verdict.UNPROVEN
    assert world.verify("base", [], level="integrity").verdict == Verdict.VERIFIED


def test_an_opaque_step_caps_the_verdict(world: World) -> None:
    step = {"id": "magic", "op": "opaque/v1", "inputs": ["a"], "description": "we did something"}
    world.save("out", world.weights("b"))
    world.declare("out", ["a"], [step])

    assert world.verify("out", ["a"]).verdict == Verdict.UNPROVEN


def test_whole_files_compares_sha256_too(world: World) -> None:
    world.merge()

    assert world.verify("merged", ["a", "b"], whole_files=True).coverage.file_hashes


def test_both_digest_profiles(world: World) -> None:
    recipe = world.recipe(["a", "b"], [MERGE])
    parents = {"a": world.root / "a", "b": world.root / "b"}
    parentage.merge(
        recipe, world.root / "both", parents=parents, profiles=("ptd1-b3", "ptd1-sha256")
    )
    world.sign("both")

    report = world.verify("both", ["a", "b"])

    assert report.verdict == Verdict.VERIFIED
    assert set(report.root) == {"ptd1-b3", "ptd1-sha256"}


def bf16(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.bfloat16() for name, t in tensors.items()}


@pytest.mark.parametrize(
    ("make", "rung"),
    [
        # An engine that we do not know, in fp32: b + 0.35 (a - b) stays within every cell.
        (lambda a, b: torch.lerp(b.float(), a.float(), 0.35).bfloat16(), "C"),
        # Rounding products to bf16 leaves the cells of an fp32-class engine.
        (lambda a, b: a * 0.35 + b * 0.65, "refuted"),
    ],
)
def test_rung_c_accepts_unknown_fp32_engines_and_nothing_else(
    world: World, make: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], rung: str
) -> None:
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(200_000, generator=generator).bfloat16()
    # Siblings a few ulps apart: decimal ratios then hit exact mid-points, where engines part.
    a = (
        base.view(torch.int16) + torch.randint(0, 12, base.shape, generator=generator).short()
    ).view(torch.bfloat16)
    b = (
        base.view(torch.int16) + torch.randint(0, 12, base.shape, generator=generator).short()
    ).view(torch.bfloat16)
    world.save("a", {"w": a})
    world.save("b", {"w": b})
    world.save("out", {"w": make(a, b)})
    step = {
        **MERGE,
        "params": {"weights": ["0.35", "0.65"], "normalize": True},
        "arithmetic": {"profile": "mk-0.1.5", "compute": "BF16", "store": "BF16"},
    }
    world.declare("out", ["a", "b"], [step])

    report = world.verify("out", ["a", "b"])
    (result,) = report.tensors

    assert result.rung == rung
    if rung == "C":
        assert 0 < result.unexplained <= result.ambiguous < result.elements
        assert report.verdict == Verdict.UNPROVEN
        assert world.verify("out", ["a", "b"], rung="C").verdict == Verdict.VERIFIED


def test_a_nan_in_the_weights_neither_hides_nor_refutes(world: World) -> None:
    """NaN and infinities have no distance and no ratio; everything else is still measured."""
    for name in ("a", "b", "base"):
        tensors = world.weights(name)
        tensors["norm"][:3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
        world.save(name, tensors)
    merged = world.merge("claimed")
    world.declare("claimed", ["base"], [training("base", sumLearningRate="1", steps=100000)])
    assert codes(world.verify("claimed", ["base"], against=["a", "b"])) == {"hidden-merge"}

    world.save(
        "trained", {n: t + 0.0002 for n, t in load_file(merged / "model.safetensors").items()}
    )
    world.declare("trained", ["a", "b"], [MERGE, training("merge")])
    assert codes(world.verify("trained", ["a", "b"])) == set()


def test_a_nan_planted_in_a_hidden_merge_is_counted_not_obeyed(world: World) -> None:
    world.merge("claimed")
    tensors = world.weights("claimed")
    tensors["norm"][0] = float("nan")
    world.save("claimed", tensors)
    world.declare("claimed", ["base"], [training("base")])

    report = world.verify("claimed", ["base"], against=["a", "b"])

    assert report.verdict == Verdict.REFUTED
    assert {"training-too-far"} <= codes(report)
    assert "not-finite" in {found.code for found in report.findings}


def test_a_release_in_a_hub_cache_is_verified_where_it_lies(world: World) -> None:
    """Links into the cache's blobs, as huggingface_hub lays them out."""
    import hashlib

    release = world.merge()
    entry = world.root / "models--city--rio"
    snapshot = entry / "snapshots" / ("a" * 40)
    for path in sorted(release.rglob("*")):
        if path.is_file():
            name = path.relative_to(release)
            blob = entry / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(path.read_bytes())
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).symlink_to("../" * (2 + len(name.parts) - 1) + f"blobs/{blob.name}")

    report = world.verify(f"models--city--rio/snapshots/{'a' * 40}", ["a", "b"])

    assert report.verified


@pytest.mark.parametrize(
    ("params", "profile", "told"),
    [
        ({"weights": ["0.6", "0.4"], "normalize": True}, "mk-0.1.4", "0.6 x a + 0.4 x b"),
        ({"weights": ["0.35", "0.65"], "normalize": True}, "mk-0.1.4", "0.35 x a + 0.65 x b"),
        ({"weights": ["0.3"], "normalize": False, "base": "a"}, "mk-0.1.5", "0.7 x a + 0.3 x b"),
        (
            {"weights": ["0.125"], "normalize": False, "base": "b"},
            "mk-0.1.5",
            "0.125 x a + 0.875 x b",
        ),
    ],
)
@pytest.mark.parametrize("far", [0.02, 0.002])
def test_a_hidden_merge_that_was_rounded_often_is_replayed(
    world: World, params: dict[str, object], profile: str, told: str, far: float
) -> None:
    """Engines that round every product leave the rounding cells; they are replayed instead."""
    generator = torch.Generator().manual_seed(5)
    base = {n: torch.randn(t.shape, generator=generator) for n, t in world.weights("base").items()}
    for name in ("a", "b", "base"):
        moved = {n: t + far * torch.randn(t.shape, generator=generator) for n, t in base.items()}
        world.save(name, {n: t.bfloat16() for n, t in moved.items()})
    arithmetic = {"profile": profile, "compute": "BF16", "store": "BF16"}
    world.merge("claimed", {**MERGE, "params": params, "arithmetic": arithmetic})
    world.declare("claimed", ["base"], [training("base", sumLearningRate="9", steps=100000)])

    report = world.verify("claimed", ["base"], against=["b", "a"])

    assert codes(report) == {"hidden-merge"}
    first, second = told.split(" + ")
    assert told in report.findings[0].message or f"{second} + {first}" in report.findings[0].message


def test_a_model_near_a_blend_is_not_called_one(world: World) -> None:
    """Training after a merge: near the blend, and honestly another model."""
    world.merge("merged")
    generator = torch.Generator().manual_seed(9)
    trained = {
        n: t + 1e-5 * torch.randn(t.shape, generator=generator)
        for n, t in world.weights("merged").items()
    }
    world.save("trained", trained)
    world.declare("trained", ["base"], [training("base", sumLearningRate="9", steps=100000)])

    assert codes(world.verify("trained", ["base"], against=["a", "b"])) == set()


@pytest.mark.parametrize("profile", ["parentage-1", "mk-0.1.5", "mk-0.1.4"])
def test_a_hidden_merge_stored_in_another_dtype_than_its_parents(
    world: World, profile: str
) -> None:
    compute = {} if profile == "parentage-1" else {"compute": "BF16"}
    step = {**MERGE, "arithmetic": {"profile": profile, "store": "BF16", **compute}}
    world.merge("claimed", step)
    world.declare("claimed", ["base"], [training("base", sumLearningRate="9", steps=100000)])

    report = world.verify("claimed", ["base"], against=["a", "b"])

    assert "hidden-merge" in codes(report)
    assert "0.6 x a + 0.4 x b" in " ".join(found.message for found in report.findings)


def test_a_base_merely_cast_is_no_training(world: World) -> None:
    """Published in bf16, declared as trained from an fp32 base, and nothing but the rounding."""
    world.save("cast", bf16(world.weights("base")))
    world.declare("cast", ["base"], [training("base")])

    assert codes(world.verify("cast", ["base"])) == {"no-trace"}


def test_training_may_be_stored_in_another_dtype(world: World) -> None:
    trained = {name: tensor + 0.0002 for name, tensor in world.weights("base").items()}
    world.save("trained", bf16(trained))
    world.declare("trained", ["base"], [training("base")])

    report = world.verify("trained", ["base"])

    assert (report.verdict, codes(report)) == (Verdict.UNPROVEN, set())


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_may_go_only_where_it_is_tied(world: World, tied: bool) -> None:
    base = {**world.weights("base"), "lm_head.weight": torch.ones(4, 4)}
    world.save("base", base)
    trained = {name: tensor + 0.0002 for name, tensor in base.items() if name != "lm_head.weight"}
    world.save("trained", trained)
    world.declare("trained", ["base"], [training("base", tiedEmbeddings=tied)])

    assert codes(world.verify("trained", ["base"])) == (
        set() if tied else {"training-base-differs"}
    )


def test_a_parent_may_be_named_by_another_profile_than_the_release(world: World) -> None:
    from parentage.manifest.build import root_of

    world.merge("merged")
    sha = {i: root_of(world.root / i, profiles=("ptd1-sha256",)) for i in ("a", "b")}
    recipe = world.recipe(["a", "b"], [MERGE])
    draft = parentage.declare(
        world.root / "merged", recipe, parents={i: world.root / i for i in ("a", "b")}
    )
    import msgspec

    from parentage.manifest import build

    parents = tuple(
        msgspec.structs.replace(parent, weights=sha[parent.id]) for parent in draft.lineage.parents
    )
    lineage = msgspec.structs.replace(draft.lineage, parents=parents)
    build.write_draft(world.root / "merged", lineage, draft.table, draft.leaves)
    world.sign("merged")

    assert world.verify("merged", ["a", "b"]).verified
