"""`parentage oms sign` and `parentage oms verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parentage.cli.formatting import FormatChoice, format_options, placed
from parentage.cli.shared import emit, json_option, progress, threads_option
from parentage.cli.signing import SigningChoice, signing_options
from parentage.cli.trusting import TrustChoice, trust_options
from parentage.manifest.errors import UsageError

if TYPE_CHECKING:
    from parentage.attest.oms_sign import SignedModel

_MODEL = click.Path(path_type=Path)
_FILE_TO_BE = click.Path(path_type=Path, dir_okay=False)
_IGNORE_HELP = "File or folder to leave out: an exact path, below MODEL; repeat for more."

signature_option = click.option(
    "--signature",
    type=_FILE_TO_BE,
    help="The bundle; by default MODEL/model.sig, or FILE.sig beside a file.",
)
ignore_option = click.option(
    "--ignore-paths", "ignore_paths", multiple=True, metavar="PATH", help=_IGNORE_HELP
)
uncovered_option = click.option(
    "--allow-uncovered",
    is_flag=True,
    help="Let files that loaders read (weights, code, config, tokenizer) go uncovered.",
)


@click.group(
    "oms",
    epilog="""\b
Examples:
  parentage oms sign ./model --key release.key
  parentage oms verify ./model --key release.pub --json""",
)
def command() -> None:
    """OpenSSF Model Signing v1.0: the files of any model, without tensors or lineage."""


@command.command(
    "sign",
    epilog="""\b
Examples:
  parentage oms sign ./model --key release.key
  parentage oms sign model.gguf --key release.key --method shards --hash blake3""",
)
@click.argument("model", type=_MODEL)
@signing_options
@signature_option
@click.option(
    "--method",
    type=click.Choice(["files", "shards"]),
    default="files",
    show_default=True,
    help="Hash whole files, or shards of them side by side.",
)
@click.option("--shard-size", type=click.IntRange(1), help="Bytes of a shard (default: 10^9).")
@click.option(
    "--hash",
    "hash_type",
    type=click.Choice(["sha256", "blake2b", "blake3"]),
    default="sha256",
    show_default=True,
    help="Every verifier has SHA-256; the others are optional in the specification.",
)
@ignore_option
@click.option(
    "--allow-symlinks", is_flag=True, help="Links to files inside MODEL stand for those files."
)
@uncovered_option
@threads_option
@json_option
def sign(
    model: Path,
    signing: SigningChoice,
    signature: Path | None,
    method: str,
    shard_size: int | None,
    hash_type: Any,  # noqa: ANN401  (click checked the choice)
    ignore_paths: tuple[str, ...],
    allow_symlinks: bool,
    allow_uncovered: bool,
    threads: int | None,
    as_json: bool,
) -> int:
    """Sign MODEL, a folder or one file."""
    from parentage.attest.oms import SHARD_BYTES
    from parentage.attest.oms_sign import How, sign_model

    if shard_size is not None and method != "shards":
        raise UsageError("--shard-size belongs to --method shards")
    how = How(
        hash_type=hash_type,
        shard_size=(shard_size or SHARD_BYTES) if method == "shards" else 0,
        ignore_paths=ignore_paths,
        allow_symlinks=allow_symlinks,
        allow_uncovered=allow_uncovered,
    )
    chosen = signing.build()
    with progress("sign", quiet=as_json, reads=[model]) as bar:
        signed = sign_model(
            model,
            chosen.signer,
            chosen.trust,
            signature=signature,
            how=how,
            threads=threads,
            progress=bar,
        )
    if as_json:
        emit(_document(signed))
        return 0
    click.echo(f"signed   {signed.signature} as {signed.signer}")
    click.echo(f"covered  {signed.cover.describe()}")
    click.echo(f"next     parentage oms verify {model} {signing.verified_with(signed.signer)}")
    return 0


def _document(signed: SignedModel) -> dict[str, Any]:
    from parentage.verify.integrity import Coverage
    from parentage.verify.report import signed_by

    return {
        "signature": str(signed.signature),
        "root": signed.oms.root,
        "signer": signed_by(signed.signer),
        "method": signed.oms.method,
        "hashType": signed.oms.hash_type,
        "coverage": Coverage.of(signed.cover),
    }


@command.command(
    "verify",
    epilog="""\b
Examples:
  parentage oms verify ./model --key release.pub
  parentage oms verify ./model --key release.pub --signature ../model.sig --json

\b
Exit codes: 0 verified, 1 refuted, 2 usage, 3 unsigned.""",
)
@click.argument("model", type=_MODEL)
@trust_options
@signature_option
@ignore_option
@click.option(
    "--ignore-unsigned-files",
    is_flag=True,
    help="Files that are not signed may lie in MODEL, but none that loaders read.",
)
@uncovered_option
@click.option(
    "--legacy-oms", is_flag=True, help="Read what model_signing 0.2.0 to 1.0.1 wrote, too."
)
@threads_option
@format_options
def verify(
    model: Path,
    trusted: TrustChoice,
    signature: Path | None,
    ignore_paths: tuple[str, ...],
    ignore_unsigned_files: bool,
    allow_uncovered: bool,
    legacy_oms: bool,
    threads: int | None,
    formatted: FormatChoice,
) -> int:
    """Check MODEL, a folder or one file, against its signature; and say what it does not cover."""
    from parentage.attest.bundle import MODEL_SIG
    from parentage.verify.oms_check import OmsDemands, verify_oms

    if trusted.policy is not None:
        raise UsageError(
            "a policy always asks for a lineage, which is not looked at here",
            hint=f"parentage verify {model} --policy {trusted.policy}",
        )
    trust = trusted.build()
    with progress("verify", quiet=formatted.quiet, reads=[model]) as bar:
        report = verify_oms(
            model,
            trust=trust,
            signature=signature,
            demands=OmsDemands(
                ignore_paths=ignore_paths,
                ignore_unsigned=ignore_unsigned_files,
                allow_uncovered=allow_uncovered,
                legacy=legacy_oms,
                threads=threads,
                progress=bar,
            ),
        )
    return formatted.show(placed(report.shown(), model, "README.md", MODEL_SIG))
