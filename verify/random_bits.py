"""Random masks that can be computed again: Philox by position, and torch's serial stream replayed.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) gives the bits of
any element without those before it, so masks do not depend on order, shards or devices. mergekit draws
from torch's one CPU generator (mt19937): an element's bit depends on every tensor drawn before it.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Generic, Protocol, TypeVar

import torch
from torch import Tensor

_LOW: Final = (1 << 32) - 1
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_DOMAIN: Final = b"parentage-1 mask\0"
_PIECE: Final = 1 << 20

S = TypeVar("S", bound="Stream")


def mask_key(seed: int, name: str, index: int) -> tuple[int, int]:
    """Return the Philox key of one input's mask of one tensor.

    The first eight bytes of SHA-256("parentage-1 mask" 0x00 || u64le seed || u32le index || UTF-8 name),
    as two little-endian words; `index` counts the inputs that are not the base.
    """
    text = _DOMAIN + seed.to_bytes(8, "little") + index.to_bytes(4, "little") + name.encode()
    found = hashlib.sha256(text).digest()
    return int.from_bytes(found[:4], "little"), int.from_bytes(found[4:8], "little")


def words(key: tuple[int, int], start: int, stop: int, device: torch.device) -> Tensor:
    """Return the 32-bit words of elements [start, stop) as int64.

    Element e is word e mod 4 of the block whose counter is (e div 4 low, e div 4 high, 0, 0).
    """
    first, last = start // 4, -(-stop // 4)
    counter = torch.arange(first, last, dtype=torch.int64, device=device)
    c0, c1 = counter & _LOW, counter >> 32
    c2, c3 = torch.zeros_like(c0), torch.zeros_like(c0)
    k0, k1 = key
    for _ in range(10):
        # A product of two 32-bit words fills 64 bits: int64 wraps, and shifts and masks still see it.
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _LOW) ^ c1 ^ k0,
            p1 & _LOW,
            ((p0 >> 32) & _LOW) ^ c3 ^ k1,
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return torch.stack((c0, c1, c2, c3), dim=1).reshape(-1)[start - 4 * first : stop - 4 * first]


class Stream(Protocol):
    """A serial generator of random bits."""

    def state(self) -> bytes:
        """Return where it is."""

    def restore(self, state: bytes) -> None:
        """Go on from where it was."""

    def skip(self, count: int) -> None:
        """Draw so many 32-bit words for nothing."""


class TorchStream:
    """torch's own CPU generator.

    Attributes:
        generator: it.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def state(self) -> bytes:
        """Return where it is."""
        return bytes(self.generator.get_state().tolist())

    def restore(self, state: bytes) -> None:
        """Go on from where it was."""
        self.generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))

    def skip(self, count: int) -> None:
        """Draw so many 32-bit words for nothing."""
        for start in range(0, count, _PIECE):
            size = min(_PIECE, count - start)
            torch.empty(size, dtype=torch.int32).random_(generator=self.generator)


class SerialDraws(Generic[S]):
    """A stream from a seed, and its state before each tensor that was drawn for."""

    def __init__(self, stream: S, counts: Mapping[str, int]) -> None:
        """Begin.

        Args:
            stream: at its beginning: the seed was given to `torch.manual_seed` before the merge began.
            counts: words drawn for each tensor, in the order in which it was merged.
        """
        self._stream = stream
        self._counts = dict(counts)
        self._order = list(counts)
        self._place = {name: index for index, name in enumerate(self._order)}
        self._states = [stream.state()]
        self._lock = threading.Lock()

    def draw(self, name: str, draw: Callable[[S], Iterator[Tensor]]) -> list[Tensor]:
        """Draw a tensor's masks with the stream in the state that it had.

        Args:
            name: tensor.
            draw: draws exactly the declared count.
        """
        place = self._place[name]
        with self._lock:
            while len(self._states) <= place:
                self._stream.restore(self._states[-1])
                self._stream.skip(self._counts[self._order[len(self._states) - 1]])
                self._states.append(self._stream.state())
            self._stream.restore(self._states[place])
            masks = list(draw(self._stream))
            if len(self._states) == place + 1:
                self._states.append(self._stream.state())
            return masks


def limit_of(probability: Tensor) -> int:
    """Return the number that the lower 24 bits of a word are below with a probability of fp32 or less.

    For those dtypes torch draws the low 24 bits of one word for each element as a number in [0, 1) and
    compares it with the probability, which is exact in fp32 (at::uniform_real_distribution).
    """
    return math.ceil(float(probability) * 2.0**24)


def drawn(count: int, probability: Tensor, generator: torch.Generator) -> Tensor:
    """Return `torch.bernoulli(probability.expand(count), generator=generator)` as booleans, faster."""
    if probability.dtype == torch.float64:
        return torch.bernoulli(probability.expand(count), generator=generator).to(torch.bool)
    # Without bounds torch takes the low 31 bits of a word, and divides nothing.
    found = torch.empty(count, dtype=torch.int32).random_(generator=generator)
    return found.bitwise_and_((1 << 24) - 1).lt_(limit_of(probability)).to(torch.bool)
