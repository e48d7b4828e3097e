"""Keep a command from the network: with namespaces where this machine lets us, else by asking it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

Kind = Literal["bubblewrap", "unshare", "environment"]
#: Ask the usual libraries not to look for anything.
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
#: Ways to a network namespace without privileges, the preferred one first. unshare leaves loopback down.
_WRAPPERS: Final[tuple[tuple[Kind, tuple[str, ...]], ...]] = (
    ("bubblewrap", ("bwrap", "--unshare-net", "--die-with-parent", "--dev-bind", "/", "/", "--")),
    ("unshare", ("unshare", "--user", "--map-current-user", "--net", "--")),
)
_SECRET: Final = re.compile(r"TOKEN|SECRET|PASSW|PASSPHRASE|API_?KEY|PRIVATE_?KEY|_PIN$")
_LEAST: Final = 8


class Isolation(msgspec.Struct, frozen=True):
    """How a command is kept from the network.

    Attributes:
        kind: what statements call it.
        prefix: arguments before the command.
    """

    kind: Kind
    prefix: tuple[str, ...] = ()


def strongest() -> Isolation:
    """Return the strongest isolation that works here; it is tried, not guessed."""
    for kind, prefix in _WRAPPERS:
        found = shutil.which(prefix[0])
        if found is not None and _works((found, *prefix[1:])):
            return Isolation(kind, (found, *prefix[1:]))
    return Isolation("environment")


def _works(prefix: Sequence[str]) -> bool:
    try:
        done = subprocess.run(  # noqa: S603  (a program of this machine, and `true`)
            [*prefix, "true"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return a command's environment: without secrets, and told that there is no network."""
    kept = {name: value for name, value in given.items() if not _SECRET.search(name.upper())}
    return {**kept, **OFFLINE}


def secrets_in(arguments: Sequence[str], given: Mapping[str, str] = os.environ) -> list[int]:
    """Return which arguments hold a secret: one of the environment's, or what looks like a token."""
    known = [
        value
        for name, value in given.items()
        if _SECRET.search(name.upper()) and len(value) >= _LEAST
    ]
    looks = re.compile(
        r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|AKIA)[A-Za-z0-9_-]{16,}|-----BEGIN "
    )
    return [
        at
        for at, argument in enumerate(arguments)
        if looks.search(argument) or any(value in argument for value in known)
    ]
