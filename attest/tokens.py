"""Where an identity token comes from: a file, the CI system, or a person in a browser.

A token is asked for when it is needed, since it lives for minutes and hashing a model takes longer.
It never reaches an argument, a message or a log.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from parentage.attest.keyless_trust import needing_sigstore
from parentage.manifest.errors import KeylessError

#: Given the client trust config, which names the OpenID provider.
TokenSource = Callable[[bytes], str]
_MAX: Final = 64 << 10
_SHAPE: Final = re.compile(r"[A-Za-z0-9_=-]+(\.[A-Za-z0-9_=-]+){2}")
#: How long a person has to sign in.
_IN_BROWSER: Final = 300.0


def of_file(path: Path) -> TokenSource:
    """Read the token from a file, each time that one is needed."""

    def read(_config: bytes) -> str:
        try:
            with path.open("rb") as stream:
                text = stream.read(_MAX).decode("ascii", "replace").strip()
        except OSError as error:
            raise KeylessError(
                f"identity token can't be read: {error.strerror}", where=str(path)
            ) from error
        if not _SHAPE.fullmatch(text):
            raise KeylessError("not an identity token", where=str(path), expected="a JWT, one line")
        return text

    return read


def found_here(*, patience: float, interactive: bool) -> TokenSource:
    """Take the CI system's token; where there is no such system, let a person sign in."""

    def find(config: bytes) -> str:
        with needing_sigstore():
            from parentage.attest import keyless
            from parentage.attest.patience import Deadline

        token = keyless.ambient_token(Deadline(patience))
        if token is not None:
            return token
        if not interactive:
            raise KeylessError(
                "no identity here",
                expected="a CI system that gives identity tokens, or a person to ask",
                hint="--identity-token-file FILE; in GitHub Actions: permissions: id-token: write",
            )
        return keyless.browser_token(config, Deadline(_IN_BROWSER))

    return find
