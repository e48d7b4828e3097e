"""`parentage sign`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.shared import FILE, FOLDER, emit, json_option, progress, threads_option
from parentage.cli.signing import SigningChoice, signing_options


@click.command(
    "sign",
    epilog="""\b
Examples:
  parentage sign ./rio --key release.key
  parentage sign ./base --key release.key --observed
  parentage sign ./rio --key release.key --also-key release-mldsa.key
  parentage sign ./rio --key release.key --certificate release.pem --chain issuers.pem
  parentage sign ./rio --keyless""",
)
@click.argument("model", type=FOLDER)
@signing_options
@click.option(
    "--also-key",
    type=FILE,
    help="Sign the same bytes with this ML-DSA-65 key, in a bundle beside model.sig.",
)
@click.option(
    "--observed", is_flag=True, help="Without a draft: weights only, digested in the same pass."
)
@threads_option
@json_option
def command(
    model: Path,
    signing: SigningChoice,
    also_key: Path | None,
    observed: bool,
    threads: int | None,
    as_json: bool,
) -> int:
    """Sign what was declared in MODEL: model.sig (OpenSSF Model Signing) and the lineage."""
    from parentage.attest.release import sign_release
    from parentage.verify.report import signed_by

    chosen = signing.build()
    also = signing.beside(also_key) if also_key is not None else None
    with progress("sign", quiet=as_json, reads=[model]) as bar:
        signed = sign_release(
            model,
            chosen.signer,
            chosen.trust,
            also=also,
            observed=observed,
            threads=threads,
            progress=bar,
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
    if also_key is not None:
        click.echo("beside .parentage/model.mldsa.sigstore.json, with the ML-DSA-65 key")
    click.echo(f"next   parentage verify {model} {signing.verified_with(signed.signer)}")
    return 0
