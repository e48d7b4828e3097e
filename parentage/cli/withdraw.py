"""`parentage withdraw`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parentage.cli.saying import (
    RELEASE,
    Voice,
    ending,
    look,
    reason_option,
    since_option,
    statement_option,
    voice_options,
)

if TYPE_CHECKING:
    from parentage.attest.statements.shared import Reason


@click.command(
    "withdraw",
    epilog="""\b
Examples:
  parentage withdraw ./rio --key release.key --reason license
  parentage withdraw ./rio --key safe1.key --policy trust.yaml --reason key-compromise \\
      --since 2026-06-14T09:00:00Z
  parentage countersign ./rio SHA256 --key safe2.key --policy trust.yaml""",
)
@click.argument("release", type=RELEASE)
@reason_option
@statement_option
@since_option
@voice_options
def command(release: Path, reason: Reason, statement: str, since: str | None, voice: Voice) -> int:
    """Say that RELEASE must not be used any more.

    It counts if you signed the release, or if the verifier's policy lists you as a successor or for
    recovery. What was claimed stays readable.
    """
    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    payload = ending(place, "withdrawn", reason=reason, statement=statement, since=since)
    voice.say([release], payload, signing)
    return 0
