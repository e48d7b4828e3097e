"""`parentage affirm`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.saying import RELEASE, Voice, look, statement_option, voice_options


@click.command(
    "affirm", epilog="\b\nExample:\n  parentage affirm ./rio --for 30d --key release.key"
)
@click.argument("release", type=RELEASE)
@click.option(
    "--for", "duration", default="30d", show_default=True, metavar="TIME",
    help="How long it holds: hours or days (12h, 30d).",
)  # fmt: skip
@statement_option
@voice_options
def command(release: Path, duration: str, statement: str, voice: Voice) -> int:
    """Say that RELEASE is current, until a date.

    A gate that demands freshness refuses a release whose last affirmation has ended, so leaving out a
    withdrawal gains nothing for long.
    """
    import msgspec

    from parentage.attest import clock
    from parentage.attest.speaking import following
    from parentage.attest.statements import status
    from parentage.manifest.errors import UsageError

    try:
        length = clock.length(msgspec.convert(duration, clock.Duration))
    except msgspec.ValidationError as error:
        raise UsageError("not a length of time", expected="12h, 30d", found=duration) from error
    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    sequence, previous = following(place.about, place.claims.opened)
    now = clock.now()
    payload = status.build(
        place.about,
        status.Status(
            state="current",
            sequence=sequence,
            previous=previous,
            effective_at=clock.to_text(now),
            valid_until=clock.to_text(now + length),
            statement=statement,
        ),
    )
    voice.say([release], payload, signing)
    return 0
