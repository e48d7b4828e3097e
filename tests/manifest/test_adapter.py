"""PEFT adapter folders: what the importer reads, and what it refuses by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from named import value_or_named_error
from worlds import raw_safetensors

from parentage.manifest import adapter_steps
from parentage.manifest.adapter import Adapter, load_adapter, read_adapter
from parentage.manifest.errors import ParentageError, ParentMissingError, RecipeError

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none"}


def folder(
    where: Path, config: dict[str, Any] | str, ranks: dict[str, int], suffix: str = "lora_A.weight"
) -> Path:
    where.mkdir(exist_ok=True)
    header: dict[str, Any] = {}
    at = 0
    for module, rank in ranks.items():
        for name, shape in ((suffix, [rank, 3]), ("lora_B.weight", [3, rank])):
            size = shape[0] * shape[1]
            header[f"base_model.model.{module}.{name}"] = {
                "dtype": "U8",
                "shape": shape,
                "data_offsets": [at, at + size],
            }
            at += size
    (where / "adapter_model.safetensors").write_bytes(raw_safetensors(header, bytes(at)))
    text = config if isinstance(config, str) else json.dumps(config)
    (where / "adapter_config.json").write_text(text)
    return where


def test_patterns_are_resolved_to_tensors_as_peft_matches_them(tmp_path: Path) -> None:
    config = CONFIG | {"alpha_pattern": {"0.q": 8, "k": 1.5}, "rank_pattern": {"k": 1}}
    found = read_adapter(folder(tmp_path / "x", config, {"l.0.q": 2, "l.10.q": 2, "l.0.k": 1}))

    assert found.op == "lora_merge/v1"
    assert found.params["alpha"] == "6"
    # peft anchors a pattern at a dot: "0.q" is not the end of "10.q".
    assert found.params["overrides"] == [
        {"tensors": ["l.0.q.weight"], "alpha": "8"},
        {"tensors": ["l.0.k.weight"], "alpha": (1.5).hex()},
    ]


def test_the_recipe_is_one_step_and_keeps_the_config_word_for_word(tmp_path: Path) -> None:
    where = folder(tmp_path / "x", CONFIG | {"use_rslora": True}, {"q": 2})
    recipe = load_adapter(where, parents={"base": tmp_path})
    (step,) = recipe.steps

    assert isinstance(step, adapter_steps.LoraMerge)
    assert step.inputs == ("base", "adapter")
    assert step.params.rs_lora
    assert step.arithmetic.profile == "peft"
    assert recipe.source is not None
    assert json.loads(recipe.source.text) == CONFIG | {"use_rslora": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "no LoRA adapter"),
        ({"r": 0}, "positive integer"),
        ({"r": True}, "positive integer"),
        ({"r": 3}, "another rank"),
        ({"lora_alpha": None}, "alpha is not a number"),
        ({"lora_alpha": "16"}, "alpha is not a number"),
        ({"lora_alpha": True}, "alpha is not a number"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "not imported: lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "not imported: modules_to_save"),
        ({"layer_replication": [[0, 2]]}, "not imported: layer_replication"),
        ({"use_qalora": True}, "not imported: use_qalora"),
        ({"from_next_year": 1}, "not imported: from_next_year"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the base model"),
        ({"init_lora_weights": "olora"}, "changed the base model"),
        ({"use_rslora": "yes"}, "not true or false"),
        ({"alpha_pattern": ["q"]}, "not an object"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "more than a name"),
        ({"rank_pattern": {"": 3}}, "more than a name"),
    ],
)
def test_what_can_not_be_imported_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        read_adapter(folder(tmp_path / "x", CONFIG | change, {"q": 2}))


def test_other_tensors_in_an_adapter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no LoRA pair"):
        read_adapter(folder(tmp_path / "x", CONFIG, {"q": 2}, suffix="lora_embedding_A"))


def test_an_adapter_without_a_base_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(ParentMissingError, match="--parent base="):
        load_adapter(folder(tmp_path / "x", CONFIG, {"q": 2}), parents={})


@pytest.mark.parametrize(
    "text", ["", "[]", '{"r": 1, "r": 2}', "[" * 5000, '{"r": NaN}', "x" * (2 << 20)]
)
def test_a_config_that_is_not_strict_json_is_a_named_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ParentageError):
        read_adapter(folder(tmp_path / "x", text, {"q": 2}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from([*CONFIG, "use_dora", "use_rslora", "alpha_pattern", "rank_pattern", "x"]),
        json_values,
    )
)
def test_any_config_is_imported_or_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    found = value_or_named_error(
        lambda: read_adapter(folder(tmp_path / "x", CONFIG | change, {"q": 2}))
    )

    assert found is None or isinstance(found, Adapter)
