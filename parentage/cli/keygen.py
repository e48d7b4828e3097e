"""`parentage keygen`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from parentage.cli.shared import ask_passphrase, emit, json_option, passphrase_option


@click.command(
    "keygen",
    epilog="\b\nExamples:\n  parentage keygen -o release.key\n  parentage keygen -o beside.key --type ml-dsa-65",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Private key to write."
)
@click.option(
    "--type",
    "algorithm",
    type=click.Choice(["p256", "p384", "p521", "ed25519", "ml-dsa-65"]),
    default="p256",
    show_default=True,
    help="model.sig takes the first three; ml-dsa-65 signs beside one of them (sign --also-key).",
)
@passphrase_option
@click.option(
    "--no-passphrase", is_flag=True, help="Leave the key unencrypted (tests, HSM-less CI)."
)
@json_option
def command(
    output: Path,
    algorithm: str,
    passphrase_file: Path | None,
    no_passphrase: bool,
    as_json: bool,
) -> int:
    """Make a signing key: OUTPUT (encrypted PKCS#8) and OUTPUT with the suffix .pub."""
    from parentage.attest.keys import passphrase_from, write_keypair

    passphrase = None if no_passphrase else passphrase_from(passphrase_file, os.environ)
    if passphrase is None and not no_passphrase:
        passphrase = ask_passphrase(confirm=True)
    public = write_keypair(output, passphrase, algorithm=algorithm)
    written = {
        "key": str(output),
        "public": str(output.with_suffix(".pub")),
        "type": algorithm,
        "keySha256": public.fingerprint,
    }
    if as_json:
        emit(written)
    else:
        click.echo(
            f"wrote {output} and {output.with_suffix('.pub')}\nkey sha256 {public.fingerprint}"
        )
    return 0
