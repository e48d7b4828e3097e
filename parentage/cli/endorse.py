"""`parentage endorse`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.saying import RELEASE, Voice, look, statement_option, voice_options


@click.command(
    "endorse",
    epilog="\b\nExample:\n  parentage endorse ./rio --key hub.key --publisher release.pub",
)
@click.argument("release", type=RELEASE)
@statement_option
@voice_options
def command(release: Path, statement: str, voice: Voice) -> int:
    """Stand by the lineage of RELEASE: as a parent's publisher, as a hub, as a lab.

    Endorsements without a statement of their own are the same bytes, so that they can be counted.
    """
    from parentage.attest.statements import endorsement

    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    payload = endorsement.build(place.about.lineage, endorsement.Endorsement(statement=statement))
    voice.say([release], payload, signing)
    return 0
