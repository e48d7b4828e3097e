"""A trust policy: who may say what, how many of them, and what a release must carry.

Typed YAML, closed: `schemas/policy-v0.1.json`. A policy is a document; roles.py reads the keys that it
names and finds out who matches.

    version: "0.1"
    roles:
      publisher: {any: [{key: release.pub, keySha256: "…"}]}
      verifier: {any: [{key: lab1.pub}, {key: lab2.pub}, {key: lab3.pub}], threshold: 2}
    require: [{recompute: {min: exact, coverage: "1"}}]
    status: {maxAge: 30d, onMissing: fail}
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

from parentage.attest import globs
from parentage.attest.clock import Duration
from parentage.manifest.errors import PolicyError, RecipeError
from parentage.manifest.wire import Hex, Ratio, Wire, ratio

MAX_POLICY: Final = 1 << 20
MAX_DEPTH: Final = 8
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
OnIt = Literal["ignore", "warn", "fail"]
Loud = Literal["warn", "fail"]
#: How a member may be named, and what can't be left out.
_KINDS: Final = {
    "key": ({"key", "key_sha256"}, set[str]()),
    "certificate": ({"root", "root_sha256", "subject"}, {"root", "subject"}),
    "keyless": ({"issuer", "identity", "repo_id", "owner_id"}, {"issuer", "identity"}),
}


class Role(StrEnum):
    """What someone may say.

    publisher: signs releases. successor: speaks for a publisher who left. verifier: says what it
    recomputed. witness: says what it saw. recovery: withdraws what a stolen key signed. evaluator: says
    which scores a release reached. parent: signs the releases that this one was made from.
    """

    PUBLISHER = "publisher"
    SUCCESSOR = "successor"
    VERIFIER = "verifier"
    WITNESS = "witness"
    RECOVERY = "recovery"
    EVALUATOR = "evaluator"
    PARENT = "parent"


class Member(Wire, frozen=True, kw_only=True):
    """One who may fill a role, in exactly one of three ways: a key, a certificate's root, an identity.

    Attributes:
        key: PEM file, relative to the policy.
        key_sha256: SHA-256 of the key's PEM form, as `keygen` prints it. With `key`, both must agree;
            alone, the key itself is given on the command line.
        root: PEM file of a root certificate, relative to the policy.
        root_sha256: SHA-256 of the root's DER form.
        subject: RFC 4514 name that the leaf must have. Required with a root.
        issuer: URL of the OpenID provider, exactly.
        identity: who signs: a URI or a mail address, `*` as globs.py has it.
        repo_id, owner_id: numbers that survive renames: Fulcio's sourceRepositoryIdentifier and
            sourceRepositoryOwnerIdentifier.
    """

    key: Text | None = None
    key_sha256: Hex | None = None
    root: Text | None = None
    root_sha256: Hex | None = None
    subject: Text | None = None
    issuer: Text | None = None
    identity: Text | None = None
    repo_id: Text | None = None
    owner_id: Text | None = None

    @property
    def kind(self) -> str:
        """How they sign: "key", "certificate" or "keyless"."""
        return next(kind for kind, (names, _) in _KINDS.items() if self.given & names)

    @property
    def given(self) -> set[str]:
        """Names of the fields that are set."""
        return {name for name in self.__struct_fields__ if getattr(self, name) is not None}

    def __str__(self) -> str:
        match self.kind:
            case "key":
                return f"key {self.key_sha256 or self.key}"
            case "certificate":
                return f"certificate {self.subject} under {self.root}"
            case _:
                return f"{self.identity} by {self.issuer}"


Members = Annotated[tuple[Member, ...], msgspec.Meta(min_length=1, max_length=64)]


class RoleRule(Wire, frozen=True, kw_only=True):
    """Who fills a role, and how many of them must say the same, byte for byte."""

    any: Members
    threshold: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class RoleRules(Wire, frozen=True, kw_only=True):
    """The roles; the publisher is never counted as a verifier, whoever is listed."""

    publisher: RoleRule
    successor: RoleRule | None = None
    verifier: RoleRule | None = None
    witness: RoleRule | None = None
    recovery: RoleRule | None = None
    evaluator: RoleRule | None = None


class RecomputeRule(Wire, frozen=True, kw_only=True):
    """Verifiers recomputed it.

    Attributes:
        min: weakest rung that counts.
        coverage: share of the elements that reached it, as a decimal.
        by: role; its threshold is counted over byte-identical statements.
    """

    min: Literal["exact", "witnessed", "in-cell"] = "exact"
    coverage: Ratio = "1"
    by: Literal["verifier"] = "verifier"


class EndorsementRule(Wire, frozen=True, kw_only=True):
    """Somebody else signed that they saw the lineage."""

    by: Literal["witness", "verifier"] = "witness"


class ReleaseRule(Wire, frozen=True, kw_only=True):
    """An in-toto release statement binds these files to a place and a revision.

    Attributes:
        purl: package URL with its version, or with the version `*`: "pkg:huggingface/acme/rio@*".
        by: role.
    """

    purl: Text
    by: Literal["publisher", "witness"] = "publisher"


class Requirement(Wire, frozen=True, kw_only=True):
    """What a release must carry beside signature and lineage; exactly one of these."""

    recompute: RecomputeRule | None = None
    endorsement: EndorsementRule | None = None
    release: ReleaseRule | None = None


class StatusRule(Wire, frozen=True, kw_only=True):
    """What status statements mean here.

    Attributes:
        max_age: how old a `current` may be, from its effectiveAt; its own validUntil holds, too.
        on_missing: no `current` that is still valid.
        on_withdrawn, on_superseded: the publisher, a successor or recovery said so.
        on_dispute: verifiers or witnesses disagree. A stranger's dispute is shown, and no more.
    """

    max_age: Duration | None = None
    on_missing: OnIt = "warn"
    on_withdrawn: Loud = "fail"
    on_superseded: Loud = "warn"
    on_dispute: Loud = "warn"


class TrustRootRule(Wire, frozen=True, kw_only=True):
    """How old the root of keyless trust may be."""

    max_age: Duration


class Authority(Wire, frozen=True, kw_only=True):
    """A timestamp authority that is believed about when a signature was made.

    Attributes:
        root: PEM file of its root certificate, relative to the policy.
        root_sha256: SHA-256 of the root's DER form.
    """

    root: Text
    root_sha256: Hex | None = None


class ParentsRule(Wire, frozen=True, kw_only=True):
    """How far parents' own claims are followed.

    Attributes:
        depth: 0 not at all, 1 parents, 2 their parents, …
        any: who may sign them, beside this policy's publishers.
        require: what each must carry.
        unsigned: no claims by anyone listed.
        on_withdrawn: a parent was withdrawn; children inherit at least a warning.
    """

    depth: Annotated[int, msgspec.Meta(ge=0, le=MAX_DEPTH)] = 1
    any: Annotated[tuple[Member, ...], msgspec.Meta(max_length=64)] = ()
    require: tuple[Literal["oms", "lineage"], ...] = ()
    unsigned: OnIt = "warn"
    on_withdrawn: Loud = "warn"


class Policy(Wire, frozen=True, kw_only=True):
    """The whole document.

    Attributes:
        version: of this format.
        roles: who may say what.
        require: what a release must carry; `oms` and `lineage` always are.
        status: what status statements mean.
        trust_root: of keyless signatures.
        timestamps: authorities that are believed about time.
        parents: how far parents are followed.
    """

    version: Literal["0.1"]
    roles: RoleRules
    require: Annotated[
        tuple[Literal["oms", "lineage"] | Requirement, ...], msgspec.Meta(max_length=32)
    ] = ("oms", "lineage")
    status: StatusRule = StatusRule()
    trust_root: TrustRootRule | None = None
    timestamps: Annotated[tuple[Authority, ...], msgspec.Meta(max_length=16)] = ()
    parents: ParentsRule = ParentsRule()

    def rule(self, role: Role) -> RoleRule | None:
        """Return the rule of a role; parents are signed by those listed for them, or by publishers."""
        if role is Role.PARENT:
            both = (*self.parents.any, *self.roles.publisher.any)
            return RoleRule(any=tuple(dict.fromkeys(both)))
        found: RoleRule | None = getattr(self.roles, role.value)
        return found

    def threshold(self, role: Role) -> int:
        """Return how many of a role must say the same."""
        rule = self.rule(role)
        return rule.threshold if rule is not None else 1

    def demands(self) -> list[RecomputeRule | EndorsementRule | ReleaseRule]:
        """Return what a release must carry beside signature and lineage."""
        found = [entry for entry in self.require if isinstance(entry, Requirement)]
        return [one for entry in found for one in _chosen(entry)]


def parse(data: bytes, *, where: str) -> Policy:
    """Turn a YAML document into a checked policy.

    Raises:
        PolicyError: the schema is broken, a member is nobody or two, or a demand can't be met.
    """
    # Only who has a policy needs YAML, and its import costs as much as a small verification.
    from parentage.manifest.strict_yaml import parse_yaml

    try:
        policy = msgspec.convert(parse_yaml(data, where=where), Policy)
    except RecipeError as error:
        raise PolicyError(f"policy: {error.what}", where=where, found=error.found) from error
    except msgspec.ValidationError as error:
        raise PolicyError(
            f"not a trust policy: {error}",
            where=where,
            hint="parentage trust init writes one with comments",
        ) from error
    for role in Role:
        rule = policy.rule(role)
        if rule is not None and (role is not Role.PARENT or policy.parents.any):
            _check_role(rule, f"{where}: {role}")
    for requirement in policy.require:
        _check_requirement(policy, requirement, where)
    return policy


def _check_role(rule: RoleRule, where: str) -> None:
    for member in rule.any:
        _check_member(member, where)
    if len(set(rule.any)) != len(rule.any):
        raise PolicyError("a member stands twice", where=where)
    # A pattern may be filled by many; whoever is named exactly counts once.
    exact = all("*" not in (member.identity or "") for member in rule.any)
    if exact and rule.threshold > len(rule.any):
        raise PolicyError(
            "threshold that nobody can reach",
            where=where,
            expected=f"at most {len(rule.any)}",
            found=str(rule.threshold),
        )


def _check_member(member: Member, where: str) -> None:
    given = member.given
    if not any(given and needed <= given <= names for names, needed in _KINDS.values()):
        raise PolicyError(
            "member is not named in one way",
            where=where,
            expected="{key, keySha256}, {root, subject} or {issuer, identity}",
            found=", ".join(sorted(given)) or "nothing",
        )
    if member.issuer is not None and member.identity is not None:
        if "*" in member.issuer or not member.issuer.startswith("https://"):
            raise PolicyError(
                "issuer must be one URL", where=where, expected="https://…", found=member.issuer
            )
        globs.check(member.identity, where)


def _chosen(requirement: Requirement) -> list[RecomputeRule | EndorsementRule | ReleaseRule]:
    given = (requirement.recompute, requirement.endorsement, requirement.release)
    return [one for one in given if one is not None]


def _clear(purl: str) -> bool:
    name, at, version = purl.partition("@")
    return (
        purl.startswith("pkg:")
        and bool(at and version)
        and "*" not in name
        and ("*" not in version or version == "*")
    )


def _check_requirement(
    policy: Policy, requirement: Literal["oms", "lineage"] | Requirement, where: str
) -> None:
    if not isinstance(requirement, Requirement):
        return
    chosen = _chosen(requirement)
    if len(chosen) != 1:
        raise PolicyError(
            "requirement is not one thing",
            where=f"{where}: require",
            expected="recompute, endorsement or release",
        )
    if policy.rule(Role(chosen[0].by)) is None:
        raise PolicyError(
            "required of a role that nobody fills",
            where=f"{where}: require",
            expected=f"roles: {chosen[0].by}",
        )
    if isinstance(chosen[0], ReleaseRule) and not _clear(chosen[0].purl):
        raise PolicyError(
            "package URL leaves open what it is",
            where=f"{where}: require",
            expected="pkg:TYPE/NAME@VERSION, and only VERSION may be *",
            found=chosen[0].purl,
        )
    if isinstance(chosen[0], RecomputeRule) and not 0 < ratio(chosen[0].coverage) <= 1:
        raise PolicyError(
            "coverage is no share",
            where=f"{where}: require",
            expected="more than 0, at most 1",
            found=chosen[0].coverage,
        )
