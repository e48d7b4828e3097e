"""The importer of `mergekit_config.yml`: what it resolves, what it warns of, what it refuses.

What the imported recipe computes is compared with real mergekit in tests/verify/test_mergekit_oracle.py.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from worlds import raw_safetensors

from parentage.manifest import recipe as recipes
from parentage.manifest import steps, wire
from parentage.manifest.errors import ParentageError, ParentMissingError, RecipeError
from parentage.manifest.mergekit import load_config, model_ids

NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.{n}.{part}.weight" for n in range(4) for part in ("mlp", "self_attn")),
    "lm_head.weight",
]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    header = {
        name: {"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1]}
        for at, name in enumerate(NAMES)
    }
    found = {}
    for name in ("a", "b", "base"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(
            raw_safetensors(header, bytes(len(NAMES)))
        )
        found[name] = tmp_path / name
    return found


def load(models: dict[str, Path], text: str, profile: str = "mk-0.1.5") -> recipes.Recipe:
    path = models["a"].parent / "mergekit_config.yml"
    path.write_text(text)
    return load_config(path, profile=profile, parents=models)


LINEAR = """
merge_method: linear
models:
  - {model: org/a@1234, parameters: {weight: 0.6}}
  - {model: org/b, parameters: {weight: 4e-1}}
dtype: bfloat16
"""


def test_linear(models: dict[str, Path]) -> None:
    found = load(models, LINEAR)
    (step,) = found.steps

    assert isinstance(step, steps.WeightedSum)
    assert step.params.weights == ("0.6", "0.4")
    assert step.params.normalize is True
    assert step.arithmetic == wire.Arithmetic(profile="mk-0.1.5", compute="BF16")
    assert [parent.uri for parent in found.parents] == [
        "pkg:huggingface/org/a@1234",
        "pkg:huggingface/org/b",
    ]


def test_the_yaml_is_kept_word_for_word(models: dict[str, Path]) -> None:
    source = load(models, LINEAR).source

    assert source is not None
    assert source.text == LINEAR
    assert source.sha256 == hashlib.sha256(LINEAR.encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ("", "org/b: no revision in the YAML"),
        ("", "does not say which version"),
        ("densitty: 1\n", "unknown key, dropped by mergekit: densitty"),
        ("parameters: {density: 0.5}\n", "parameter without effect on linear: parameters.density"),
        ("chat_template: auto\n", "chat_template changes the tokenizer's files"),
    ],
)
def test_warnings(models: dict[str, Path], change: str, warning: str) -> None:
    source = load(models, LINEAR + change).source

    assert source is not None
    assert any(warning in text for text in source.warnings), source.warnings


def test_no_dtype_is_a_warning(models: dict[str, Path]) -> None:
    source = load(models, LINEAR.replace("dtype: bfloat16\n", "")).source

    assert source is not None
    assert any("no dtype" in text for text in source.warnings)


def test_gradients_and_filters_become_exact_numbers_per_tensor(models: dict[str, Path]) -> None:
    found = load(
        models,
        """
merge_method: slerp
base_model: a
models: [{model: a}, {model: b}]
parameters:
  t:
    - {filter: self_attn, value: [0, 1]}
    - {filter: mlp, value: 0.25}
    - {value: 0.5}
dtype: float32
""",
    )
    (step,) = found.steps
    assert isinstance(step, steps.Slerp)
    resolved = dict.fromkeys(NAMES, step.params.t)
    for override in reversed(step.params.overrides):
        resolved |= dict.fromkeys(override.tensors, override.t)
    # numpy is the oracle of the gradient: linspace over the four layers, in float64.
    import numpy as np

    assert [
        float(wire.ratio(resolved[f"model.layers.{n}.self_attn.weight"])) for n in range(4)
    ] == (list(np.interp(np.arange(4) / 3, [0, 1], [0.0, 1.0])))
    assert {resolved[f"model.layers.{n}.mlp.weight"] for n in range(4)} == {"0.25"}
    assert resolved["lm_head.weight"] == "0.5"


def test_task_arithmetic(models: dict[str, Path]) -> None:
    (step,) = load(
        models,
        """
merge_method: task_arithmetic
base_model: base
models: [{model: a, parameters: {weight: 0.3}}, {model: b, parameters: {weight: -0.1}}]
parameters: {lambda: 0.9}
""",
    ).steps

    assert isinstance(step, steps.WeightedSum)
    assert (step.inputs, step.params.base, step.params.scale) == (("a", "b", "base"), "base", "0.9")
    assert (step.params.weights, step.params.normalize) == (("0.3", "-0.1"), False)


def test_passthrough(models: dict[str, Path]) -> None:
    (step,) = load(
        models,
        """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources: [{model: b, layer_range: [1, 4]}]
dtype: bfloat16
""",
    ).steps

    assert isinstance(step, steps.LayerSelect)
    assert [(s.input, s.start, s.end) for s in step.params.slices] == [("a", 0, 3), ("b", 1, 4)]
    assert step.params.prefix == "model.layers."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty|not a mergekit"),
        ("[]", "not a mergekit config"),
        ("merge_method: tied\nmodels: []", "no merge method of mergekit"),
        ("merge_method: linear", "exactly one of models, slices, modules"),
        (LINEAR + "slices: [{}]\n", "exactly one of models, slices, modules"),
        ("merge_method: linear\nmodels: []", "exactly one of models, slices, modules"),
        ("merge_method: linear\nmodels: {a: 1}", "not a list"),
        (LINEAR + "tokenizer_source: union\n", "model without a tokenizer.json"),
        ("merge_method: linear\nmodels: [5]", "not a mapping"),
        ("merge_method: linear\nmodels: [{parameters: {weight: 1}}]", "without a model"),
        ("merge_method: linear\nmodels: [{model: a}, {model: b}]", "parameter missing"),
        (LINEAR.replace("0.6", "heavy"), "not a number"),
        (LINEAR.replace("0.6", "true"), "not a number"),
        (LINEAR.replace("0.6", ".nan"), "not a number"),
        (LINEAR.replace("0.6", "1e400"), "not a number"),
        (LINEAR.replace("bfloat16", "int8"), "unknown dtype"),
        (LINEAR + "merge_method: linear\n", "stands twice"),
        (
            LINEAR.replace("{weight: 0.6}", "&w {weight: 0.6}").replace("{weight: 4e-1}", "*w"),
            "alias",
        ),
        (
            "merge_method: slerp\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.5}",
            "needs a base",
        ),
        (
            "merge_method: slerp\nbase_model: a\nmodels: [{model: a}]\nparameters: {t: 0.5}",
            "one other",
        ),
        (
            "merge_method: task_arithmetic\nmodels: [{model: a, parameters: {weight: 1}}]",
            "needs a base",
        ),
        (
            "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0]}]}]",
            "layer_range",
        ),
        (LINEAR + "parameters: {normalize: maybe}\n", "not one true or false"),
    ],
)
def test_what_can_not_be_imported_is_refused_by_name(
    models: dict[str, Path], text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load(models, text)


def test_a_model_that_was_not_given(models: dict[str, Path]) -> None:
    with pytest.raises(ParentMissingError, match="org/other") as caught:
        load(models, LINEAR.replace("org/b", "org/other"))
    assert "--parent other=" in caught.value.hint


def test_ids_are_valid_and_unique() -> None:
    found = model_ids(["org/Model-7B@abc", "other/model-7b", "./päth/", "/", "a" * 100])

    assert len(set(found.values())) == 5
    assert found["org/Model-7B@abc"] == "model-7b"
    assert found["other/model-7b"] == "model-7b-2"


def test_a_yaml_of_ten_megabytes(models: dict[str, Path]) -> None:
    with pytest.raises(ParentageError, match="too large"):
        load(models, LINEAR + "#" * (10 << 20))
