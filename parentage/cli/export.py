"""`parentage export`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.places import SOURCE, Given, at_hand, loose_parents, parent_option
from parentage.cli.shared import (
    device_option,
    emit,
    json_option,
    progress,
    rung_option,
    show_report,
    threads_option,
)
from parentage.cli.trusting import TrustChoice, trust_options


@click.command(
    "export",
    epilog="""\b
Examples:
  parentage export ./rio --format cyclonedx --key release.pub -o rio.cdx.json
  parentage export ./rio --format slsa --key release.pub
  parentage export ./rio --format svr --key release.pub --verifier-id https://lab.example/v1 \\
      --parent ./nex --parent ./qwen

\b
Exit codes: as `parentage verify`; a document is written for 0 alone.""",
)
@click.argument("release", type=SOURCE)
@click.option(
    "--format",
    "form",
    type=click.Choice(["slsa", "cyclonedx", "svr"]),
    required=True,
    help="SLSA provenance v1, CycloneDX 1.7, or a simple verification result v0.2.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Default: stdout."
)
@trust_options
@parent_option
@rung_option
@click.option(
    "--verifier-id", "verifier", default="", metavar="URI", help="With svr: who verifies."
)
@device_option
@threads_option
@json_option
def command(
    release: Given,
    form: str,
    output: Path | None,
    trusted: TrustChoice,
    parents: tuple[str, ...],
    rung: str,
    verifier: str,
    device: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Verify RELEASE and derive a document for other tools from its signed lineage.

    Every file and tensor is compared with what is signed; with --parent, the recipe is recomputed.
    The document is not signed, and the lineage stays the record.
    """
    from parentage.manifest.atomic import write_bytes
    from parentage.verify.demands import Demands
    from parentage.verify.exports import export_release

    given = loose_parents(parents, quiet=as_json)
    # With parents, the release is read twice: for its digests, and beside what is recomputed.
    folder = at_hand(release, quiet=as_json)
    reads = [folder, *([folder] if given else []), *(path for _, path in given)]
    with progress("export", quiet=as_json, reads=reads) as bar:
        report, document = export_release(
            folder,
            form,
            trust=trusted.build(),
            parents=given,
            demands=Demands(
                level="recompute" if given else "integrity",
                rung=rung,  # type: ignore[arg-type]  # click checked the choice
                device=device,
                threads=threads,
                progress=bar,
            ),
            verifier=verifier,
        )
    if not document:
        show_report(report, as_json=as_json)
        return report.exit_code
    if output is None:
        click.echo(document, nl=False)
        return 0
    write_bytes(output, document)
    if as_json:
        emit(
            {"schema": "https://parentage.dev/export/v0.1", "format": form, "written": str(output)}
        )
    else:
        click.echo(f"wrote {output}")
    return 0
