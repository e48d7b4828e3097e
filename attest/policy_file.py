"""A policy's file, read with the keys, roots and patterns that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509

from parentage.attest import paths
from parentage.attest.bundle import Bundle
from parentage.attest.chains import TrustedChains
from parentage.attest.clock import length
from parentage.attest.identity import Identity
from parentage.attest.identity_pattern import IdentityPattern
from parentage.attest.keyless_trust import TrustedIdentities
from parentage.attest.keys import PublicKey
from parentage.attest.policy import MAX_POLICY, Member, Policy, Role, parse
from parentage.attest.roles import Believed, Seat
from parentage.attest.trust import AnyOf, Timed, Trust, TrustedKeys
from parentage.attest.trusted_root import TrustedRoot
from parentage.manifest.errors import PolicyError, SignatureError, SigningKeyError, UsageError


class _Nobody(msgspec.Struct, frozen=True):
    """Trust in nobody: for a policy that is only looked at."""

    def check(self, bundle: Bundle, where: str) -> Identity:
        """Refuse."""
        raise SignatureError("no key of this policy is at hand", where=where)


def load(
    path: Path,
    keys: Sequence[PublicKey] = (),
    *,
    usable: bool = True,
    times: Timed | None = None,
    root: TrustedRoot | None = None,
) -> Believed:
    """Read a policy and the keys that it names.

    Args:
        path: of the policy.
        keys: for members that the policy names by fingerprint only; each must be one of them.
        usable: whether nothing at hand to verify with is an error.
        times: proves when a signature was made, where the policy names no authorities.
        root: of the Sigstore instance that vouches for identities; None for the public one.

    Raises:
        PolicyError: it is no policy, or a file that it names is not the one.
        UsageError: a key that nobody is named by.
    """
    data = _read(path)
    policy = parse(data, where=str(path))
    spare = {key.fingerprint: key for key in keys}
    seats = [
        _seat(role, member, path, spare)
        for role in Role
        if (rule := policy.rule(role)) is not None
        for member in rule.any
    ]
    unnamed = sorted(spare.keys() - {seat.fingerprint for seat in seats})
    if unnamed:
        raise UsageError(
            "this policy names no such key", where=str(path), found=unnamed[0],
            hint="with --policy, keys come from the policy; --key only brings those named by keySha256",
        )  # fmt: skip
    held = {seat.fingerprint: seat.key for seat in seats if seat.key is not None}
    anchors = {seat.fingerprint: seat.anchor for seat in seats if seat.anchor is not None}
    patterns = tuple(
        IdentityPattern(seat.member.identity or "", seat.member.issuer or "")
        for seat in seats
        if seat.member.kind == "keyless"
    )
    if usable and not any(seat.usable for seat in seats if seat.role is Role.PUBLISHER):
        raise PolicyError(
            "no key of this policy is at hand",
            where=f"{path}: publisher",
            expected="key: FILE, root: FILE, an identity, or the key of a keySha256 with --key",
        )
    times = _times(policy, path, times)
    everyone: Trust = _Nobody()
    if held or anchors or patterns:
        age = None if policy.trust_root is None else length(policy.trust_root.max_age)
        everyone = AnyOf(
            keys=TrustedKeys(tuple(held.values()), times) if held else None,
            chains=TrustedChains(tuple(anchors.values()), times) if anchors else None,
            keyless=TrustedIdentities(patterns, root, age) if patterns else None,
        )
    digest = hashlib.sha256(data).hexdigest()
    return Believed(everyone=everyone, seats=tuple(seats), policy=policy, sha256=digest)


def _seat(role: Role, member: Member, policy: Path, spare: dict[str, PublicKey]) -> Seat:
    if member.kind == "keyless":
        return Seat(role, member)
    if member.kind == "certificate":
        anchor = _root(member.root or "", member.root_sha256, policy, role)
        return Seat(role, member, paths.fingerprint(anchor), anchor=anchor)
    if member.key is None:
        fingerprint = member.key_sha256 or ""
        return Seat(role, member, fingerprint, spare.get(fingerprint))
    where = f"{policy}: {role}"
    try:
        key = PublicKey.load(policy.parent / member.key)
    except SigningKeyError as error:
        raise PolicyError(f"member's key: {error.what}", where=error.where or where) from error
    if member.key_sha256 not in {None, key.fingerprint}:
        raise PolicyError(
            "key file is not the key that the policy names",
            where=f"{where}: {member.key}",
            expected=f"sha256 {member.key_sha256}",
            found=f"sha256 {key.fingerprint}",
        )
    return Seat(role, member, key.fingerprint, key)


def _root(name: str, pinned: str | None, policy: Path, use: str) -> x509.Certificate:
    where = f"{policy}: {use}: {name}"
    try:
        roots = paths.load_certificates(policy.parent / name)
    except SigningKeyError as error:
        raise PolicyError(f"root: {error.what}", where=error.where or where) from error
    if len(roots) != 1:
        raise PolicyError(
            "not a certificate", where=where, expected="one PEM certificate", found=str(len(roots))
        )
    found = paths.fingerprint(roots[0])
    if pinned not in {None, found}:
        raise PolicyError(
            "root file is not the certificate that the policy names",
            where=where,
            expected=f"sha256 {pinned}",
            found=f"sha256 {found}",
        )
    return roots[0]


def _times(policy: Policy, path: Path, given: Timed | None) -> Timed | None:
    """Return who is believed about time: those of the policy, or those of the command line."""
    if not policy.timestamps:
        return given
    if given is not None:
        raise UsageError(
            "this policy names its timestamp authorities", where=str(path), hint="leave out --tsa"
        )
    from parentage.attest.timestamps import TrustedStamps

    roots = [_root(one.root, one.root_sha256, path, "timestamps") for one in policy.timestamps]
    if not all(map(paths.is_self_signed, roots)):
        raise PolicyError("not a root certificate", where=f"{path}: timestamps")
    return TrustedStamps(tuple(roots))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_POLICY + 1)
    except OSError as error:
        raise PolicyError(f"can't read: {error.strerror}", where=str(path)) from error
    if len(data) > MAX_POLICY:
        raise PolicyError("file too large", where=str(path), expected=f"<= {MAX_POLICY} bytes")
    return data
