"""Who is who: the members of a policy's roles, found among verified signers.

A bundle is verified first, by whoever it claims to be by, and the verified identity is then looked up:
nobody fills a role because a file says so. What is counted is persons: one key, one certificate's
subject under one root, one identity of one issuer (whatever branch or tag its workflow ran on).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from parentage.attest import globs, paths
from parentage.attest.bundle import Bundle
from parentage.attest.chains import TrustedChains
from parentage.attest.clock import length
from parentage.attest.identity import ChainIdentity, Identity, KeyIdentity, KeylessIdentity
from parentage.attest.identity_pattern import IdentityPattern
from parentage.attest.keyless_trust import TrustedIdentities
from parentage.attest.keys import PublicKey
from parentage.attest.policy import (
    MAX_POLICY,
    EndorsementRule,
    Member,
    ParentsRule,
    Policy,
    RecomputeRule,
    ReleaseRule,
    Role,
    StatusRule,
    parse,
)
from parentage.attest.trust import AnyOf, Timed, Trust, TrustedKeys, time_of
from parentage.attest.trusted_root import TrustedRoot
from parentage.manifest.errors import PolicyError, SignatureError, SigningKeyError, UsageError

_PLAIN_STATUS: Final = StatusRule(on_missing="ignore")
_PLAIN_PARENTS: Final = ParentsRule(unsigned="ignore")


class Seat(msgspec.Struct, frozen=True):
    """A member of a role, with what its files hold.

    Attributes:
        role: that it fills.
        member: as the policy names it.
        fingerprint: of its key or root; empty for an identity.
        key: to verify with, where it is at hand.
        anchor: that its certificate must lead to.
    """

    role: Role
    member: Member
    fingerprint: str = ""
    key: PublicKey | None = None
    anchor: x509.Certificate | None = None

    @property
    def usable(self) -> bool:
        """Whether there is something to verify their signatures with."""
        return self.key is not None or self.anchor is not None or self.member.kind == "keyless"

    def why_not(self, who: Identity) -> str:
        """Return why a verified signer is somebody else; empty where it is this member."""
        member = self.member
        match who, member.kind:
            case KeyIdentity(), "key":
                return "" if who.fingerprint == self.fingerprint else "another key"
            case ChainIdentity(), "certificate":
                if who.root != self.fingerprint:
                    return "under another root"
                return "" if who.subject == member.subject else f"subject is not {member.subject}"
            case KeylessIdentity(), "keyless":
                return _why_not_keyless(member, who)
            case _:
                return f"not by {member.kind}"


def _why_not_keyless(member: Member, who: KeylessIdentity) -> str:
    if who.issuer != member.issuer:
        return f"issuer is not {member.issuer}"
    if not globs.matches(member.identity or "", who.identity):
        return f"identity does not match {member.identity}"
    claims = dict(who.claims)
    for name, wanted in (
        ("sourceRepositoryIdentifier", member.repo_id),
        ("sourceRepositoryOwnerIdentifier", member.owner_id),
    ):
        if wanted is not None and claims.get(name) != wanted:
            return f"{name} is not {wanted}"
    return ""


class Believed(msgspec.Struct, frozen=True, kw_only=True):
    """Whom we believe, and for what. As a `Trust` it is that of the publisher.

    Attributes:
        everyone: verifies bundles by all who are listed.
        seats: members of all roles. Without a policy there are none, and everyone is a publisher.
        policy: None where keys or identities were given by themselves.
        sha256: of the policy's file.
    """

    everyone: Trust
    seats: tuple[Seat, ...] = ()
    policy: Policy | None = None
    sha256: str = ""

    def check(self, bundle: Bundle, where: str) -> Identity:
        """Verify a bundle as the publisher's."""
        return InRole(self, Role.PUBLISHER).check(bundle, where)

    def time(self, bundle: Bundle, where: str) -> datetime | None:
        """Return when a signature was made, if that is proven."""
        return time_of(self.everyone, bundle, where)

    def roles_of(self, who: Identity) -> frozenset[Role]:
        """Return the roles of a verified signer. Who publishes verifies and witnesses nothing."""
        if self.policy is None:
            return frozenset({Role.PUBLISHER, Role.PARENT})
        found = {seat.role for seat in self.seats if not seat.why_not(who)}
        partial = bool(found & {Role.PUBLISHER, Role.SUCCESSOR})
        return frozenset(found - {Role.VERIFIER, Role.WITNESS} if partial else found)

    def threshold(self, role: Role) -> int:
        """Return how many persons of a role must say the same."""
        return 1 if self.policy is None else self.policy.threshold(role)

    @property
    def status(self) -> StatusRule:
        """What status statements mean."""
        return _PLAIN_STATUS if self.policy is None else self.policy.status

    @property
    def parents(self) -> ParentsRule:
        """How far parents are followed."""
        return _PLAIN_PARENTS if self.policy is None else self.policy.parents

    @property
    def demands(self) -> Sequence[RecomputeRule | EndorsementRule | ReleaseRule]:
        """What a release must carry beside signature and lineage."""
        return () if self.policy is None else self.policy.demands()


class InRole(msgspec.Struct, frozen=True):
    """Trust in those who fill one role."""

    believed: Believed
    role: Role

    def check(self, bundle: Bundle, where: str) -> Identity:
        """Verify a bundle, and that its signer fills the role.

        Raises:
            SignatureError: by nobody who is listed, by someone of another role, or it does not verify.
        """
        who = self.believed.everyone.check(bundle, where)
        if self.role not in self.believed.roles_of(who):
            seats = [str(s.member) for s in self.believed.seats if s.role is self.role]
            raise SignatureError(
                f"signed by someone who is no {self.role} in this policy",
                where=where,
                expected="one of " + (", ".join(seats) or "nobody"),
                found=str(who),
                hint="parentage trust explain POLICY RELEASE",
            )
        return who

    def time(self, bundle: Bundle, where: str) -> datetime | None:
        """Return when a signature was made, if that is proven."""
        return self.believed.time(bundle, where)


def believed(trust: Trust) -> Believed:
    """Return a trust with roles: as it is, or with everyone a publisher."""
    return trust if isinstance(trust, Believed) else Believed(everyone=trust)


def person(who: Identity) -> str:
    """Return what distinct signers are counted by."""
    match who:
        case KeyIdentity():
            return f"key {who.fingerprint}"
        case ChainIdentity():
            return f"certificate {who.subject} under {who.root}"
        case KeylessIdentity():
            # A workflow is one person, whatever branch or tag it ran on.
            uri = "://" in who.identity
            named = who.identity.partition("@")[0] if uri else who.identity
            return f"{named} by {who.issuer}"


def persons(signers: Iterable[Identity]) -> frozenset[str]:
    """Return the distinct persons among some signers."""
    return frozenset(person(who) for who in signers)


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
        times: proves when a signature was made.
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
        anchor = _root(member, policy, role)
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


def _root(member: Member, policy: Path, role: Role) -> x509.Certificate:
    where = f"{policy}: {role}: {member.root}"
    try:
        roots = paths.load_certificates(policy.parent / (member.root or ""))
    except SigningKeyError as error:
        raise PolicyError(f"member's root: {error.what}", where=error.where or where) from error
    if len(roots) != 1:
        raise PolicyError(
            "not a certificate", where=where, expected="one PEM certificate", found=str(len(roots))
        )
    found = paths.fingerprint(roots[0])
    if member.root_sha256 not in {None, found}:
        raise PolicyError(
            "root file is not the certificate that the policy names",
            where=where,
            expected=f"sha256 {member.root_sha256}",
            found=f"sha256 {found}",
        )
    return roots[0]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_POLICY + 1)
    except OSError as error:
        raise PolicyError(f"can't read: {error.strerror}", where=str(path)) from error
    if len(data) > MAX_POLICY:
        raise PolicyError("file too large", where=str(path), expected=f"<= {MAX_POLICY} bytes")
    return data
