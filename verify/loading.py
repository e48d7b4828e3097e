"""Weights handed to torch as verified bytes: what is hashed is what is loaded.

Every tensor is read once, from a file that was opened before anything was checked, into memory that is
ours alone; its identity is computed from that memory and compared with the signed one; only then is it
wrapped as a tensor. Whoever changes the file meanwhile changes nothing that was handed out, or is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from parentage.attest.trust import Trust
from parentage.manifest.errors import ParentageError, UsageError
from parentage.manifest.files import open_files
from parentage.manifest.hashing import default_threads
from parentage.manifest.model import Model, model_of
from parentage.manifest.tensor import Tensor, TensorSpec
from parentage.verify import integrity
from parentage.verify.claimed import begin, deciding, open_claimed
from parentage.verify.demands import Demands
from parentage.verify.reading import Reading, read_ahead
from parentage.verify.report import Report
from parentage.verify.signed import check_root
from parentage.verify.sources.cached import name_of
from parentage.verify.sources.place import is_place, parse_place
from parentage.verify.verdict import Verdict
from parentage.verify.wrapping import dtype_of, wrap

if TYPE_CHECKING:
    import torch

_MAX_FILE: Final = 256 << 20


class RefusedError(ParentageError):
    """A release, or a tensor of it, is not what was signed, or not by whom it must be.

    Attributes:
        report: all that was found; its exit code is this error's.
    """

    code = "refused"

    def __init__(self, report: Report) -> None:
        self.report = report
        self.exit_code = report.exit_code  # type: ignore[misc]  # of this refusal, not of the class
        first = next(iter(report.findings), None)
        super().__init__(
            f"{report.verdict}: {first.message}" if first else f"{report.verdict}",
            where=first.where if first else report.release,
            expected=first.expected if first else "",
            found=first.found if first else "",
            hint=(first.next if first else "") or f"parentage verify {report.release}",
        )


def load_verified(
    release: Path | str,
    *,
    trust: Trust,
    demands: Demands | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, torch.Tensor]:
    """Return the weights of a release, every tensor verified; nothing is returned unless all are.

    Args:
        release: its folder, a Hub cache snapshot, or "hf://org/name@revision", which is fetched first.
        trust: who may have signed it.
        demands: threads, progress, what is remembered; the recipe is not recomputed (`verify_release`).
        device: where the tensors go once they are verified.

    Raises:
        RefusedError: it is not what was signed; `report` says why.
        UsageError: there is no such folder.
        HubError: a subclass names why it can't be fetched.
        CannotRunError: torch is absent or has no such dtype, or the weights are no safetensors.
    """
    with Verified(release, trust=trust, demands=demands) as verified:
        return {name: tensor.to(device) for name, tensor in verified.items()}


def iter_verified(
    release: Path | str, *, trust: Trust, demands: Demands | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor), each one verified; memory is bounded by twice the largest tensor.

    Signature, lineage, policy, headers and all other files are checked before the first is yielded. A
    tensor that was yielded is the signed one, whatever becomes of the rest; raises as `load_verified`.
    """
    with Verified(release, trust=trust, demands=demands) as verified:
        yield from verified.items()


class Verified:
    """A release that is open: signature, lineage, policy, headers and all other files were checked.

    Its tensors are checked when they are read. `report` is `unproven` until all have been, then
    `verified`.
    """

    def __init__(
        self, release: Path | str, *, trust: Trust, demands: Demands | None = None
    ) -> None:
        """Open and check all but the tensors.

        Raises:
            RefusedError, UsageError, HubError, CannotRunError: as `load_verified`.
        """
        # The recipe is another question, with another answer: parentage verify.
        asked = msgspec.structs.replace(demands or Demands(), level="integrity", whole_files=False)
        folder = _at_hand(release, asked)
        self._state = begin(name_of(folder), trust, asked)
        self._left: set[str] = set()
        self._files = open_files(folder)
        try:
            with deciding(self._state):
                self._open()
            self._settle()
            self._dtypes = {t.spec.dtype: dtype_of(t) for t in self._model.tensors.values()}
        except BaseException:
            self._files.close()
            raise

    def _open(self) -> None:
        state = self._state
        claimed = open_claimed(state, self._files)
        model = model_of(self._files)
        checked = integrity.check_files(model, claimed.oms)
        threads, progress = state.demands.threads, state.demands.progress
        integrity.check_beside(
            checked, model, claimed.oms, claimed.table, threads=threads, progress=progress
        )
        state.report.coverage = checked.coverage
        state.report.root = {str(profile): root for profile, root in claimed.table.roots.items()}
        state.findings += checked.findings
        state.findings += check_root(claimed.lineage, claimed.table, state.report.release)
        state.not_checked.append("the recipe: nothing was recomputed")
        self._model, self._claimed, self._left = model, claimed, set(model.tensors)

    def _settle(self) -> None:
        """Refuse what does not hold, and say what is still to be read."""
        if not self.report.verified:
            raise RefusedError(self.report)
        if self._left:
            self.report.decide(Verdict.UNPROVEN)
            unread = f"{len(self._left)} of {len(self._model.tensors)} tensors: not read"
            self.report.not_checked = [*self._state.not_checked, unread]

    def __enter__(self) -> Self:
        """Return itself; leaving closes every file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close every file."""
        self._files.close()

    @property
    def report(self) -> Report:
        """What was found, so far."""
        return self._state.report

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """Dtype and shape of every tensor by its name, in the order of their bytes."""
        return {tensor.spec.name: tensor.spec for tensor in _in_order(self._model)}

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor and return it, verified.

        Raises:
            UsageError: there is none of that name.
            RefusedError: it is not the signed one.
        """
        if name not in self._model.tensors:
            raise UsageError("no such tensor", where=self.report.release, found=name)
        [(_, found)] = self._read([self._model.tensors[name]])
        return found

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor) in the order of the files, each verified; raises as `tensor`."""
        yield from self._read(_in_order(self._model))

    def read(self, name: str) -> bytes:
        """Return a file that holds no tensors, such as config.json: the signed bytes.

        Raises:
            UsageError: none of that name is signed, or it holds tensors.
            RefusedError: it is not the signed one.
        """
        signed = self._claimed.oms.resources.get(name)
        if signed is None or name in self._model.headers:
            raise UsageError("no such file is signed", where=self.report.release, found=name)
        with deciding(self._state):
            data = self._files.files[name].read_small(_MAX_FILE)
            found = hashlib.sha256(data).hexdigest()
            if found != signed:
                self._state.findings.append(integrity.file_finding(name, signed, found))
        self._settle()
        return data

    def _read(self, tensors: Sequence[Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        demands = self._state.demands
        for reading in read_ahead(
            self._model,
            tensors,
            self._claimed.profiles,
            threads=demands.threads or default_threads(),
            progress=demands.progress or (lambda _: None),
        ):
            spec = reading.tensor.spec
            self._check(reading)
            yield spec.name, wrap(spec, reading.buffer, self._dtypes[spec.dtype])

    def _check(self, reading: Reading) -> None:
        """Compare a tensor with the signed table."""
        name = reading.tensor.spec.name
        with deciding(self._state):
            line = self._claimed.table.tensors[name]
            wrong = integrity.tensor_finding(line, reading.identity())
            if wrong is not None:
                self._state.findings.append(wrong)
            self._left.discard(name)
            coverage = self.report.coverage
            coverage.tensors_checked = len(self._model.tensors) - len(self._left)
        self._settle()


def _at_hand(release: Path | str, demands: Demands) -> Path:
    """Return the folder of a release; what is on a Hub is fetched, as far as it was not before."""
    if isinstance(release, Path) or not is_place(release):
        return Path(release)
    from parentage.verify.sources import spool

    return spool.bring(parse_place(release), progress=demands.progress)


def _in_order(model: Model) -> list[Tensor]:
    """Return the tensors file by file, as their bytes lie: read so, a disk never goes back."""
    return [tensor for name in sorted(model.headers) for tensor in model.headers[name].tensors]
