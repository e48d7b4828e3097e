"""Leaves of a model made from bytes that are read for something else, so that nothing is read twice.

What comes by is digested once; `hashing.hash_model` then reads only what never came by. The digests are
of the very bytes that whoever asked for them went on to use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from parentage.manifest import digest
from parentage.manifest.digest import CHUNK, LEAF_BYTES, Profile
from parentage.manifest.model import Model


class Gathering:
    """The leaves of a model that are known so far; any thread may add to them."""

    def __init__(
        self,
        model: Model,
        profiles: Sequence[Profile],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Know none.

        Args:
            model: whose.
            profiles: of the leaves.
            progress: told of the bytes digested.
        """
        self.profiles = tuple(profiles)
        self._progress = progress
        self._sizes = {name: t.end - t.start for name, t in model.tensors.items()}
        counts = {name: digest.chunk_count(size) for name, size in self._sizes.items()}
        self.leaves = {
            name: {profile: bytearray(LEAF_BYTES * count) for profile in self.profiles}
            for name, count in counts.items()
        }
        self._known = {name: bytearray(count) for name, count in counts.items()}

    def take(self, name: str, start: int, data: memoryview) -> None:
        """Digest the whole chunks among bytes of a tensor that are not known yet.

        Args:
            name: of the tensor.
            start: where in the tensor `data` begins.
            data: its bytes there.
        """
        known, size = self._known[name], self._sizes[name]
        for number in range(-(-start // CHUNK), -(-(start + len(data)) // CHUNK)):
            first = number * CHUNK - start
            last = min(first + CHUNK, size - start)
            if known[number] or last > len(data):
                continue
            chunk = data[first:last]
            for profile, leaves in self.leaves[name].items():
                at = number * LEAF_BYTES
                leaves[at : at + LEAF_BYTES] = digest.leaf(profile, chunk)
            known[number] = 1
            if self._progress is not None:
                self._progress(len(chunk))

    def missing(self, name: str) -> Iterator[tuple[int, int]]:
        """Yield the ranges of a tensor, as bytes from its start, that have not come by."""
        known, size = self._known[name], self._sizes[name]
        first: int | None = None
        for number, there in enumerate([*known, 1]):
            if not there and first is None:
                first = number * CHUNK
            elif there and first is not None:
                yield first, min(number * CHUNK, size)
                first = None
