"""`parentage supersede`."""

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
    "supersede",
    epilog="\b\nExample:\n  parentage supersede ./rio --by ./rio-fixed --reason wrong-artifact --key release.key",
)
@click.argument("release", type=RELEASE)
@click.option(
    "--by", "new", type=RELEASE, required=True, help="The release that replaces it, signed."
)
@click.option("--uri", default="", help="Where the new one will be found; a hint.")
@reason_option
@statement_option
@since_option
@voice_options
def command(
    release: Path,
    new: Path,
    uri: str,
    reason: Reason,
    statement: str,
    since: str | None,
    voice: Voice,
) -> int:
    """Say that another release replaces RELEASE.

    The statement goes into both: into the old one as its status, and into the new one as the
    announcement that a verifier with a lock file asks for.
    """
    from parentage.attest.speaking import announcements, append
    from parentage.manifest.errors import UsageError

    signing = voice.signing.build()
    trust = voice.trust(signing.trust)
    old, place = look(release, trust), look(new, trust)
    if old.about == place.about:
        raise UsageError("a release can't replace itself", where=str(new))
    payload = ending(
        old,
        "superseded",
        reason=reason,
        statement=statement,
        since=since,
        superseded_by=(place.named(uri),),
    )
    # The chain is carried along: who remembers an older release follows it to this one.
    known = {claim.sha256 for claim in place.claims.opened}
    carried = [claim for claim in old.claims.opened if claim.sha256 not in known]
    lines = announcements(release, carried)
    voice.say([release, new], payload, signing)
    if lines and voice.output is None:
        append(new, lines)
    return 0
