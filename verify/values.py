"""Where tensor values come from: files, or steps that compute them on demand, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final, Protocol

import torch
from torch import Tensor

from parentage.manifest.gathering import Gathering
from parentage.manifest.model import Model
from parentage.manifest.tensor import TensorSpec
from parentage.verify.rounding import STORED

#: Views kept of a buffer: chunks are of one size but for the last of a tensor.
_VIEWS: Final = 64


class Scratch:
    """One thread's reusable host buffers; `reset` hands them out again from the first.

    Fresh buffers for every chunk would spend more time in page faults than in arithmetic.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: list[bytearray] = []
        #: What was handed out of each buffer: making a tensor takes longer than asking for it again.
        self._views: list[dict[tuple[int, torch.dtype], tuple[memoryview, Tensor]]] = []
        self._next = 0

    def reset(self) -> None:
        """Begin a new chunk: every tensor handed out before is invalid from here on."""
        self._next = 0

    def host(self, elements: int, dtype: torch.dtype = torch.uint8) -> tuple[memoryview, Tensor]:
        """Return host memory for so many elements, as bytes and as a flat tensor over the same storage."""
        nbytes = elements * dtype.itemsize
        at, self._next = self._next, self._next + 1
        if at == len(self._buffers):
            self._buffers.append(bytearray(nbytes))
            self._views.append({})
        if len(self._buffers[at]) < nbytes:
            self._buffers[at] = bytearray(nbytes)
            self._views[at] = {}
        elif len(self._views[at]) > _VIEWS:
            self._views[at] = {}
        found = self._views[at].get((elements, dtype))
        if found is None:
            found = self._views[at][elements, dtype] = _view(self._buffers[at], elements, dtype)
        return found

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Take back what is handed out inside: it must have been copied by the end."""
        mark = self._next
        try:
            yield
        finally:
            self._next = mark

    def tensor(self, elements: int, dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor on the device, valid until the next `reset`."""
        if self.device.type != "cpu":
            return torch.empty(elements, dtype=dtype, device=self.device)
        return self.host(elements, dtype)[1]

    def to_bytes(self, values: Tensor) -> memoryview:
        """Return the bytes of a tensor as safetensors stores them (little-endian, contiguous)."""
        view, target = self.host(values.numel() * values.element_size())
        target.copy_(values.contiguous().view(torch.uint8))
        return view


def own_pages(count: int, dtype: torch.dtype) -> Tensor:
    """Return memory that goes back when it is freed: in the heap it would pin what lies around it."""
    if not count:
        return torch.empty(0, dtype=dtype)
    pages = mmap(-1, count * dtype.itemsize, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype, count=count)


def _view(buffer: bytearray, elements: int, dtype: torch.dtype) -> tuple[memoryview, Tensor]:
    if elements == 0:
        return memoryview(b""), torch.empty(0, dtype=dtype)
    # A tensor made in inference mode may not be written to outside of it.
    with torch.inference_mode(mode=False):
        values = torch.frombuffer(buffer, dtype=dtype, count=elements)
    return memoryview(buffer)[: values.nbytes], values


class Source(Protocol):
    """Tensors by name, readable by element range."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Names, dtypes and shapes."""

    def read(self, name: str, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return elements [start, stop) of a tensor, flat, in its stored dtype, on the device."""

    def alias(self, name: str) -> tuple[Source, str]:
        """Return the source and name that a tensor is copied from unchanged, or itself."""


class FileSource:
    """The tensors of a model on disk.

    Attributes:
        model: open.
        gathering: digests what is read, where somebody wants to know.
    """

    def __init__(self, model: Model, gathering: Gathering | None = None) -> None:
        self.model = model
        self.gathering = gathering
        self.specs: Mapping[str, TensorSpec] = {
            name: tensor.spec for name, tensor in model.tensors.items()
        }

    def read(self, name: str, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return elements [start, stop): raw bytes for dtypes that torch has no name for."""
        tensor = self.model.tensors[name]
        dtype = STORED.get(tensor.spec.dtype, torch.uint8)
        width = tensor.spec.unit
        view, values = scratch.host((stop - start) * width // dtype.itemsize, dtype)
        self.model.file_of(tensor).read_into(view, tensor.start + start * width)
        if self.gathering is not None:
            self.gathering.take(name, start * width, view)
        return values if scratch.device.type == "cpu" else values.to(scratch.device)

    def alias(self, name: str) -> tuple[Source, str]:
        """Return itself: a file is where values begin."""
        return self, name
