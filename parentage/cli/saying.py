"""What the commands share that say something about a release: who says it, of what, and where it goes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from parentage.cli.shared import (
    FILE,
    emit,
    json_option,
)
from parentage.cli.signing import SigningChoice, signing_options
from parentage.cli.trusting import TrustChoice

if TYPE_CHECKING:
    from parentage.attest.claims import Claims, Found
    from parentage.attest.opening import Opened
    from parentage.attest.roles import Believed
    from parentage.attest.statements.shared import About, Reason, Release
    from parentage.attest.statements.status import State
    from parentage.attest.trust import Trust
    from parentage.cli.signing import Signing

RELEASE = click.Path(path_type=Path, exists=True, file_okay=False)
REASONS: Final = click.Choice(
    ["wrong-artifact", "undisclosed-parent", "license", "security", "key-compromise", "other"]
)
statement_option = click.option("--statement", default="", help="What people should know.")
reason_option = click.option("--reason", type=REASONS, required=True, help="Why.")
since_option = click.option(
    "--since", metavar="TIME",
    help="From when it holds (2026-06-14T09:00:00Z; default: now). Of a stolen key: since when.",
)  # fmt: skip


def since_or_now(text: str | None) -> str:
    """Return a time as statements write it.

    Raises:
        UsageError: another spelling.
    """
    from parentage.attest import clock
    from parentage.manifest.errors import StatementError, UsageError

    if text is None:
        return clock.to_text(clock.now())
    try:
        return clock.to_text(clock.parse_time(text, "--since"))
    except StatementError as error:
        raise UsageError(
            error.what, where="--since", expected=error.expected, found=text
        ) from error


class Place(msgspec.Struct, frozen=True):
    """A release whose signature and lineage verified; its weights were not looked at.

    Attributes:
        believed: whom.
        signature: model.sig.
        found: the lineage.
        claims: all lines.
    """

    believed: Believed
    signature: Opened
    found: Found
    claims: Claims

    @property
    def about(self) -> About:
        """How a status or a dispute names it."""
        from parentage.attest.statements.shared import About, sha256

        return About(sha256(self.found.opened.payload), self.signature.statement.subjects[0].sha256)

    def named(self, uri: str = "") -> Release:
        """Return its full digests."""
        from parentage.attest.statements.shared import Release

        root = self.found.lineage.weights.root
        return Release(lineage=self.about.lineage, model=self.about.model, weights=root, uri=uri)


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """Who says it, whom they believe about the release, and where it goes."""

    policy: Path | None
    publishers: tuple[Path, ...]
    output: Path | None
    as_json: bool
    signing: SigningChoice = SigningChoice()

    def trust(self, own: Trust) -> Trust:
        """Return whom to believe about the release: as said, or the signer itself."""
        if self.policy is None and not self.publishers:
            return own
        return TrustChoice(keys=self.publishers, policy=self.policy).build()

    def say(self, releases: Sequence[Path], payload: bytes, signing: Signing) -> None:
        """Sign, write and print."""
        from parentage.attest.speaking import sign
        from parentage.attest.statement import parse_statement
        from parentage.attest.statements.shared import sha256

        written = self.put(releases, sign(payload, signing.signer, signing.trust))
        if self.as_json:
            found = parse_statement(payload, "statement")
            emit({"schema": "https://parentage.dev/said/v0.1", "payload": sha256(payload),
                  "predicateType": found.predicate_type, "predicate": found.predicate,
                  "writtenTo": written})  # fmt: skip
            return
        click.echo(f"signed {sha256(payload)}")
        for path in written:
            click.echo(f"in     {path}")

    def put(self, releases: Sequence[Path], line: bytes) -> list[str]:
        """Write a signed statement to its file or to releases' claims; return where it is."""
        from parentage.attest.speaking import append
        from parentage.manifest.atomic import write_bytes

        if self.output is not None:
            write_bytes(self.output, line)
            return [str(self.output)]
        for release in releases:
            append(release, [line])
        return [f"{r}/.parentage/claims.jsonl" for r in releases]


def look(release: Path, trust: Trust) -> Place:
    """Open signature and lineage of a release, as one that a statement may be about."""
    from parentage.attest.claims import choose_lineage, read_claims
    from parentage.attest.roles import believed as as_believed
    from parentage.manifest.files import open_files
    from parentage.verify.signed import open_signature

    believed = as_believed(trust)
    with open_files(release) as files:
        signature = open_signature(files, believed)
        claims = read_claims(files, believed)
        return Place(believed, signature, choose_lineage(files, signature, claims), claims)


def ending(
    place: Place,
    state: State,
    *,
    reason: Reason,
    statement: str,
    since: str | None,
    superseded_by: tuple[Release, ...] = (),
) -> bytes:
    """Return the payload of the status that says that a release is not to be used any more."""
    from parentage.attest.speaking import following
    from parentage.attest.statements import status
    from parentage.attest.statements.shared import Digest

    sequence, previous = following(place.about, place.claims.opened)
    false = (Digest(sha256=place.about.lineage),) if reason in status.FALSE else ()
    return status.build(
        place.about,
        status.Status(
            state=state,
            sequence=sequence,
            previous=previous,
            effective_at=since_or_now(since),
            reason=reason,
            statement=statement,
            superseded_by=superseded_by,
            false_claims=false,
        ),
    )


_OPTIONS: Final = (
    click.option("--policy", type=FILE, help="Trust policy (YAML): whose release it is."),
    click.option(
        "--publisher", "publishers", type=FILE, multiple=True,
        help="Public key (PEM) that signed the release, where it is not yours; or --policy.",
    ),
    click.option(
        "-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
        help="Write the statement here instead of adding it to the release.",
    ),
    json_option,
)  # fmt: skip


def voice_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of whoever speaks, as one argument `voice`."""

    @functools.wraps(command)
    def gathering(*arguments: Any, **options: Any) -> int:  # noqa: ANN401
        own = {name: options.pop(name) for name in Voice.__struct_fields__}
        return command(*arguments, voice=Voice(**own), **options)

    found = signing_options(gathering)
    for option in reversed(_OPTIONS):
        found = option(found)
    return found
