"""torch imported without what no command uses: a third of the time that it takes.

Only in a process of our own: a program that imports `parentage` gets all of torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Final

#: Shapes of operations on tensors without data, for tracing and compiling models.
_UNUSED: Final = "torch._meta_registrations"
#: numpy, which torch imports, starts a thread for each further core, and that spins.
_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"


def import_lean() -> None:
    """Have torch, if it is imported in this process, leave out what is not used."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Lean(spec.loader)
        return spec


class _Lean(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        with _without_unused(module), _one_blas_thread():
            self._loader.exec_module(module)


@contextmanager
def _without_unused(torch: ModuleType) -> Iterator[None]:
    empty = sys.modules[_UNUSED] = ModuleType(_UNUSED)
    try:
        yield
    finally:
        # Whoever asks for it later gets the real one.
        if sys.modules.get(_UNUSED) is empty:
            del sys.modules[_UNUSED]
        vars(torch).pop(_UNUSED.rpartition(".")[2], None)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    if _BLAS_THREADS in os.environ:
        yield
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS_THREADS]
