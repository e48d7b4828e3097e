"""`parentage trust`: init, check, explain."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from parentage.cli.shared import FILE, emit, json_option
from parentage.cli.trusting import load_root, trusted_root_option
from parentage.manifest.errors import UsageError

if TYPE_CHECKING:
    from parentage.attest.policy import Member, Role
    from parentage.attest.roles import Believed

_F = TypeVar("_F", bound=Callable[..., Any])
_HEX = re.compile("[0-9a-f]{64}")
_key_option = click.option(
    "--key", "keys", type=FILE, multiple=True,
    help="Public key (PEM) of a member that the policy names by keySha256; repeat for more.",
)  # fmt: skip


@click.group(
    "trust",
    epilog="""\b
Examples:
  parentage trust init -o trust.yaml --publisher release.pub --verifier lab1.pub --verifier lab2.pub
  parentage trust check trust.yaml
  parentage trust explain trust.yaml ./rio --json""",
)
def command() -> None:
    """Write, check and explain a trust policy: who may sign, who verifies, and how many of them."""


def _who(name: str, text: str, *, required: bool = False) -> Callable[[_F], _F]:
    return click.option(
        f"--{name}", name, multiple=True, required=required, metavar="WHO", help=text
    )


@command.command("init")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="Policy to write; never over an existing file.",
)  # fmt: skip
@_who("publisher", "Who signs releases.", required=True)
@_who("successor", "Who speaks for a publisher who left.")
@_who("verifier", "Who recomputes releases.")
@_who("witness", "Who signs what it saw.")
@_who("recovery", "Who withdraws what a stolen key signed.")
@_who("evaluator", "Who signs which scores a release reached.")
@click.option(
    "--threshold", "thresholds", multiple=True, metavar="ROLE=N",
    help="How many of a role must say the same; 1 otherwise.",
)  # fmt: skip
@json_option
def init(output: Path, thresholds: tuple[str, ...], as_json: bool, **roles: tuple[str, ...]) -> int:
    """Write a policy with comments.

    WHO is a key (PEM file, or its SHA-256), "IDENTITY by ISSUER", or "SUBJECT under ROOT.pem".
    """
    from parentage.attest.policy import Role
    from parentage.attest.policy_text import text_of
    from parentage.manifest.atomic import write_bytes

    if output.exists():
        raise UsageError("file exists already", where=str(output), hint="choose another --output")
    members = {
        Role(role): [_member(text, output.parent) for text in given]
        for role, given in roles.items()
    }
    write_bytes(output, text_of(members, dict(map(_threshold, thresholds))).encode())
    return _check(output, (), as_json=as_json)


@command.command("check")
@click.argument("policy", type=FILE)
@_key_option
@json_option
def check(policy: Path, keys: tuple[Path, ...], as_json: bool) -> int:
    """Say whether POLICY is one, whom it names, and what it leaves open."""
    return _check(policy, keys, as_json=as_json)


@command.command("explain")
@click.argument("policy", type=FILE)
@click.argument("release", type=click.Path(path_type=Path, exists=True, file_okay=False))
@_key_option
@trusted_root_option
@json_option
def explain(
    policy: Path, release: Path, keys: tuple[Path, ...], trusted_root: Path | None, as_json: bool
) -> int:
    """Say of each claim in RELEASE who signed it, which role of POLICY that is, and why not another."""
    from parentage.attest.explain import explain as explained
    from parentage.manifest.files import open_files

    believed = _load(policy, keys, root=trusted_root)
    with open_files(release) as files:
        found = explained(files, believed)
    if as_json:
        emit({"schema": "https://parentage.dev/explain/v0.1", "policySha256": believed.sha256,
              "claims": found})  # fmt: skip
        return 0
    for entry in found:
        click.echo(f"{entry.where}: {entry.predicate_type or 'not opened'}")
        if entry.signer:
            click.echo(f"  payload   {entry.payload}")
            click.echo(f"  signed by {entry.signer}")
            click.echo(f"  role      {', '.join(entry.roles) or 'none'}")
        for why in entry.why:
            click.echo(f"  not as    {why}" if entry.signer else f"  because   {why}")
    return 0


def _check(policy: Path, keys: tuple[Path, ...], *, as_json: bool) -> int:
    from parentage.attest.looseness import loose

    believed = _load(policy, keys, usable=False)
    members = [
        {"role": seat.role, "member": str(seat.member), "sha256": seat.fingerprint}
        for seat in believed.seats
        if seat.role != "parent"
    ]
    if as_json:
        emit({"schema": "https://parentage.dev/trust-check/v0.1", "policy": str(policy),
              "policySha256": believed.sha256, "members": members, "loose": loose(believed)})  # fmt: skip
        return 0
    click.echo(f"{policy} is a policy\nsha256 {believed.sha256}\n")
    for member in members:
        click.echo(f"  {member['role']:<10}{member['member']}")
    click.echo("\nleft open" if loose(believed) else "\nnothing is left open")
    for text in loose(believed):
        click.echo(f"  - {text}")
    return 0


def _load(
    policy: Path, keys: tuple[Path, ...], *, usable: bool = True, root: Path | None = None
) -> Believed:
    from parentage.attest.keys import PublicKey
    from parentage.attest.policy_file import load

    held = tuple(PublicKey.load(path) for path in keys)
    return load(policy, held, usable=usable, root=load_root(root))


def _member(text: str, folder: Path) -> Member:
    from parentage.attest.keys import PublicKey
    from parentage.attest.policy import Member

    if _HEX.fullmatch(text):
        return Member(key_sha256=text)
    identity, by, issuer = text.rpartition(" by ")
    if by:
        return Member(issuer=issuer, identity=identity)
    subject, under, root = text.rpartition(" under ")
    if under:
        return Member(root=as_found(Path(root), folder), subject=subject)
    fingerprint = PublicKey.load(Path(text)).fingerprint
    return Member(key=as_found(Path(text), folder), key_sha256=fingerprint)


def as_found(path: Path, folder: Path) -> str:
    """Return a path as a policy in `folder` names it: relative where it lies within, else in full."""
    found, home = path.resolve(), folder.resolve()
    return str(found.relative_to(home) if found.is_relative_to(home) else found)


def _threshold(text: str) -> tuple[Role, int]:
    from parentage.attest.policy import Role

    role, _, count = text.partition("=")
    if role not in list(Role) or not count.isdecimal() or len(count) > 2:
        raise UsageError("not ROLE=N", expected="verifier=2", found=text)
    return Role(role), int(count)
