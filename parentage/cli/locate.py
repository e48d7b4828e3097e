"""`parentage locate`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.saying import RELEASE, Voice, look, voice_options


@click.command(
    "locate",
    epilog="\b\nExample:\n  parentage locate ./rio --at pkg:huggingface/acme/rio@COMMIT --key release.key",
)
@click.argument("release", type=RELEASE)
@click.option("--at", "purl", required=True, metavar="PURL", help="Package URL with its version.")
@click.option("--release-id", default="", help="The registry's own number, that survives renames.")
@voice_options
def command(release: Path, purl: str, release_id: str, voice: Voice) -> int:
    """Say where RELEASE lies: which files a repository holds at a revision (in-toto release)."""
    from parentage.attest import oms
    from parentage.attest.statements import release as releases
    from parentage.manifest.errors import StatementError, UsageError

    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    files = oms.parse(place.signature.statement).resources
    try:
        payload = releases.build(files, releases.Release(purl=purl, release_id=release_id))
    except StatementError as error:
        raise UsageError(error.what, where="--at", expected=error.expected, found=purl) from error
    voice.say([release], payload, signing)
    return 0
