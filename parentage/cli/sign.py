"""`parentage sign`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.shared import FOLDER, emit, json_option, progress, threads_option
from parentage.cli.signing import SigningChoice, signing_options


@click.command(
    "sign",
    epilog="""\b
Examples:
  parentage sign ./rio --key release.key
  parentage sign ./base --key release.key --observed
  parentage sign ./rio --key release.key --certificate release.pem --chain issuers.pem
  parentage sign ./rio --keyless""",
)
@click.argument("model", type=FOLDER)
@signing_options
@click.option(
    "--observed", is_flag=True, help="Without a draft: weights only, digested in the same pass."
)
@threads_option
@json_option
def command(
    model: Path, signing: SigningChoice, observed: bool, threads: int | None, as_json: bool
) -> int:
    """Sign what was declared in MODEL: model.sig (OpenSSF Model Signing) and the lineage."""
    from parentage.attest.release import sign_release
    from parentage.verify.report import signed_by

    chosen = signing.build()
    with progress("sign", quiet=as_json, reads=[model]) as bar:
        signed = sign_release(
            model, chosen.signer, chosen.trust, observed=observed, threads=threads, progress=bar
        )
    result = {
        "modelSig": str(model / "model.sig"),
        "omsRoot": signed.oms_root,
        "signer": signed_by(signed.signer),
        "files": signed.files,
        "root": dict(signed.lineage.weights.root),
    }
    if as_json:
        emit(result)
        return 0
    click.echo(f"signed {signed.files} files as {signed.signer}")
    click.echo(f"next   parentage verify {model} {signing.verified_with(signed.signer)}")
    return 0
