"""Index maps against numpy: every rule, every range, there and back; and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from parentage.manifest import recipe
from parentage.manifest.errors import RecipeError
from parentage.manifest.model import open_model
from parentage.verify import moves
from parentage.verify.engine import Engine, StepSource, bind, identities
from parentage.verify.values import FileSource, Scratch, Source

CPU = torch.device("cpu")


def bound(source: Source, *rules: list[dict[str, Any]]) -> StepSource:
    """Bind one layout step after another, each with its rules."""
    ids = ["a", *(f"s{n}" for n in range(len(rules)))]
    steps = [
        {"id": new, "op": "layout/v1", "inputs": [old], "params": {"rules": part}}
        for (old, new), part in zip(pairwise(ids), rules, strict=True)
    ]
    document = {"version": "0.1", "parents": [{"id": "a"}], "steps": steps}
    return bind(recipe.parse(document, where="t").steps, {"a": source})[ids[-1]]


def whole(step: StepSource, name: str, *, cuts: int = 1) -> np.ndarray:
    """Read a tensor in so many ranges."""
    spec = step.specs[name]
    edges = np.linspace(0, spec.elements, cuts + 1).astype(int)
    scratch, parts = Scratch(CPU), []
    for start, stop in pairwise(edges.tolist()):
        scratch.reset()
        parts.append(step.read(name, start, stop, scratch).clone())
    return torch.cat(parts).numpy().reshape(spec.shape)


def numbers(*shape: int, start: int = 0) -> torch.Tensor:
    """Every element is another number, so that a misplaced one is seen."""
    return torch.arange(start, start + int(np.prod(shape)), dtype=torch.float32).reshape(shape)


@pytest.fixture
def odd_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which small tensors take every path of large ones."""
    monkeypatch.setattr(moves, "BLOCK", 96)
    monkeypatch.setattr(moves, "_PIECE", 10)
    monkeypatch.setattr(moves, "_GAP", 12)
    monkeypatch.setattr(moves, "_SHORT", 4)


@pytest.mark.parametrize("cuts", [1, 7])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_concatenate_and_chunk_are_those_of_numpy(
    source: Any, odd_sizes: None, dim: int, cuts: int
) -> None:
    sizes = [2, 5, 1]
    shapes = [tuple(size if axis == dim else 3 for axis in range(3)) for size in sizes]
    parts = {
        f"m.{n}.{i}": numbers(*s, start=1000 * i + 9 * n)
        for n in range(2)
        for i, s in enumerate(shapes)
    }
    names = [f"m.{{n}}.{i}" for i in range(3)]
    join = {"do": "concatenate", "from": names, "to": "m.{n}.all", "dim": dim}
    cut = {"do": "chunk", "from": "m.{n}.all", "to": names, "dim": dim, "sizes": sizes}

    joined = bound(source(parts), [join])
    back = bound(source(parts), [join], [cut])

    for n in range(2):
        expected = np.concatenate([parts[f"m.{n}.{i}"].numpy() for i in range(3)], axis=dim)
        assert np.array_equal(whole(joined, f"m.{n}.all", cuts=cuts), expected)
    assert back.specs.keys() == parts.keys()
    for name, tensor in parts.items():
        assert np.array_equal(whole(back, name, cuts=cuts), tensor.numpy())


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_stack_and_unstack_are_those_of_numpy(source: Any, odd_sizes: None, dim: int) -> None:
    parts = {
        f"l.{n}.e.{i}.w": numbers(3, 4, start=100 * i + 2000 * n)
        for n in range(2)
        for i in range(11)
    }
    parts |= {"norm": numbers(3)}
    stack = {"do": "stack", "from": "l.{n}.e.{i}.w", "to": "l.{n}.w", "dim": dim}
    undo = {"do": "unstack", "from": "l.{n}.w", "to": "l.{n}.e.{i}.w", "dim": dim}
    origin = source(parts)

    stacked, back = bound(origin, [stack]), bound(origin, [stack], [undo])

    assert stacked.specs.keys() == {"l.0.w", "l.1.w", "norm"}
    for n in range(2):
        expected = np.stack([parts[f"l.{n}.e.{i}.w"].numpy() for i in range(11)], axis=dim)
        assert np.array_equal(whole(stacked, f"l.{n}.w", cuts=5), expected)
    assert stacked.alias("norm") == (origin, "norm")
    assert stacked.alias("l.0.w") == (stacked, "l.0.w")
    for name, tensor in parts.items():
        assert np.array_equal(whole(back, name, cuts=3), tensor.numpy())


@pytest.mark.parametrize("cuts", [1, 6])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((7, 11), (0, 1)),
        ((1, 60), (0, 1)),
        ((60, 1), (1, 0)),
        ((5, 6, 7), (0, 1)),
        ((5, 6, 7), (1, 2)),
        ((5, 6, 7), (0, 2)),
        ((2, 3, 5, 4), (1, 3)),
        ((200, 3), (0, 1)),
        ((3, 200), (0, 1)),
        ((4, 4), (1, 1)),
    ],
)
def test_transpose_is_that_of_numpy_and_twice_nothing(
    source: Any, odd_sizes: None, shape: tuple[int, ...], dims: tuple[int, int], cuts: int
) -> None:
    given_ = numbers(*shape)
    rule = {"do": "transpose", "tensors": ["w"], "dims": list(dims)}
    origin = source({"w": given_})

    once, twice = bound(origin, [rule]), bound(origin, [rule], [rule])

    assert np.array_equal(whole(once, "w", cuts=cuts), given_.numpy().swapaxes(*dims))
    assert np.array_equal(whole(twice, "w", cuts=cuts), given_.numpy())


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    data=st.data(),
    block=st.integers(8, 400),
    piece=st.integers(1, 50),
    gap=st.sampled_from([0, 8, 64, 100_000]),
)
def test_any_transpose_in_any_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    shape: list[int],
    data: st.DataObject,
    block: int,
    piece: int,
    gap: int,
) -> None:
    dims = data.draw(st.tuples(*[st.integers(0, len(shape) - 1)] * 2))
    cuts = data.draw(st.integers(1, 9))
    given_ = numbers(*shape)
    path = tmp_path_factory.mktemp("t") / "w.safetensors"
    save_file({"w": given_}, path)
    with pytest.MonkeyPatch.context() as patch, open_model(path) as model:
        patch.setattr(moves, "BLOCK", block)
        patch.setattr(moves, "_PIECE", piece)
        patch.setattr(moves, "_GAP", gap)
        rule = {"do": "transpose", "tensors": ["*"], "dims": list(dims)}
        got = whole(bound(FileSource(model), [rule]), "w", cuts=cuts)
    assert np.array_equal(got, given_.numpy().swapaxes(*dims))


def meta_to_hf(w: np.ndarray, heads: int) -> np.ndarray:
    """The conversion script of Llama in transformers, in numpy."""
    rows, columns = w.shape
    split = w.reshape(heads, rows // heads // 2, 2, columns)
    return split.swapaxes(1, 2).reshape(rows, columns)


def test_rope_permutation_and_back(source: Any, odd_sizes: None) -> None:
    q, bias = numbers(48, 10), numbers(48)
    origin = source({"q.weight": q, "q.bias": bias})
    rule = {"do": "permute_rope", "tensors": ["q.*"], "heads": 4}

    there = bound(origin, [rule])
    back = bound(origin, [rule], [rule | {"inverse": True}])

    assert np.array_equal(whole(there, "q.weight", cuts=4), meta_to_hf(q.numpy(), 4))
    assert np.array_equal(whole(there, "q.bias"), meta_to_hf(bias.numpy()[:, None], 4)[:, 0])
    assert np.array_equal(whole(back, "q.weight", cuts=3), q.numpy())


@pytest.mark.parametrize("dim", [0, 1])
def test_interleave_takes_even_places_first(source: Any, odd_sizes: None, dim: int) -> None:
    w = numbers(8, 6)
    rule = {"do": "interleave", "tensors": ["w"], "dim": dim}
    even_odd = np.concatenate(
        [w.numpy().take(range(s, w.shape[dim], 2), axis=dim) for s in (0, 1)], axis=dim
    )

    assert np.array_equal(whole(bound(source({"w": w}), [rule]), "w"), even_odd)
    undone = bound(source({"w": w}), [rule], [rule | {"inverse": True}])
    assert np.array_equal(whole(undone, "w"), w.numpy())


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.float8_e4m3fn]
)
def test_all_dtypes_move_bit_for_bit(source: Any, dtype: torch.dtype) -> None:
    w = torch.randint(0, 255, (6, 4, dtype.itemsize), dtype=torch.uint8).view(dtype)[..., 0]
    origin = source({"w": w.contiguous()})

    got = bound(origin, [{"do": "transpose", "tensors": ["w"]}])

    read = got.read("w", 0, 24, Scratch(CPU)).contiguous().view(torch.uint8)
    assert read.tolist() == w.T.contiguous().reshape(-1).view(torch.uint8).tolist()
    assert got.specs["w"].dtype == origin.specs["w"].dtype


def test_mixtral_experts_fuse_and_split(source: Any, odd_sizes: None) -> None:
    """w1 and w3 of all experts to gate_up_proj, as transformers 5 does, and back."""
    experts = {
        f"l.{n}.moe.experts.{e}.{w}.weight": numbers(4, 6, start=n * 1000 + e * 100 + i * 30)
        for n in range(2)
        for e in range(3)
        for i, w in enumerate(("w1", "w3"))
    }
    pair = ["l.{n}.moe.experts.{e}.w1.weight", "l.{n}.moe.experts.{e}.w3.weight"]
    join = {"do": "concatenate", "from": pair, "to": "l.{n}.moe.experts.{e}.gate_up"}
    stack = {
        "do": "stack",
        "from": "l.{n}.moe.experts.{e}.gate_up",
        "to": "l.{n}.moe.experts.gate_up_proj",
    }
    unstack = {"do": "unstack", "from": stack["to"], "to": stack["from"]}
    cut = {"do": "chunk", "from": join["to"], "to": pair}

    fused = bound(source(experts), [join], [stack])
    back = bound(source(experts), [join], [stack], [unstack], [cut])

    for n in range(2):
        each = [
            np.concatenate(
                [experts[f"l.{n}.moe.experts.{e}.{w}.weight"].numpy() for w in ("w1", "w3")]
            )
            for e in range(3)
        ]
        assert np.array_equal(
            whole(fused, f"l.{n}.moe.experts.gate_up_proj", cuts=5), np.stack(each)
        )
    assert {n: whole(back, n).tolist() for n in back.specs} == {
        n: t.tolist() for n, t in experts.items()
    }


def test_threads_and_chunks_change_nothing(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    made = {f"e.{n}.w": torch.randn(400, 600, generator=generator) for n in range(3)}
    rules = (
        [{"do": "transpose", "tensors": ["e.*"]}],
        [{"do": "stack", "from": "e.{n}.w", "to": "e.w", "dim": 1}],
    )
    step = bound(source(made), *rules)
    expected = torch.stack([made[f"e.{n}.w"].T for n in range(3)], dim=1)
    reference = source({"e.w": expected})

    for threads in (1, 2, 4):
        for block in (moves.BLOCK, 1 << 19):
            monkeypatch.setattr(moves, "BLOCK", block)
            step = bound(source(made), *rules)
            engine = Engine(CPU, threads)
            assert identities(engine, step) == identities(engine, reference)


class Counting:
    """A source that counts the elements and the reads asked of it."""

    def __init__(self, inner: FileSource) -> None:
        self._inner, self.specs = inner, inner.specs
        self.elements = self.reads = self.largest = 0

    def read(self, name: str, start: int, stop: int, scratch: Scratch) -> torch.Tensor:
        self.elements += stop - start
        self.reads += 1
        self.largest = max(self.largest, stop - start)
        return self._inner.read(name, start, stop, scratch)

    def alias(self, name: str) -> tuple[Source, str]:
        return self, name


def test_a_range_reads_only_what_it_is_made_of(source: Any) -> None:
    parts = {f"e.{n}": torch.zeros(1000, 100) for n in range(10)}
    counting = Counting(source(parts))
    step = bound(counting, [{"do": "stack", "from": "e.{n}", "to": "e"}])

    step.read("e", 150_000, 250_000, Scratch(CPU))

    assert (counting.elements, counting.reads) == (100_000, 2)


def test_a_transpose_of_one_block_reads_its_source_once(source: Any) -> None:
    counting = Counting(source({"w": torch.zeros(2000, 3000, dtype=torch.bfloat16)}))
    step = bound(counting, [{"do": "transpose", "tensors": ["w"]}])

    identities(Engine(CPU, 2), step)

    assert counting.elements == 6_000_000


def test_a_large_transpose_reads_bounded_pieces(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "BLOCK", 1 << 20)
    counting = Counting(source({"w": torch.zeros(300, 20_000, dtype=torch.bfloat16)}))
    step = bound(counting, [{"do": "transpose", "tensors": ["w"]}])

    identities(Engine(CPU, 1), step)

    assert counting.elements == 6_000_000
    assert counting.largest <= moves._PIECE


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"do": "transpose", "tensors": ["absent"]}, "finds no tensor"),
        ({"do": "transpose", "tensors": ["v"]}, "no such dimension"),
        ({"do": "transpose", "tensors": ["packed"]}, "can't move"),
        ({"do": "interleave", "tensors": ["w"], "dim": 1}, "not pairs"),
        ({"do": "permute_rope", "tensors": ["w"], "heads": 3}, "not pairs"),
        ({"do": "concatenate", "from": ["w", "v"], "to": "x"}, "do not fit"),
        ({"do": "concatenate", "from": ["w", "h"], "to": "x"}, "do not fit"),
        ({"do": "concatenate", "from": ["w", "w"], "to": "x"}, "two rules touch"),
        ({"do": "concatenate", "from": ["w", "absent"], "to": "x"}, "no such tensor"),
        ({"do": "concatenate", "from": ["w", "u"], "to": "v"}, "two tensors get one name"),
        ({"do": "concatenate", "from": ["w", "u"], "to": "x", "dim": 2}, "no such dimension"),
        ({"do": "chunk", "from": "w", "to": ["x", "y"], "sizes": [1, 2]}, "not the whole"),
        ({"do": "chunk", "from": "w", "to": ["x", "y", "z"], "dim": 0}, "not the whole"),
        ({"do": "chunk", "from": "w", "to": ["x", "x"]}, "two tensors get one name"),
        ({"do": "stack", "from": "g.{n}", "to": "g"}, "without gaps"),
        ({"do": "stack", "from": "k.{n}", "to": "k"}, "without gaps"),
        ({"do": "unstack", "from": "w", "to": "w.{n}", "dim": 2}, "no such dimension"),
    ],
)
def test_rules_that_do_not_fit(tmp_path: Path, rule: dict[str, Any], problem: str) -> None:
    tensors = {
        "w": torch.zeros(4, 3), "u": torch.zeros(4, 3), "v": torch.zeros(4),
        "h": torch.zeros(4, 3, dtype=torch.float16), "packed": torch.zeros(2, 2, dtype=torch.uint16),
        "g.0": torch.zeros(2), "g.2": torch.zeros(2), "k.00": torch.zeros(2), "k.1": torch.zeros(2),
    }  # fmt: skip
    save_file(tensors, tmp_path / "m.safetensors")
    with open_model(tmp_path / "m.safetensors") as model, pytest.raises(RecipeError, match=problem):
        bound(FileSource(model), [rule])


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"do": "concatenate", "from": ["{n}.w"], "to": "w"}, "different placeholders"),
        ({"do": "chunk", "from": "w", "to": ["{n}.w"]}, "different placeholders"),
        ({"do": "chunk", "from": "w", "to": ["x", "y"], "sizes": [1]}, "wrong number of sizes"),
        ({"do": "stack", "from": "w", "to": "w"}, "numbered by one"),
        ({"do": "stack", "from": "{a}.{b}", "to": "w"}, "numbered by one"),
        ({"do": "stack", "from": "e.{a*}", "to": "w"}, "one part"),
        ({"do": "unstack", "from": "{a}.w", "to": "w"}, "numbered by one"),
        ({"do": "stack", "from": "e{a}", "to": "w"}, "not a placeholder"),
        ({"do": "stack", "from": "{a}.{a}", "to": "w"}, "ambiguous"),
        ({"do": "stack", "from": "{a*}.{b*}", "to": "w"}, "ambiguous"),
        ({"do": "reshape", "tensors": ["w"]}, "not a recipe"),
        ({"do": "transpose", "tensors": ["w"], "dims": [0, -1]}, "not a recipe"),
    ],
)
def test_rules_that_can_not_be(rule: dict[str, Any], problem: str) -> None:
    document = {
        "version": "0.1",
        "parents": [{"id": "a"}],
        "steps": [{"id": "s", "op": "layout/v1", "inputs": ["a"], "params": {"rules": [rule]}}],
    }
    with pytest.raises(RecipeError, match=problem):
        recipe.parse(document, where="t")


def test_two_rules_may_not_touch_one_tensor(source: Any) -> None:
    rule = {"do": "transpose", "tensors": ["w"]}
    with pytest.raises(RecipeError, match="two rules touch"):
        bound(source({"w": torch.zeros(2, 2)}), [rule, rule])


def test_a_chain_can_not_grow_a_tensor_for_ever(
    source: Callable[..., FileSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "MAX_ELEMENTS", 100)
    with pytest.raises(RecipeError, match="too large"):
        bound(source({"a": torch.zeros(60), "b": torch.zeros(60)}),
              [{"do": "concatenate", "from": ["a", "b"], "to": "c"}])  # fmt: skip
