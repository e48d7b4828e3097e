"""`parentage keygen`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from parentage.cli.shared import ask_passphrase, emit, json_option, passphrase_option


@click.command("keygen", epilog="\b\nExample:\n  parentage keygen -o release.key")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Private key to write."
)
@passphrase_option
@click.option(
    "--no-passphrase", is_flag=True, help="Leave the key unencrypted (tests, HSM-less CI)."
)
@json_option
def command(output: Path, passphrase_file: Path | None, no_passphrase: bool, as_json: bool) -> int:
    """Make an ECDSA P-256 key: OUTPUT (encrypted PKCS#8) and OUTPUT with the suffix .pub."""
    from parentage.attest.keys import passphrase_from, write_keypair

    passphrase = None if no_passphrase else passphrase_from(passphrase_file, os.environ)
    if passphrase is None and not no_passphrase:
        passphrase = ask_passphrase(confirm=True)
    public = write_keypair(output, passphrase)
    written = {
        "key": str(output),
        "public": str(output.with_suffix(".pub")),
        "keySha256": public.fingerprint,
    }
    if as_json:
        emit(written)
    else:
        click.echo(
            f"wrote {output} and {output.with_suffix('.pub')}\nkey sha256 {public.fingerprint}"
        )
    return 0
