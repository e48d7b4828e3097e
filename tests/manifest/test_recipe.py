"""Recipes that can't be one: each refused by name, with the field and the value."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from named import value_or_named_error

from parentage.manifest import canonical, merge_steps, recipe, wire
from parentage.manifest.errors import RecipeError

MERGE = {
    "id": "merge",
    "op": "weighted_sum/v1",
    "inputs": ["a", "b"],
    "params": {"weights": ["0.6", "0.4"], "normalize": True},
    "arithmetic": {"profile": "parentage-1", "store": "BF16"},
}
TRAINING = {
    "method": "sft",
    "steps": 10,
    "optimizer": {"name": "adamw"},
    "hyperparameters": {},
    "sumLearningRate": "0.1",
    "sumLearningRateWeightDecay": "0",
    "data": [],
    "program": {"sha256": "0" * 64},
    "trainable": ["*"],
    "tiedEmbeddings": False,
}


def document(*steps: dict[str, Any], parents: tuple[str, ...] = ("a", "b"), **more: Any) -> Any:
    return {"version": "0.1", "parents": [{"id": p} for p in parents], "steps": list(steps), **more}


def params(**changes: Any) -> dict[str, Any]:
    return {**MERGE, "params": {**MERGE["params"], **changes}}


BROKEN: dict[str, tuple[Any, str]] = {
    "unknown-op": (document({**MERGE, "op": "magic/v1"}), "magic/v1"),
    "no-op": (document({k: v for k, v in MERGE.items() if k != "op"}), "op"),
    "unknown-field": (document({**MERGE, "comment": "hi"}), "comment"),
    "unknown-param": (document(params(density="0.5")), "density"),
    "unknown-top": (document(MERGE, notes=[]), "notes"),
    "unknown-profile": (document({**MERGE, "arithmetic": {"profile": "fast"}}), "fast"),
    "another-version": (document(MERGE) | {"version": "0.2"}, "0.2"),
    "float-ratio": (document(params(weights=[0.6, 0.4])), "weights"),
    "ratio-exponent": (document(params(weights=["6e-1", "0.4"])), "weights"),
    "ratio-nan": (document(params(weights=["nan", "0.4"])), "weights"),
    "ratio-inf": (document(params(weights=["inf", "0.4"])), "weights"),
    "ratio-fraction": (document(params(weights=["1/3", "2/3"])), "weights"),
    "ratio-plus": (document(params(weights=["+0.6", "0.4"])), "weights"),
    "ratio-zero-padded": (document(params(weights=["00.6", "0.4"])), "weights"),
    "ratio-long": (document(params(weights=["0." + "1" * 61, "0.4"])), "weights"),
    "ratio-hex-overflow": (document(params(weights=["0x1.0p+1024", "0.4"])), "weights"),
    "ratio-newline": (document(params(weights=["0.6\n", "0.4"])), "weights"),
    "ratio-other-digits": (document(params(weights=["٠.٦", "0.4"])), "weights"),
    "three-weights": (document(params(weights=["1", "1", "1"])), "wrong number of weights"),
    "zero-sum": (document(params(weights=["1", "-1"])), "sum to zero"),
    "zero-sum-override": (
        document(params(overrides=[{"tensors": ["x*"], "weights": ["1", "-1"]}])),
        "sum to zero",
    ),
    "base-elsewhere": (document(params(base="c", weights=["1"])), "base must be one"),
    "scale-without-base": (document(params(scale="2")), "scale without a base"),
    "cycle": (
        document(
            {**MERGE, "inputs": ["a", "two"]}, {**MERGE, "id": "two", "inputs": ["merge", "b"]}
        ),
        "cycle",
    ),
    "self": (document({**MERGE, "inputs": ["a", "merge"]}, parents=("a",)), "cycle"),
    "later": (
        document(
            {**MERGE, "inputs": ["a", "two"]},
            {**MERGE, "id": "two", "inputs": ["a", "b"]},
        ),
        "later step",
    ),
    "unknown-input": (document({**MERGE, "inputs": ["a", "c"]}), "unknown input"),
    "double-id": (document(MERGE, parents=("a", "b", "a")), "stands twice"),
    "step-named-as-parent": (document({**MERGE, "id": "a"}), "stands twice"),
    "unused-parent": (document(MERGE, parents=("a", "b", "c")), "nothing uses it"),
    "unused-step": (document(MERGE, {**MERGE, "id": "two"}), "nothing uses it"),
    "id-path": (document(MERGE, parents=("a", "../b")), "pattern|match"),
    "id-newline": (document(MERGE, parents=("a", "b\n")), "match"),
    "id-upper": (document({**MERGE, "id": "Merge"}), "match"),
    "no-inputs": (document({**MERGE, "inputs": []}, parents=()), "length"),
    "slerp-of-three": (
        document(
            {**MERGE, "op": "slerp/v1", "inputs": ["a", "b", "c"], "params": {"t": "0.5"}},
            parents=("a", "b", "c"),
        ),
        "wrong number of inputs",
    ),
    "cast-without-store": (
        document(
            {"id": "c", "op": "cast/v1", "inputs": ["a"], "arithmetic": {"profile": "parentage-1"}},
            parents=("a",),
        ),
        "cast without a store",
    ),
    "slice-from-elsewhere": (
        document(
            {
                "id": "s",
                "op": "layer_select/v1",
                "inputs": ["a"],
                "params": {"prefix": "layers.", "slices": [{"input": "b", "start": 0, "end": 1}]},
            },
            parents=("a",),
        ),
        "slice reads",
    ),
    "training-without-program": (
        document(
            {
                "id": "t",
                "op": "training/v1",
                "inputs": ["a"],
                "training": {k: v for k, v in TRAINING.items() if k != "program"},
            },
            parents=("a",),
        ),
        "program",
    ),
    "training-negative-steps": (
        document(
            {"id": "t", "op": "training/v1", "inputs": ["a"], "training": {**TRAINING, "steps": 0}},
            parents=("a",),
        ),
        "steps",
    ),
    "too-many-steps": (document(*[{**MERGE, "id": f"s{n}"} for n in range(257)]), "length"),
    "not-an-object": ([], "object"),
    "null": (None, "object"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_recipes_are_refused_by_name(case: str) -> None:
    found, message = BROKEN[case]

    with pytest.raises(RecipeError, match=message) as caught:
        recipe.parse(found, where="recipe.yaml")

    assert "recipe.yaml" in caught.value.where
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_recipe_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"recipe{suffix}"
    path.write_text(
        json.dumps(
            document(
                MERGE, {"id": "t", "op": "training/v1", "inputs": ["merge"], "training": TRAINING}
            )
        )
    )

    found = recipe.load(path)

    assert [step.id for step in found.steps] == ["merge", "t"]


def test_yaml_numbers_keep_their_digits(tmp_path: Path) -> None:
    """0.1 in YAML is the text 0.1, not the float 0.1000000000000000055."""
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(document(MERGE)).replace('"0.6"', "0.1").replace('"0.4"', "0.30"))

    (step,) = recipe.load(path).steps

    assert isinstance(step, merge_steps.WeightedSum)
    assert step.params.weights == ("0.1", "0.30")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: '0.1'\nversion: '0.1'\n", "stands twice"),
        ("steps: [&a {id: x}, *a]", "alias"),
        ("a: &a [x]\nb: [*a, *a]", "alias"),
        ("version: !!python/object/apply:os.system ['true']", "constructor"),
        ("version: !!python/name:os.system", "constructor"),
        ("{1: 2}", "key"),
        ("<<: {version: '0.1'}\nversion: '0.1'", "not a recipe|key|not valid"),
        ("version: [", "not valid YAML"),
        ("--- a\n--- b\n", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("", "not a recipe"),
    ],
)
def test_yaml_is_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)

    with pytest.raises(RecipeError, match=message) as caught:
        recipe.load(path)
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("r.json", b'{"version": "0.1", "version": "0.1"}', "duplicate key"),
        ("r.json", b'{"version": 0.1}', "exact value"),
        ("r.json", b"\xff", "UTF-8"),
        ("r.yaml", b"\xff", "not valid YAML"),
        ("r.yaml", b"#" * (1 << 20) + b"\n\n", "YAML too large"),
        ("r.yaml", b"#" * (9 << 20), "recipe too large"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecipeError, match=message):
        recipe.load(tmp_path / name)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't read"):
        recipe.load(tmp_path / "none.yaml")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-9, max_value=9))
def test_decimal_ratios_are_exact(value: Any) -> None:
    assert wire.ratio(format(value, "f")) == Fraction(value)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-300))
def test_hex_ratios_are_exact(value: float) -> None:
    assert wire.ratio(value.hex()) == Fraction(value)
    assert wire.ratio((-value).hex()) == -Fraction(value)


@pytest.mark.parametrize(
    ("name", "glob", "expected"),
    [
        ("a.b", "*", True),
        ("layers.0.w", "layers.*", True),
        ("layers[0]", "layers[0]", True),
        ("layers0", "layers[0]", False),
        ("a", "?", False),
        ("A", "a", False),
    ],
)
def test_only_the_star_is_special_in_a_glob(name: str, glob: str, expected: bool) -> None:
    assert wire.matches(name, (glob,)) is expected


_LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["a", "b", "0.6", "merge", "weighted_sum/v1", "parentage-1", "*", "0x1.8p+0"])
)
_KEYS = st.sampled_from(
    "version parents steps id op inputs params weights normalize arithmetic profile store base".split()
)
_ANY = st.recursive(
    _LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=15,
)


def assert_a_recipe_or_a_named_error(value: Any) -> None:
    """Whatever is taken is a recipe, and taken again from what it is written as."""
    found = value_or_named_error(lambda: recipe.parse(value, where="test"), RecipeError)
    if found is not None:
        assert isinstance(found, recipe.Recipe)
        assert recipe.parse(msgspec.to_builtins(found), where="test") == found


@given(_ANY)
def test_any_document_is_a_recipe_or_a_named_error(value: Any) -> None:
    assert_a_recipe_or_a_named_error(value)


@given(steps=st.lists(_ANY, max_size=2), parents=st.lists(_ANY, max_size=2))
def test_any_steps_are_a_recipe_or_a_named_error(steps: Any, parents: Any) -> None:
    assert_a_recipe_or_a_named_error({"version": "0.1", "parents": parents, "steps": steps})


def test_a_recipe_survives_its_canonical_form() -> None:
    first = recipe.parse(document(MERGE), where="test")
    data = canonical.dumps(msgspec.to_builtins(first))

    assert recipe.parse(canonical.loads(data, where="test"), where="test") == first
