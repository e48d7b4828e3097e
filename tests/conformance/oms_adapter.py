#!/usr/bin/env python3
"""The adapter that the OMS conformance suite drives: its protocol on one side, our command on the other.

    pytest test/ --entrypoint=tests/conformance/oms_adapter.py      (in a checkout of the suite)
    make conformance                                                (on the suite's data alone)

Two options mean more here than there. `--ignore-unsigned-files` lets any file be, so it is ours with
`--allow-uncovered`. And the suite's historical bundles come without a flag, so ours is always given.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import tempfile
from pathlib import Path


def main(given: list[str]) -> int:
    """Translate and run; the exit code is the answer."""
    words = parser().parse_args(given)
    command = signing(words) if words.command == "sign-model" else verifying(words)
    from parentage.cli import main as parentage

    try:
        parentage(command)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    return 1


def signing(words: argparse.Namespace) -> list[str]:
    command = ["oms", "sign", words.model_path, "--signature", words.output_bundle]
    for path in words.ignore_paths:
        command += ["--ignore-paths", path]
    if words.method == "sigstore":
        command += ["--keyless", *(["--staging"] if words.use_staging else [])]
        if words.identity_token:  # never on our own command line
            with tempfile.NamedTemporaryFile("w", delete=False) as file:
                file.write(words.identity_token)
            atexit.register(os.unlink, file.name)
            command += ["--identity-token-file", file.name]
        return command
    command += ["--key", words.private_key or ""]
    if words.method == "certificate":
        command += ["--certificate", words.signing_cert or ""]
        for path in words.cert_chain:
            command += ["--chain", path]
    return command


def verifying(words: argparse.Namespace) -> list[str]:
    command = ["oms", "verify", words.model_path, "--signature", words.bundle, "--legacy-oms"]
    for path in words.ignore_paths:
        command += ["--ignore-paths", path]
    if words.ignore_unsigned_files:
        command += ["--ignore-unsigned-files", "--allow-uncovered"]
    if words.method == "key":
        command += ["--key", words.public_key or ""]
    elif words.method == "certificate":
        for path in words.cert_chain:
            command += ["--ca", path]
    else:
        command += ["--identity", words.identity or "", "--issuer", words.identity_provider or ""]
        command += ["--staging"] if words.use_staging else []
    return command


def parser() -> argparse.ArgumentParser:
    """Return the protocol's two commands."""
    top = argparse.ArgumentParser(description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name in ("sign-model", "verify-model"):
        one = commands.add_parser(name)
        one.add_argument("--method", choices=["key", "certificate", "sigstore"], required=True)
        one.add_argument("--model-path", required=True)
        one.add_argument("--cert-chain", action="append", default=[])
        one.add_argument("--ignore-paths", action="append", default=[])
        one.add_argument("--use-staging", action="store_true")
    sign, verify = commands.choices["sign-model"], commands.choices["verify-model"]
    sign.add_argument("--output-bundle", required=True)
    for option in ("--private-key", "--signing-cert", "--identity-token"):
        sign.add_argument(option)
    verify.add_argument("--bundle", required=True)
    verify.add_argument("--ignore-unsigned-files", action="store_true")
    for option in ("--public-key", "--identity", "--identity-provider"):
        verify.add_argument(option)
    return top


if __name__ == "__main__":
    # A checkout works as it is, installed or not.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main(sys.argv[1:]))
