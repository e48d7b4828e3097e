"""Who is who: the members of a policy's roles, found among verified signers (policy_file.py reads them).

A bundle is verified first, by whoever it claims to be by, and the verified identity is then looked up:
nobody fills a role because a file says so. What is counted is persons: one key, one certificate's
subject under one root, one identity of one issuer (whatever branch or tag its workflow ran on).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from parentage.attest import globs
from parentage.attest.bundle import Bundle
from parentage.attest.identity import ChainIdentity, Identity, KeyIdentity, KeylessIdentity
from parentage.attest.keys import PublicKey
from parentage.attest.policy import (
    EndorsementRule,
    Member,
    ParentsRule,
    Policy,
    RecomputeRule,
    ReleaseRule,
    Role,
    StatusRule,
)
from parentage.attest.trust import Trust, time_of
from parentage.manifest.errors import SignatureError

if TYPE_CHECKING:  # reading certificates takes a while to import, and most trust is in keys
    from cryptography import x509

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

    def of_parents(self) -> Believed:
        """Return the same, of the releases that this one was made from: theirs are the parents' signers."""
        if self.policy is None:
            return self
        as_publishers = [
            msgspec.structs.replace(seat, role=Role.PUBLISHER)
            for seat in self.seats
            if seat.role is Role.PARENT
        ]
        kept = [seat for seat in self.seats if seat.role in {Role.SUCCESSOR, Role.RECOVERY}]
        rule = self.policy.rule(Role.PARENT) or self.policy.roles.publisher
        policy = msgspec.structs.replace(
            self.policy,
            roles=msgspec.structs.replace(self.policy.roles, publisher=rule),
            status=_PLAIN_STATUS,
            require=(),
        )
        return msgspec.structs.replace(self, seats=(*as_publishers, *kept), policy=policy)

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
