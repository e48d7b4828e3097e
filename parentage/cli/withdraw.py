"""`parentage withdraw`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.saying import (
    RELEASE,
    Voice,
    look,
    reason_option,
    since_option,
    since_or_now,
    statement_option,
    voice_options,
)


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
def command(release: Path, reason: str, statement: str, since: str | None, voice: Voice) -> int:
    """Say that RELEASE must not be used any more.

    It counts if you signed the release, or if the verifier's policy lists you as a successor or for
    recovery. What was claimed stays readable.
    """
    from parentage.attest.speaking import following
    from parentage.attest.statements import status
    from parentage.attest.statements.shared import Digest

    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    sequence, previous = following(place.about, place.claims.opened)
    false = reason in {"wrong-artifact", "undisclosed-parent"}
    payload = status.build(
        place.about,
        status.Status(
            state="withdrawn",
            sequence=sequence,
            previous=previous,
            effective_at=since_or_now(since),
            reason=reason,  # type: ignore[arg-type]  # click checked the choice
            statement=statement,
            false_claims=(Digest(sha256=place.about.lineage),) if false else (),
        ),
    )
    voice.say([release], payload, signing)
    return 0
