"""Where tensor values come from: files, or steps that compute them on demand, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from parentage.manifest.gathering import Gathering
from parentage.manifest.model import Model
from parentage.manifest.tensor import TensorSpec
from parentage.verify.rounding import STORED


class Scratch:
    """One thread's reusable host buffers; `reset` hands them out again from the first.

    Fresh buffers for every chunk would spend more time in page faults than in arithmetic.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: list[bytearray] = []
        self._next = 0

    def reset(self) -> None:
        """Begin a new chunk: every tensor handed out before is invalid from here on."""
        self._next = 0

    def host(self, nbytes: int) -> tuple[memoryview, Tensor]:
        """Return `nbytes` of host memory, as bytes and as a uint8 tensor over the same storage."""
        if self._next == len(self._buffers):
            self._buffers.append(bytearray(nbytes))
        if len(self._buffers[self._next]) < nbytes:
            self._buffers[self._next] = bytearray(nbytes)
        buffer = self._buffers[self._next]
        self._next += 1
        if nbytes == 0:
            return memoryview(b""), torch.empty(0, dtype=torch.uint8)
        return memoryview(buffer)[:nbytes], torch.frombuffer(
            buffer, dtype=torch.uint8, count=nbytes
        )

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
        return self.host(elements * dtype.itemsize)[1].view(dtype)

    def to_bytes(self, values: Tensor) -> memoryview:
        """Return the bytes of a tensor as safetensors stores them (little-endian, contiguous)."""
        view, target = self.host(values.numel() * values.element_size())
        target.copy_(values.contiguous().view(torch.uint8))
        return view


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
        view, values = scratch.host((stop - start) * width)
        self.model.file_of(tensor).read_into(view, tensor.start + start * width)
        if self.gathering is not None:
            self.gathering.take(name, start * width, view)
        return values.view(dtype).to(scratch.device)

    def alias(self, name: str) -> tuple[Source, str]:
        """Return itself: a file is where values begin."""
        return self, name
