"""`parentage attest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parentage.cli.places import (
    SOURCE,
    Given,
    all_at_hand,
    ancestor_option,
    at_hand,
    loose_parents,
    parent_option,
)
from parentage.cli.shared import (
    FILE,
    device_option,
    emit,
    json_option,
    level_option,
    passphrase_option,
    progress,
    rung_option,
    show_report,
    threads_option,
)
from parentage.cli.signing import SigningChoice
from parentage.cli.trusting import TrustChoice, trust_options
from parentage.manifest.errors import UsageError

if TYPE_CHECKING:
    from parentage.verify.attesting import Attested


@click.command(
    "attest",
    epilog="""\b
Examples:
  parentage attest ./rio --key release.pub --parent ./nex --parent ./qwen --sign-key verifier.key
  parentage attest ./rio --policy trust.yaml --level integrity --sign-key gate.key -o rio.vsa.jsonl

\b
Exit codes: as `parentage verify`. What was refuted or denied is signed only into -o FILE; what is
undecided is not signed at all.""",
)
@click.argument("release", type=SOURCE)
@trust_options
@parent_option
@ancestor_option
@level_option
@rung_option
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="Compare N chunks of 1 MiB drawn at random, and say no more than that.",
)
@click.option("--sign-key", type=FILE, required=True, help="The verifier's private key.")
@passphrase_option
@click.option(
    "--verifier-id", default="", metavar="URI", help="Who verifies; default: made from the key."
)
@click.option(
    "--resource", default="", metavar="URI", help="What was verified, such as a package URL."
)
@click.option("--policy-uri", default="", metavar="URI", help="Where the policy can be read.")
@click.option(
    "--evidence",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what was found of each tensor: the document that the statement has the digest of.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the statements here instead of adding them to the release.",
)
@device_option
@threads_option
@json_option  # fmt: skip
def command(
    release: Given,
    trusted: TrustChoice,
    parents: tuple[str, ...],
    ancestors: tuple[Given, ...],
    level: str,
    rung: str,
    sample: int | None,
    sign_key: Path,
    passphrase_file: Path | None,
    verifier_id: str,
    resource: str,
    policy_uri: str,
    evidence: Path | None,
    output: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Verify RELEASE and sign what was found: a recompute statement, and a summary (SLSA VSA).

    The signer must be another than the publisher.
    """
    from parentage.verify.attesting import Verifier, attest
    from parentage.verify.demands import Demands
    from parentage.verify.way import Way

    signing = SigningChoice(key=sign_key, passphrase_file=passphrase_file).build()
    given = loose_parents(parents, quiet=as_json)
    folder = at_hand(release, quiet=as_json)
    if not isinstance(release, Path) and output is None:
        raise UsageError(
            "a statement can't be added to what is on a Hub",
            where=str(release),
            hint="-o FILE, and upload its lines in .parentage/claims.jsonl",
        )
    reads = [folder, *(path for _, path in given), *([folder] if level == "recompute" else [])]
    with progress("attest", quiet=as_json, reads=reads) as bar:
        attested = attest(
            folder,
            Verifier(
                signer=signing.signer,
                trust=signing.trust,
                id=_uri(verifier_id),
                resource=_uri(resource),
                policy=_uri(policy_uri),
            ),
            trust=trusted.build(),
            parents=given,
            demands=Demands(
                level=level,  # type: ignore[arg-type]  # click checked the choice
                rung=rung,  # type: ignore[arg-type]
                device=device,
                threads=threads,
                progress=bar,
                way=Way(sample=sample),
                ancestors=all_at_hand(ancestors, "claims", quiet=as_json),
            ),
        )
    return _write(folder, attested, evidence, output, as_json=as_json)


def _write(
    release: Path, attested: Attested, evidence: Path | None, output: Path | None, *, as_json: bool
) -> int:
    from parentage.attest import bundle
    from parentage.attest.bundle import CLAIMS
    from parentage.attest.speaking import append
    from parentage.attest.statement import parse_statement
    from parentage.attest.statements.shared import sha256
    from parentage.manifest.atomic import write_bytes

    report, written = attested.report, ""
    if evidence is not None and attested.evidence:
        write_bytes(evidence, attested.evidence)
    lines = attested.lines if output is not None else attested.fit
    if lines and output is not None:
        write_bytes(output, b"".join(lines))
        written = str(output)
    elif lines:
        append(release, lines)
        written = str(release / CLAIMS)
    payloads = [bundle.parse(line, "signed").payload for line in lines]
    said = {sha256(p): parse_statement(p, "signed").predicate_type for p in payloads}
    if as_json:
        emit({"schema": "https://parentage.dev/attested/v0.1", "report": report, "writtenTo": written,
              "statements": [{"payload": p, "predicateType": kind} for p, kind in said.items()]})  # fmt: skip
        return report.exit_code
    show_report(report, as_json=False)
    click.echo("")
    for payload, kind in said.items():
        click.echo(f"signed {kind} {payload}")
    click.echo(f"in     {written}" if written else "nothing was signed")
    return report.exit_code


def _uri(text: str) -> str:
    scheme, colon, rest = text.partition(":")
    if text and not (colon and rest and scheme.isidentifier() and text.isprintable()):
        raise UsageError("not a URI", expected="https://lab.example/verifier", found=text)
    return text
