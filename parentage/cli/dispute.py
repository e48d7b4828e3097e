"""`parentage dispute`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parentage.cli.saying import (
    RELEASE,
    Voice,
    look,
    reason_option,
    statement_option,
    voice_options,
)
from parentage.cli.shared import FILE

if TYPE_CHECKING:
    from parentage.attest.statements.dispute import CounterRecipe
    from parentage.attest.statements.shared import Evidence


@click.command(
    "dispute",
    epilog="""\b
Example:
  parentage dispute ./rio --key nex.key --publisher release.pub --reason undisclosed-parent \\
      --counter recipe.json --evidence report.json""",
)
@click.argument("release", type=RELEASE)
@reason_option
@statement_option
@click.option(
    "--claim", default="", metavar="SHA256", help="Payload that is disputed (default: the lineage)."
)
@click.option(
    "--counter", type=FILE,
    help="Another account: a JSON file with parents and recipe, as in a lineage.",
)  # fmt: skip
@click.option(
    "--evidence",
    "evidence",
    type=FILE,
    multiple=True,
    help="A document, by digest; repeat for more.",
)
@voice_options
def command(
    release: Path,
    reason: str,
    statement: str,
    claim: str,
    counter: Path | None,
    evidence: tuple[Path, ...],
    voice: Voice,
) -> int:
    """Disagree with what RELEASE claims, and say why.

    It is shown to everybody who verifies. It denies a release only where a policy listens to you.
    """
    from parentage.attest.statements import dispute
    from parentage.attest.statements.shared import Digest

    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    payload = dispute.build(
        place.about,
        dispute.Dispute(
            claim=Digest(sha256=_digest(claim) or place.about.lineage),
            reason=reason,  # type: ignore[arg-type]  # click checked the choice
            statement=statement,
            counter=_counter(counter),
            evidence=tuple(map(_evidence, evidence)),
        ),
    )
    voice.say([release], payload, signing)
    return 0


def _digest(text: str) -> str:
    from parentage.manifest.errors import UsageError

    if text and (len(text) != 64 or set(text) - set("0123456789abcdef")):
        raise UsageError("not a SHA-256", expected="64 hex digits", found=text)
    return text


def _counter(path: Path | None) -> CounterRecipe | None:
    import msgspec

    from parentage.attest.statements.dispute import CounterRecipe
    from parentage.manifest import canonical
    from parentage.manifest.errors import StatementError

    if path is None:
        return None
    with path.open("rb") as stream:
        data = stream.read(canonical.MAX_BYTES + 1)
    try:
        return msgspec.convert(canonical.loads(data, where=str(path)), CounterRecipe)
    except msgspec.ValidationError as error:
        raise StatementError(f"not parents and a recipe: {error}", where=str(path)) from error


def _evidence(path: Path) -> Evidence:
    import hashlib

    from parentage.attest.statements.shared import Evidence

    with path.open("rb") as stream:
        return Evidence(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), uri=path.name)
