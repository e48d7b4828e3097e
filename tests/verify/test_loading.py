"""Weights handed to torch: only what was signed, whatever happens to the files meanwhile."""

from __future__ import annotations

import json
import mmap
import shutil
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_rig import LocalHub
from safetensors.torch import load_file, save_file
from worlds import World, raw_safetensors

import parentage
from parentage import Demands, KeySigner, PrivateKey, RefusedError, TrustedKeys, Verdict, Verified
from parentage.manifest.errors import CannotRunError, UsageError
from parentage.manifest.tensor import DTYPE_BITS

KEY = PrivateKey.generate()
TRUST = TrustedKeys((KEY.public,))
NAME = "model.safetensors"
MIB = 1 << 20


def publish(folder: Path) -> Path:
    """Sign whatever lies in a folder."""
    parentage.sign_release(folder, KeySigner(KEY), TRUST, observed=True)
    return folder


@pytest.fixture
def release(published: Path, tmp_path: Path) -> Path:
    """Three tensors, the second of 3 MiB, and a config."""
    return Path(shutil.copytree(published, tmp_path / "release"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release that each test has a copy of."""
    folder = tmp_path_factory.mktemp("published")
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "a": torch.randn(64, generator=generator).to(torch.bfloat16),
        "b": torch.randn(768, 1024, generator=generator),
        "c": torch.arange(10),
    }
    save_file(tensors, folder / NAME)
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    return publish(folder)


def codes(refused: pytest.ExceptionInfo[RefusedError]) -> list[str]:
    return [found.code for found in refused.value.report.findings]


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Say whether two tensors are equal in dtype, shape and every bit."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8))


def place_of(release: Path, name: str) -> int:
    """Return where the bytes of a tensor begin in the file, as the file itself says."""
    data = (release / NAME).read_bytes()
    length = int.from_bytes(data[:8], "little")
    start: int = json.loads(data[8 : 8 + length])[name]["data_offsets"][0]
    return 8 + length + start


def overwrite(release: Path, at: int, data: bytes) -> None:
    """Change bytes of the weights file in place, as a process with the file mapped would."""
    with (release / NAME).open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[at : at + len(data)] = data


def test_every_tensor_is_what_safetensors_loads(release: Path) -> None:
    expected = load_file(release / NAME)
    found = parentage.load_verified(release, trust=TRUST)
    assert found.keys() == expected.keys()
    assert all(same(found[name], expected[name]) for name in expected)
    found["b"] += 1  # ours to write to


@pytest.mark.parametrize("dtype", sorted(set(DTYPE_BITS) - {"F6_E2M3", "F6_E3M2"}))
def test_every_dtype_is_what_safetensors_loads(dtype: str, tmp_path: Path) -> None:
    count = {"t": 12, "none": 0}
    ends = {name: n * DTYPE_BITS[dtype] // 8 for name, n in count.items()}
    header = {
        "t": {"dtype": dtype, "shape": [3, 4], "data_offsets": [0, ends["t"]]},
        "none": {"dtype": dtype, "shape": [5, 0], "data_offsets": [ends["t"], ends["t"]]},
    }
    payload = bytes(i % 2 if dtype == "BOOL" else i for i in range(ends["t"]))
    (tmp_path / NAME).write_bytes(raw_safetensors(header, payload))
    expected = load_file(tmp_path / NAME)
    found = parentage.load_verified(publish(tmp_path), trust=TRUST)
    assert all(same(found[name], expected[name]) for name in expected)


def test_a_dtype_that_torch_has_not_is_named(tmp_path: Path) -> None:
    header = {"t": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}
    (tmp_path / NAME).write_bytes(raw_safetensors(header, b"abc"))
    with pytest.raises(CannotRunError, match="no dtype for F6_E2M3"):
        parentage.load_verified(publish(tmp_path), trust=TRUST)


def test_shards_and_scalars(tmp_path: Path) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": f"t{i}" for i in (1, 2)}
    for number, (shard, name) in enumerate(shards.items()):
        save_file({name: torch.tensor(float(number))}, tmp_path / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, name in shards.items()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = parentage.load_verified(publish(tmp_path), trust=TRUST)
    assert {name: value.item() for name, value in found.items()} == {"t1": 0.0, "t2": 1.0}


def test_one_bit_of_one_tensor(release: Path) -> None:
    at = place_of(release, "b") + 2 * MIB + 5
    byte = (release / NAME).read_bytes()[at]
    overwrite(release, at, bytes([byte ^ 1]))
    with pytest.raises(RefusedError, match="not the signed one") as refused:
        parentage.load_verified(release, trust=TRUST)
    assert codes(refused) == ["tensor-digest"]
    assert refused.value.report.verdict is Verdict.REFUTED
    assert refused.value.exit_code == 1


def test_bytes_changed_after_they_were_read_reach_nobody(release: Path) -> None:
    at, expected = place_of(release, "b"), load_file(release / NAME)["b"].clone()
    late = Late(lambda done, nbytes: overwrite(release, at + done, bytes(nbytes)))
    with Verified(release, trust=TRUST, demands=Demands(threads=1, progress=late)) as verified:
        late.armed = True
        found = verified.tensor("b")
    assert torch.equal(found, expected)
    assert not load_file(release / NAME)["b"].any()


class Late:
    """A progress that does something after each read, once it is armed."""

    def __init__(self, act: Callable[[int, int], None]) -> None:
        self.armed, self.act, self.done = False, act, 0

    def __call__(self, nbytes: int) -> None:
        if self.armed:
            self.act(self.done, nbytes)
            self.done += nbytes


def test_bytes_changed_before_they_are_read_are_refused(release: Path) -> None:
    with Verified(release, trust=TRUST) as verified:
        assert same(verified.tensor("a"), load_file(release / NAME)["a"])
        overwrite(release, place_of(release, "b") + MIB, b"\1\2\3\4")
        with pytest.raises(RefusedError) as refused:
            verified.tensor("b")
        with pytest.raises(RefusedError):  # what lied once is believed no more
            verified.tensor("c")
    assert codes(refused)[:1] == ["tensor-digest"]


def test_whoever_writes_all_the_time_changes_nothing_unseen(release: Path) -> None:
    expected, at = load_file(release / NAME)["b"].clone(), place_of(release, "b")
    data = (release / NAME).read_bytes()[at : at + 3 * MIB]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            overwrite(release, at, bytes(3 * MIB))
            overwrite(release, at, data)

    writer = threading.Thread(target=write)
    writer.start()
    outcomes = set()
    try:
        for _ in range(40):
            try:
                found = parentage.load_verified(release, trust=TRUST)["b"]
            except RefusedError:
                outcomes.add("refused")
                continue
            outcomes.add("loaded")
            assert torch.equal(found, expected)
    finally:
        stop.set()
        writer.join()
    assert outcomes  # whichever it was, never other weights


def test_a_file_replaced_after_opening_is_not_the_one_that_is_read(release: Path) -> None:
    expected = load_file(release / NAME)
    with Verified(release, trust=TRUST) as verified:
        other = release / "other"
        save_file({name: torch.zeros_like(t) for name, t in expected.items()}, other)
        other.replace(release / NAME)
        assert all(same(found, expected[name]) for name, found in verified.items())


def test_a_file_cut_short_after_opening(release: Path) -> None:
    with Verified(release, trust=TRUST) as verified:
        with (release / NAME).open("r+b") as stream:
            stream.truncate(place_of(release, "b") + 10)
        with pytest.raises(RefusedError, match="shorter"):
            verified.tensor("b")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda folder: (folder / "config.json").write_text("{}"), "file-digest"),
        (lambda folder: (folder / "modeling.py").write_text("evil()"), "file-unsigned"),
        (lambda folder: (folder / "config.json").unlink(), "file-missing"),
        (lambda folder: (folder / "model.sig").unlink(), "unsigned"),
        (lambda folder: (folder / ".parentage" / "leaves.bin").write_bytes(b""), "malformed"),
    ],
)
def test_whatever_else_is_wrong_no_tensor_is_handed_out(
    change: Callable[[Path], object], code: str, release: Path
) -> None:
    change(release)
    with pytest.raises(RefusedError) as refused:
        next(parentage.iter_verified(release, trust=TRUST))
    assert code in codes(refused)


def test_a_stranger_and_an_unsigned_release(release: Path, world: World) -> None:
    with pytest.raises(RefusedError) as refused:
        parentage.load_verified(release, trust=world.trust)
    assert codes(refused) == ["signature"]
    with pytest.raises(RefusedError) as refused:
        parentage.load_verified(world.root / "base", trust=TRUST)
    assert refused.value.exit_code == 3
    with pytest.raises(UsageError):
        parentage.load_verified(world.root / "nowhere", trust=TRUST)


def test_a_tensor_moved_into_another_ones_name_is_refused(release: Path) -> None:
    tensors = load_file(release / NAME)
    tensors["b"], tensors["a"] = tensors["b"].flip(0).contiguous(), tensors["a"]
    save_file(tensors, release / NAME)  # the header is the same, byte for byte
    with pytest.raises(RefusedError) as refused:
        parentage.load_verified(release, trust=TRUST)
    assert codes(refused) == ["tensor-digest"]


def test_the_verdict_is_given_when_all_was_read(release: Path) -> None:
    with Verified(release, trust=TRUST) as verified:
        assert verified.report.verdict is Verdict.UNPROVEN
        assert verified.report.not_checked[-1] == "3 of 3 tensors: not read"
        assert json.loads(verified.read("config.json")) == {"model_type": "tiny"}
        names = [name for name, _ in verified.items()]
        assert names == list(verified.specs)
        assert verified.report.verdict is Verdict.VERIFIED
        assert verified.report.coverage.tensors_checked == 3
        with pytest.raises(UsageError):
            verified.tensor("d")
        with pytest.raises(UsageError):
            verified.read(NAME)
        (release / "config.json").write_text('{"model_type": "evil"}')
        with pytest.raises(RefusedError, match="not the signed one"):
            verified.read("config.json")


def test_memory_is_bounded_by_the_largest_tensor_and_what_is_read_ahead(tmp_path: Path) -> None:
    size = 24 * MIB
    save_file(
        {f"t{i}": torch.full((size,), i, dtype=torch.uint8) for i in range(10)}, tmp_path / NAME
    )
    publish(tmp_path)
    tracemalloc.start()
    try:
        for name, tensor in parentage.iter_verified(tmp_path, trust=TRUST):
            assert tensor[0] == int(name[1:])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * MIB + 2 * size + 16 * MIB  # of 240 MiB


def test_a_release_on_a_hub(
    release: Path, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARENTAGE_CACHE", str(tmp_path / "cache"))
    commit = hub.put_folder("acme/rio", release)
    with Verified("hf://acme/rio", trust=TRUST) as verified:
        assert verified.report.release == f"hf://acme/rio@{commit}"
    expected = load_file(release / NAME)
    found = parentage.load_verified(f"hf://acme/rio@{commit}", trust=TRUST)
    assert all(same(found[name], expected[name]) for name in expected)
    [kept] = (tmp_path / "cache").rglob(NAME)
    overwrite(kept.parent, place_of(kept.parent, "b"), b"\1\2\3\4")
    with pytest.raises(RefusedError):
        parentage.load_verified(f"hf://acme/rio@{commit}", trust=TRUST)


def test_a_snapshot_in_the_clients_cache(release: Path, hub: LocalHub) -> None:
    hub.put_folder("acme/rio", release)
    snapshot = Path(huggingface_hub.snapshot_download("acme/rio"))
    assert (snapshot / NAME).is_symlink()
    expected = load_file(release / NAME)
    found = parentage.load_verified(snapshot, trust=TRUST)
    assert all(same(found[name], expected[name]) for name in expected)
    blob = (snapshot / NAME).resolve()
    blob.chmod(0o644)
    with blob.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"!")
    with pytest.raises(RefusedError):
        parentage.load_verified(snapshot, trust=TRUST)
