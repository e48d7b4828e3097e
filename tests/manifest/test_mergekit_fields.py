"""Every field of mergekit's config, in both versions: imported, warned of, or refused by name."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from named import value_or_named_error
from worlds import raw_safetensors

from parentage.manifest.errors import ParentageError, ParentMissingError, RecipeError
from parentage.manifest.mergekit import load_config
from parentage.manifest.recipe import Recipe

NAMES = ["model.embed_tokens.weight", "model.layers.0.mlp.weight", "model.layers.1.mlp.weight"]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name in ("a", "b", "base"):
        header = {
            key: {"dtype": "U8", "shape": [2, 2], "data_offsets": [4 * at, 4 * at + 4]}
            for at, key in enumerate(NAMES)
        }
        found[name] = tmp_path / name
        found[name].mkdir()
        (found[name] / "model.safetensors").write_bytes(raw_safetensors(header, bytes(12)))
        (found[name] / "config.json").write_text('{"vocab_size": 2}')
        tokenizer = {"model": {"vocab": {"x": 0, "y": 1}}, "added_tokens": []}
        (found[name] / "tokenizer.json").write_text(json.dumps(tokenizer))
    return found


def load(models: dict[str, Path], document: Any, release: Path | None = None) -> Recipe:
    path = models["a"].parent / "mergekit_config.yml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return load_config(path, profile="mk-0.1.5", parents=models, release=release)


def linear(**other: Any) -> dict[str, Any]:
    models = [
        {"model": "a", "parameters": {"weight": 0.5}},
        {"model": "b", "parameters": {"weight": 1}},
    ]
    return {"merge_method": "linear", "dtype": "bfloat16", "models": models} | other


def warnings(recipe: Recipe) -> str:
    assert recipe.source is not None
    return "\n".join(recipe.source.warnings)


@pytest.mark.parametrize(
    "model",
    [
        "a@rev",
        {"model": "a@rev"},
        {"model": {"path": "a", "revision": "rev"}},
        {"model": {"path": "a", "revision": "rev"}, "lora": None},
        {"model": {"path": "a", "revision": "rev"}, "override_architecture": "LlamaForCausalLM"},
    ],
)
def test_a_model_in_any_form(models: dict[str, Path], model: Any) -> None:
    found = load(models, linear(models=[{"model": model, "parameters": {"weight": 1}}]))

    assert [hint.id for hint in found.parents] == ["a"]
    assert "a@rev: no revision" not in warnings(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": [{"model": "a+b+c", "parameters": {"weight": 1}}]}, "not a model"),
        ({"models": [{"model": "a@x@y", "parameters": {"weight": 1}}]}, "not a model"),
        ({"models": [{"model": {"model": {"revision": "x"}}}]}, "without a path"),
        ({"models": [{"model": {"model": {"path": "a", "sha": "x"}}}]}, "unknown key in a model"),
        ({"models": [{"model": {"model": "a", "adapter": "b"}}]}, "unknown key in a model"),
        ({"models": [{"model": ["a"]}]}, "not a mapping"),
        ({"models": [{"model": "a"}, {"model": "a"}]}, "same model twice"),
        ({"base_model": "base"}, "parameter missing"),
        ({"modules": {"x": {}}}, "exactly one of"),
        ({"models": None, "modules": {"x": {}, "y": {}}}, "several modules"),
        ({"models": None, "modules": {"x": {"parameters": {}}}}, "either models or slices"),
        ({"models": None, "modules": [1]}, "not a mapping"),
        (
            {"models": None, "slices": [{"sources": [{"model": "a", "layer_range": [2, 1]}]}]},
            "backwards",
        ),
        (
            {"models": None, "slices": [{"sources": [{"model": "a", "layer_range": [-1, 1]}]}]},
            "layer_range",
        ),
        (
            {"models": None, "slices": [{"sources": [{"model": "a", "layer_range": [0, 10**9]}]}]},
            "layer_range",
        ),
        ({"tokenizer": {"source": "base"}, "tokenizer_source": "base"}, "both"),
        ({"tokenizer": {"sauce": 1}}, "unknown key in tokenizer"),
        ({"tokenizer": {}}, "union tokenizer"),
        ({"tokenizer_source": "union"}, "union tokenizer"),
        ({"tokenizer_source": "base"}, "no base_model"),
        ({"tokenizer_source": "elsewhere"}, "not merged"),
        ({"tokenizer": {"source": "a", "pad_to_multiple_of": 64}}, "padding rows"),
        ({"tokenizer": {"source": "a", "tokens": {"x": {"source": "c"}}}}, "not merged"),
        (
            {
                "tokenizer": {
                    "source": "a",
                    "tokens": {
                        "x": {"source": {"kind": "model_token", "model": "a", "token": "?"}}
                    },
                }
            },
            "no such token",
        ),
        (
            {"tokenizer": {"source": "a", "tokens": {"x": {"source": "a", "force": 3}}}},
            "not a token's source",
        ),
        ({"tokenizer": {"source": "a", "tokens": {"new": {"source": "a"}}}}, "does not have"),
        ({"parameters": {"normalize": [True, False]}}, "not one true or false"),
    ],
)
def test_what_mergekit_would_not_take_or_we_can_not_is_refused_by_name(
    models: dict[str, Path], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load(models, linear(**change))


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"modulse": {}}, "unknown key, dropped by mergekit: modulse"),
        ({"chat_template": "auto"}, "chat_template changes"),
        ({"models": [{"model": "a", "wieght": 1, "parameters": {"weight": 1}}]}, "model: wieght"),
        ({"tokenizer": {"source": "a"}}, ""),
        ({"slices": []}, ""),
        ({"parameters": {"normalize": 0.0}}, ""),
        ({"dtype": "torch.float16"}, ""),
    ],
)
def test_what_mergekit_takes_is_taken(
    models: dict[str, Path], change: dict[str, Any], warning: str
) -> None:
    assert warning in warnings(load(models, linear(**change)))


def test_a_base_that_is_not_listed_is_merged_too_as_mergekit_does(models: dict[str, Path]) -> None:
    found = load(models, linear(base_model="base", parameters={"weight": 0.25}))
    (step,) = found.steps

    assert step.inputs == ("a", "b", "base")
    assert step.params.weights == ("0.5", "1", "0.25")


def test_parameters_of_a_module_stand_between_slice_and_document(models: dict[str, Path]) -> None:
    module = {"models": [{"model": "a"}, {"model": "b", "parameters": {"weight": 2}}]}
    document = linear(models=None, parameters={"weight": 9})
    document["modules"] = {"default": module | {"parameters": {"weight": 3}}}

    assert load(models, document).steps[-1].params.weights == ("3", "2")


def test_equal_tokenizers_move_nothing_and_are_named_by_digest(models: dict[str, Path]) -> None:
    found = load(models, linear(tokenizer_source="a"))

    assert [step.id for step in found.steps] == ["merge"]
    assert found.source is not None
    assert [m.name for m in found.source.materials] == ["a/tokenizer.json", "b/tokenizer.json"]


@pytest.mark.parametrize(
    ("version", "warned"), [("0.1.4", True), ("0.1.5", False), (None, False), (7, False)]
)
def test_the_version_in_the_shard_index_is_held_against_the_profile(
    models: dict[str, Path], version: Any, warned: bool
) -> None:
    shard = models["a"] / "model.safetensors"
    made = models["a"].parent / "made"
    made.mkdir()
    (made / "model-00001-of-00001.safetensors").write_bytes(shard.read_bytes())
    index = {
        "metadata": {"mergekit_version": version, "total_size": 12},
        "weight_map": dict.fromkeys(NAMES, "model-00001-of-00001.safetensors"),
    }
    (made / "model.safetensors.index.json").write_text(json.dumps(index))

    assert ("names mergekit 0.1.4" in warnings(load(models, linear(), made))) is warned


@pytest.mark.parametrize(
    "tokenizer",
    [
        "{}",
        '{"model": {"vocab": {"x": -1}}}',
        '{"model": {"vocab": {"x": 99999999999}}}',
        '{"model": {"vocab": [["x", 0.5], 3]}}',
        '{"model": {"vocab": {"x": 0, "x": 1}}}',
        '{"model": {"vocab": {"x": 0, "y": 0}}}',
        '{"model": {"vocab": {}}, "added_tokens": [7]}',
        "[" * 100_000,
    ],
)
def test_a_hostile_tokenizer_is_a_named_error(models: dict[str, Path], tokenizer: str) -> None:
    (models["a"] / "tokenizer.json").write_text(tokenizer)

    with pytest.raises(ParentageError):
        load(models, linear(tokenizer_source="a"))


def test_a_missing_adapter_names_the_option(models: dict[str, Path]) -> None:
    with pytest.raises(ParentMissingError, match="--parent some-lora="):
        load(models, linear(models=[{"model": "a+org/some-lora", "parameters": {"weight": 1}}]))


def test_a_config_of_many_filters_and_long_gradients_takes_little_time(
    models: dict[str, Path],
) -> None:
    gradient = "[" + ", ".join(["0.5"] * 4000) + "]"
    text = f"merge_method: linear\nmodels:\n  - model: a\n    parameters:\n      weight: {gradient}\n  - model: b\n    parameters:\n      weight:\n"
    text += "        - {filter: never, value: 1}\n" * 4000 + "        - {value: 1}\n"
    start = time.monotonic()
    load(models, text)

    assert time.monotonic() - start < 20


def test_more_entries_than_anyone_writes_are_refused(models: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="too many entries"):
        load(models, linear(parameters={"weight": [0.5] * 5000}, models=[{"model": "a"}]))


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(allow_nan=False, width=16)
    | st.sampled_from(["a", "b", "base", "union", "a+b", "x@y", "*", "mlp", "0.5", "float16"])
)
keys = st.sampled_from(
    [
        "model",
        "models",
        "slices",
        "sources",
        "modules",
        "default",
        "parameters",
        "weight",
        "value",
        "filter",
        "layer_range",
        "base_model",
        "path",
        "lora",
        "revision",
        "tokens",
        "source",
        "kind",
        "force",
        "normalize",
    ]
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@settings(
    max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["linear", "slerp", "ties", "passthrough", "dare_ties", "nuslerp"]),
    st.dictionaries(
        st.sampled_from(
            [
                "models",
                "slices",
                "modules",
                "base_model",
                "dtype",
                "out_dtype",
                "parameters",
                "tokenizer",
                "tokenizer_source",
                "chat_template",
            ]
        ),
        trees,
    ),
)
def test_any_document_is_imported_or_refused_by_name(
    models: dict[str, Path], method: str, change: dict[str, Any]
) -> None:
    found = value_or_named_error(lambda: load(models, linear(merge_method=method) | change))

    assert found is None or (isinstance(found, Recipe) and found.steps)
