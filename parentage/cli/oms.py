"""`parentage oms sign` and `parentage oms verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parentage.cli.shared import (
    COLOURS,
    FILE,
    coloured,
    emit,
    json_option,
    key_option,
    load_key,
    passphrase_option,
    progress,
    threads_option,
)
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
@key_option
@passphrase_option
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
    key_path: Path,
    passphrase_file: Path | None,
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
    from parentage.attest.signer import KeySigner
    from parentage.attest.trust import TrustedKeys

    if shard_size is not None and method != "shards":
        raise UsageError("--shard-size belongs to --method shards")
    how = How(
        hash_type=hash_type,
        shard_size=(shard_size or SHARD_BYTES) if method == "shards" else 0,
        ignore_paths=ignore_paths,
        allow_symlinks=allow_symlinks,
        allow_uncovered=allow_uncovered,
    )
    key = load_key(key_path, passphrase_file)
    with progress("sign", quiet=as_json, reads=[model]) as bar:
        signed = sign_model(
            model,
            KeySigner(key),
            TrustedKeys((key.public,)),
            signature=signature,
            how=how,
            threads=threads,
            progress=bar,
        )
    if as_json:
        emit(_document(signed))
        return 0
    click.echo(f"signed   {signed.signature} with {str(signed.signer)[:20]}…")
    click.echo(f"covered  {signed.cover.describe()}")
    return 0


def _document(signed: SignedModel) -> dict[str, Any]:
    from parentage.verify.integrity import Coverage

    return {
        "signature": str(signed.signature),
        "root": signed.oms.root,
        "signer": str(signed.signer),
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
@click.option(
    "--key",
    "keys",
    type=FILE,
    multiple=True,
    required=True,
    help="Trusted public key (PEM); repeat for more.",
)
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
@json_option
def verify(
    model: Path,
    keys: tuple[Path, ...],
    signature: Path | None,
    ignore_paths: tuple[str, ...],
    ignore_unsigned_files: bool,
    allow_uncovered: bool,
    legacy_oms: bool,
    threads: int | None,
    as_json: bool,
) -> int:
    """Check MODEL, a folder or one file, against its signature; and say what it does not cover."""
    from parentage.attest.keys import PublicKey
    from parentage.attest.trust import TrustedKeys
    from parentage.verify.oms_check import OmsDemands, verify_oms
    from parentage.verify.oms_report import to_text

    with progress("verify", quiet=as_json, reads=[model]) as bar:
        report = verify_oms(
            model,
            trust=TrustedKeys(tuple(PublicKey.load(path) for path in keys)),
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
    if as_json:
        emit(report)
        return report.exit_code
    word = report.verdict.value.upper()
    click.echo(coloured(word, COLOURS[word]) + to_text(report).removeprefix(word))
    return report.exit_code
