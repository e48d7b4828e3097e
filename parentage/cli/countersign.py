"""`parentage countersign`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.saying import RELEASE, Voice, look, voice_options


@click.command(
    "countersign",
    epilog="\b\nExample:\n  parentage countersign ./rio SHA256 --key safe2.key --policy trust.yaml",
)
@click.argument("release", type=RELEASE)
@click.argument("payload", metavar="SHA256")
@voice_options
def command(release: Path, payload: str, voice: Voice) -> int:
    """Sign again, byte for byte, what somebody signed in RELEASE.

    A threshold counts signatures over the same bytes. SHA256 is the payload's, as the command that made
    it printed; "model.sig" and "lineage" name those two.
    """
    from parentage.attest.statements.shared import sha256
    from parentage.manifest.errors import UsageError

    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    found = {sha256(claim.opened.payload): claim.opened.payload for claim in place.claims.opened}
    found |= {
        "model.sig": place.signature.payload,
        sha256(place.signature.payload): place.signature.payload,
        "lineage": place.found.opened.payload,
    }
    if payload not in found:
        raise UsageError(
            "nobody believed here signed that",
            where=str(release),
            expected="the SHA-256 of a payload",
            found=payload,
            hint="parentage trust explain POLICY RELEASE",
        )
    voice.say([release], found[payload], signing)
    return 0
