"""`parentage sign`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.shared import (
    FOLDER,
    emit,
    json_option,
    key_option,
    load_key,
    passphrase_option,
    progress,
    threads_option,
)


@click.command("sign", epilog="\b\nExample:\n  parentage sign ./rio --key release.key")
@click.argument("model", type=FOLDER)
@key_option
@passphrase_option
@threads_option
@json_option
def command(
    model: Path, key_path: Path, passphrase_file: Path | None, threads: int | None, as_json: bool
) -> int:
    """Sign what was declared in MODEL: model.sig (OpenSSF Model Signing) and the lineage."""
    from parentage.attest.release import sign_release
    from parentage.attest.signer import KeySigner
    from parentage.attest.trust import TrustedKeys

    key = load_key(key_path, passphrase_file)
    with progress("sign", quiet=as_json, reads=[model]) as bar:
        signed = sign_release(
            model, KeySigner(key), TrustedKeys((key.public,)), threads=threads, progress=bar
        )
    result = {
        "modelSig": str(model / "model.sig"),
        "omsRoot": signed.oms_root,
        "keySha256": key.public.fingerprint,
        "files": signed.files,
        "root": dict(signed.lineage.weights.root),
    }
    if as_json:
        emit(result)
        return 0
    click.echo(f"signed {signed.files} files with {str(signed.signer)[:20]}…")
    click.echo(f"next   parentage verify {model} --key {key_path.with_suffix('.pub')}")
    return 0
