"""torch as commands import it: less of it, and nothing that stays behind."""

from __future__ import annotations

import subprocess
import sys

LEAN = "from parentage.cli import torch_import; torch_import.import_lean()\n"


def printed(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_what_no_command_uses_is_left_out_and_still_there_for_others() -> None:
    code = """
import os, sys, torch
print("torch._meta_registrations" in sys.modules, hasattr(torch, "_meta_registrations"))
print("OPENBLAS_NUM_THREADS" in os.environ, type(torch.__loader__).__name__)
import torch._meta_registrations as late
print(late.__file__ is not None, torch.ones(3).sum().item())
"""
    assert printed(LEAN + code) == ["False", "False", "False", "SourceFileLoader", "True", "3.0"]


def test_a_number_of_threads_that_somebody_chose_stays() -> None:
    code = "import os; os.environ['OPENBLAS_NUM_THREADS'] = '7'\n" + LEAN
    assert printed(code + "import torch; print(os.environ['OPENBLAS_NUM_THREADS'])") == ["7"]


def test_otherwise_it_is_there() -> None:
    assert printed("import sys, torch; print('torch._meta_registrations' in sys.modules)") == [
        "True"
    ]


def test_once_torch_is_imported_nothing_is_done() -> None:
    code = "import sys, torch\nbefore = list(sys.meta_path)\n" + LEAN
    assert printed(code + "print(sys.meta_path == before)") == ["True"]
