"""The reader of sd-mecha's text: what it takes, and what it refuses by name, in bounded time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from named import value_or_named_error
from worlds import raw_safetensors

from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.mecha import load_mecha
from parentage.manifest.mecha_text import Call, Ref, parse_text

HEAD = "version 0.1.0\n"
MODELS = 'model "x/a.safetensors" model_config="sd1" merge_space="weight"\nmodel "b.safetensors"\n'


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name in ("a", "b", "made"):
        header = {"m.weight": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}
        found[name] = tmp_path / name
        found[name].mkdir()
        (found[name] / "model.safetensors").write_bytes(raw_safetensors(header, bytes(4)))
    return found


def load(files: dict[str, Path], text: str) -> object:
    path = files["made"].parent / "recipe.mecha"
    path.write_text(text)
    parents = {name: files[name] for name in "ab"}
    return load_mecha(path, release=files["made"], parents=parents)


def test_an_instruction_is_a_command_with_values() -> None:
    text = (
        HEAD
        + 'dict key=0.25 n=3 s="a b"\nliteral &0 model_config=null\nmerge "weighted_sum" &0 &1 alpha=true'
    )

    assert parse_text(text) == [
        Call("dict", [], {"key": 0.25, "n": 3, "s": "a b"}),
        Call("literal", [Ref(0)], {"model_config": None}),
        Call("merge", ["weighted_sum", Ref(0), Ref(1)], {"alpha": True}),
    ]


def test_escapes_are_undone() -> None:
    (call,) = parse_text(HEAD + r'model "C:\\a \"b\".safetensors"')

    assert call.args == [r'C:\a "b".safetensors']


def test_models_are_named_by_their_files_and_the_last_step_has_the_release_dtype(
    files: dict[str, Path],
) -> None:
    recipe = load(files, HEAD + MODELS + 'merge "weighted_sum" &0 &1 alpha=0.25')

    assert [hint.id for hint in recipe.parents] == ["a", "b"]
    (step,) = recipe.steps
    assert step.params.alpha == (0.25).hex()
    assert step.arithmetic.store == "F16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("version 0.2.0\n" + MODELS, "of this version"),
        (HEAD, "makes no checkpoint"),
        (HEAD + MODELS, "makes no checkpoint"),
        (HEAD + 'run "rm"', "unknown instruction"),
        (HEAD + "dict key=&0", "no earlier line"),
        (HEAD + "dict key=&-1", "no earlier line"),
        (HEAD + "dict key=1 key=2", "argument twice"),
        (HEAD + 'model "a', "unfinished"),
        (HEAD + "dict key=" + "9" * 5000, "not a value"),
        (HEAD + MODELS + 'merge "rebasin" &0 &1', "not imported"),
        (HEAD + MODELS + 'merge "weighted_sum" &0 &1 alpha=1e300', "not a number"),
        (HEAD + MODELS + 'merge "weighted_sum" &0 &1 alpha=nan', "not a value|not a number"),
        (HEAD + MODELS + 'merge "weighted_sum" &0 0.5', "no checkpoint"),
        (HEAD + MODELS + 'merge "weighted_sum" &0 &1 beta=1', "unknown argument"),
        (HEAD + MODELS + 'merge "weighted_sum" &0 &1 0.5 0.5', "too many"),
        (
            HEAD + MODELS + 'dict IN00=0.1 M00=0.2\nliteral &2\nmerge "convert_singleton" &3',
            "block",
        ),
        (HEAD + 'model "a.safetensors" merge_space="delta"', "difference"),
        (HEAD + "\n" * 5000, "too long"),
        (HEAD + "#" * (2 << 20), "too large"),
    ],
)
def test_what_can_not_be_imported_is_refused_by_name(
    files: dict[str, Path], text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load(files, text)


def test_a_graph_that_doubles_itself_stays_within_bounds(files: dict[str, Path]) -> None:
    lines = [f'merge "weighted_sum" &{n} &{n} alpha=0.5' for n in range(1, 3000)]

    with pytest.raises(RecipeError, match="too many steps"):
        load(files, HEAD + MODELS + "\n".join(lines))


def test_a_model_that_was_not_given(files: dict[str, Path]) -> None:
    with pytest.raises(ParentMissingError, match="--parent other="):
        load(files, HEAD + MODELS + 'model "other.safetensors"\nmerge "subtract" &0 &2')


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "dict",
                "literal",
                "model",
                "merge",
                "&0",
                "&1",
                '"a"',
                "=",
                "k=",
                "1",
                "0.5",
                '"',
                "\\",
                " ",
                "\n",
                "#",
            ]
        ),
        max_size=25,
    )
)
def test_any_text_is_parsed_or_refused_by_name(tokens: list[str]) -> None:
    found = value_or_named_error(lambda: parse_text(HEAD + " ".join(tokens)))

    assert found is None or all(isinstance(call, Call) for call in found)
