"""Tasks: they cover every element once, they read what they say, and no order or place changes a bit."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import MERGE, World

from parentage import Report
from parentage.manifest.errors import CannotRunError, UsageError
from parentage.manifest.tensor import TensorSpec
from parentage.verify import planner
from parentage.verify.engine import Chunk, Engine, bind, chunks_of, pick_devices
from parentage.verify.values import FileSource, Scratch
from parentage.verify.way import Way

CPU = torch.device("cpu")
TIES = {
    "id": "s",
    "op": "task_arithmetic/v1",
    "inputs": ["base", "a", "b"],
    "params": {"base": "base", "normalize": False, "weights": ["1", "1"], "elect": True, "sparsify": "magnitude", "densities": ["0.5", "0.5"]},
    "arithmetic": {"profile": "parentage-1"},
}  # fmt: skip

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
tables = st.dictionaries(names, st.integers(0, 1 << 30), min_size=1, max_size=30)


def specs(sizes: dict[str, int]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(name, "BF16", (size,)) for name, size in sizes.items()}


@given(tables, st.integers(1, 40))
def test_every_tensor_is_in_one_shard(sizes: dict[str, int], count: int) -> None:
    table = specs(sizes)
    shares = planner.shares(table, count)

    assert len(shares) == count
    order = [name for share in shares for name in share]
    assert order == sorted(table, key=lambda name: name.encode())
    assert planner.shares(dict(reversed(table.items())), count) == shares
    # No shard has more than its part and half of its first and its last tensor.
    total = sum(sizes.values())
    for share in shares:
        if share:
            ends = sizes[share[0]] / 2 + sizes[share[-1]] / 2
            assert sum(sizes[name] for name in share) <= total / count + ends + 1


@given(st.integers(0, 200 << 20), st.sampled_from(["BF16", "F32", "F8_E4M3", "I64"]))
def test_tasks_cover_a_tensor_once_in_whole_chunks(elements: int, dtype: str) -> None:
    spec = TensorSpec("w", dtype, (elements,))

    class Bound:
        specs = {"w": spec}  # noqa: RUF012
        method = planner._ELEMENTWISE[0].__new__(planner._ELEMENTWISE[0])
        inputs: dict[str, Any] = {}  # noqa: RUF012

    tasks = planner.tasks(Bound(), ["w"])  # type: ignore[arg-type]
    chunks = [chunk for task in tasks for chunk in planner.chunks_in(spec, task)]

    assert chunks == list(chunks_of(spec)) or not elements
    assert sum(task.stop - task.start for task in tasks) == elements
    assert all(planner.size_of(spec, task) <= planner.SPAN << 20 for task in tasks)


def test_a_tensor_is_whole_only_where_facts_of_it_are_needed(source: Any, step: Any) -> None:
    inputs = {
        n: source({"w": torch.zeros(200, 1 << 20, dtype=torch.uint8).view(torch.bfloat16)})
        for n in ("base", "a", "b")
    }
    linear = bind([step(**{**MERGE, "id": "s"})], inputs)["s"]
    ties = bind([step(**TIES)], inputs)["s"]

    assert len(planner.tasks(linear, ["w"])) == 4
    assert len(planner.tasks(ties, ["w"])) == 1


@given(tables, st.integers(1, 40), st.binary(min_size=1, max_size=16))
def test_a_sample_is_what_its_seed_says(sizes: dict[str, int], count: int, seed: bytes) -> None:
    table = specs({name: size >> 8 for name, size in sizes.items()})
    every = [chunk for spec in table.values() for chunk in chunks_of(spec)]

    def ticket(chunk: Chunk) -> bytes:
        parts = [seed, chunk.start.to_bytes(8, "little"), chunk.name.encode()]
        return hashlib.sha256(b"".join(parts)).digest()

    found = planner.sample(table, list(table), count, seed)

    assert set(found) == set(sorted(every, key=ticket)[:count])
    assert len(found) == min(count, len(every))


class Watched(FileSource):
    """A file that remembers what was read of it."""

    def __init__(self, source: FileSource) -> None:
        super().__init__(source.model)
        self.seen: set[tuple[str, int, int]] = set()

    def read(self, name: str, start: int, stop: int, scratch: Scratch) -> torch.Tensor:
        self.seen.add((name, start, stop))
        return super().read(name, start, stop, scratch)


CHAIN = [
    {"id": "x", "op": "rename/v1", "inputs": ["a"], "params": {"names": {"w": "w"}}},
    {**MERGE, "id": "y", "inputs": ["x", "b"]},
    {"id": "z", "op": "cast/v1", "inputs": ["y"], "arithmetic": {"profile": "parentage-1", "store": "BF16"}},
]  # fmt: skip
SLERP = {"id": "s", "op": "slerp/v1", "inputs": ["a", "b"], "params": {"t": "0.3"}, "arithmetic": {"profile": "parentage-1"}}  # fmt: skip
LAYERS = {"id": "s", "op": "layer_select/v1", "inputs": ["a"], "params": {"prefix": "l.", "slices": [{"input": "a", "start": 1, "end": 2}]}}  # fmt: skip
LORA = {"id": "s", "op": "lora_merge/v1", "inputs": ["a", "d"], "params": {"alpha": "4"}, "arithmetic": {"profile": "parentage-1"}}  # fmt: skip
DORA = {**LORA, "op": "dora_merge/v1"}


@pytest.mark.parametrize(
    "steps",
    [[TIES], [SLERP], [LAYERS], [LORA], [DORA], CHAIN, [*CHAIN, {**SLERP, "inputs": ["z", "b"]}]],
)
def test_a_task_reads_nothing_that_it_does_not_declare(
    source: Any, world: World, steps: list[Any]
) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (512, 700)
    plain = {
        n: {
            "w": torch.randn(shape, generator=generator),
            "l.1.w": torch.randn(shape, generator=generator),
        }
        for n in ("base", "a", "b")
    }
    plain["d"] = {
        "base_model.model.w.lora_A.weight": torch.randn(4, 700, generator=generator),
        "base_model.model.w.lora_B.weight": torch.randn(512, 4, generator=generator),
    }
    if steps == [DORA]:
        plain["d"]["base_model.model.w.lora_magnitude_vector"] = torch.ones(512)
    if steps in ([LORA], [DORA]):
        plain["a"] = {"w.weight": plain["a"]["w"]}
    used = {i for s in steps for i in s["inputs"]} & set(plain)
    watched = {name: Watched(source(plain[name])) for name in sorted(used)}
    recipe = world.recipe(sorted(used), steps)
    last = bind(recipe.steps, watched)[steps[-1]["id"]]  # type: ignore[arg-type]

    for name in last.specs:
        for task in planner.tasks(last, [name]):
            for chunk in list(planner.chunks_in(last.specs[name], task))[:2]:
                for one in watched.values():
                    one.seen.clear()
                last.method.chunk(
                    name, chunk.start, chunk.stop, last.method.variants[0], Scratch(CPU)
                )
                declared = planner.reads(last, name, chunk.start, chunk.stop)
                for one in watched.values():
                    for tensor, start, stop in one.seen:
                        assert any(
                            r.source is one
                            and r.name == tensor
                            and r.start <= start
                            and stop <= r.stop
                            for r in declared
                        ), (name, tensor, start, stop)
                assert any(one.seen for one in watched.values())


def test_stream_takes_no_more_than_it_needs_and_keeps_the_order() -> None:
    taken: list[int] = []

    def chunks() -> Any:
        for at in range(10_000):
            taken.append(at)
            yield Chunk("w", at, at + 1)

    results = Engine(CPU, 2).stream(lambda chunk, _: chunk.start, chunks())
    first = [next(results) for _ in range(50)]
    results.close()

    assert first == list(range(50))
    assert len(taken) < 200


def test_the_first_failure_in_order_is_the_one_that_is_raised() -> None:
    def fail(chunk: Chunk, _: Scratch) -> None:
        if chunk.start in {7, 9}:
            raise UsageError("here", found=str(chunk.start))

    for _ in range(20):
        with pytest.raises(UsageError, match="7"):
            Engine(CPU, 2).map(fail, (Chunk("w", at, at + 1) for at in range(20)))


def test_work_is_dealt_to_all_devices() -> None:
    """torch's meta device stands for a second one: threads take devices in turn."""
    engine = Engine(CPU, 2, None, (torch.device("meta"),))
    barrier = threading.Barrier(2)

    def device(_: Chunk, scratch: Scratch) -> str:
        barrier.wait(10)
        return scratch.device.type

    assert set(engine.map(device, (Chunk("w", at, at) for at in range(2)))) == {"cpu", "meta"}


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:0,", "cuda:0;cpu", "cpu,cpu", "", "CUDA"])
def test_a_device_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="no such device"):
        pick_devices(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "all", "cuda:0,cuda:1"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(CannotRunError, match="no CUDA device"):
        pick_devices(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpus_give_the_report_of_the_cpu(world: World) -> None:
    world.merge()

    def on(device: str) -> Report:
        report = world.verify("merged", ["a", "b"], device=device)
        report.device = ""
        return report

    every = ",".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    assert on("all").to_json() == on(every).to_json() == on("cpu").to_json()


def test_a_sample_refutes_what_it_sees_and_verifies_nothing(world: World) -> None:
    world.merge()
    honest = world.verify("merged", ["a", "b"], way=Way(sample=3))
    again = world.verify("merged", ["a", "b"], way=Way(sample=3, sample_seed=honest.sample.seed))  # type: ignore[union-attr]
    whole = world.verify("merged", ["a", "b"], way=Way(sample=10**6))

    assert (honest.verdict, honest.exit_code) == ("unproven", 4)
    assert honest.sample is not None
    assert honest.sample.chunks == 3
    assert honest.sample.elements < honest.sample.of_elements == 4 * 96 * 64 + 64
    assert honest.to_json() == again.to_json()
    assert whole.verdict == "unproven"
    assert whole.sample is not None
    assert whole.sample.elements == whole.sample.of_elements

    tensors = world.weights("merged")
    tensors["layers.2.w"].view(torch.int32)[5, 7] += 1
    world.save("merged", tensors)
    world.declare("merged", ["a", "b"], [MERGE])
    found = world.verify("merged", ["a", "b"], way=Way(sample=10**6))

    assert (found.verdict, found.exit_code) == ("refuted", 1)
    assert found.findings[0].where == f"layers.2.w[{5 * 64 + 7}]"


def test_samples_differ_from_run_to_run(world: World) -> None:
    """A publisher who knew the places would spare them."""
    world.merge()
    seeds = {world.verify("merged", ["a", "b"], way=Way(sample=1)).sample.seed for _ in range(4)}  # type: ignore[union-attr]

    assert len(seeds) == 4
    assert all(len(seed) == 32 for seed in seeds)


def test_a_sample_under_an_engine_with_freedom_refutes_nothing(world: World) -> None:
    """mk-0.1.5 leaves the order of a sum open, so bits alone decide nothing against it."""
    step = {**MERGE, "arithmetic": {"profile": "mk-0.1.5", "compute": "F32"}}
    world.merge("merged", step)
    tensors = world.weights("merged")
    tensors["layers.2.w"].view(torch.int32)[5, 7] += 1
    world.save("merged", tensors)
    world.declare("merged", ["a", "b"], [step])
    found = world.verify("merged", ["a", "b"], way=Way(sample=10**6))

    assert found.verdict == "unproven"
    assert found.sample is not None
    assert found.sample.differing == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"sample": 0},
        {"sample": 1, "sample_seed": "xy"},
        {"shard": (0, 2)},
        {"shard": (3, 2)},
        {"shard": (1, 10**9)},
        {"sample": 2, "shard": (1, 2)},
    ],
)
def test_a_way_that_is_none(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Way(**bad)
