"""A first policy, with comments: what `parentage trust init` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from parentage.attest.policy import Member, Role, parse

_HEAD = """\
# Whom this gate believes, and for what. Check it: parentage trust check FILE
# Format: docs/trust.md; schema: schemas/policy-v0.1.json.
version: "0.1"
roles:
"""
_ABOUT = {
    Role.PUBLISHER: "signs releases: model.sig and the lineage",
    Role.SUCCESSOR: "may say a release's status after its publisher left",
    Role.VERIFIER: "recomputes releases and signs what it found; a publisher is never counted",
    Role.WITNESS: "signs what it saw: a hub, a parent's publisher, a lab",
    Role.RECOVERY: "withdraws what a stolen key signed; keep these keys offline",
    Role.EVALUATOR: "signs which scores a release reached",
}
_TAIL = """\
# What a release must carry beside signature and lineage, for instance that verifiers recomputed it:
#   require: [{recompute: {min: exact, coverage: "1", by: verifier}}]
require: [oms, lineage]
status:
  # A `current` older than this, or none, is "missing". `fail` makes leaving out a withdrawal useless.
  # maxAge: 30d
  onMissing: warn       # ignore, warn, fail
  onWithdrawn: fail     # warn, fail
  onSuperseded: warn    # warn, fail
  onDispute: warn       # of verifiers and witnesses; a stranger's dispute is only shown
parents:
  depth: 1              # 0: parents' own claims are not followed
  unsigned: warn        # ignore, warn, fail
  onWithdrawn: warn     # warn, fail
# trustRoot: {maxAge: 90d}   # of keyless trust
# timestamps: [{root: tsa.pem}]   # authorities that are believed about when a signature was made
"""


def text_of(members: Mapping[Role, Sequence[Member]], thresholds: Mapping[Role, int]) -> str:
    """Return a policy with these members.

    Raises:
        PolicyError: it would be none: a role without members, a threshold too high, a loose pattern.
    """
    lines = [_HEAD]
    for role, about in _ABOUT.items():
        given = members.get(role, ())
        lines.append(f"  # {about}\n")
        if not given:
            lines.append(f"  # {role}: {{any: [{{key: {role}.pub}}], threshold: 1}}\n")
            continue
        lines.append(f"  {role}:\n    any:\n")
        lines += [f"      - {_flow(member)}\n" for member in given]
        lines.append(f"    threshold: {thresholds.get(role, 1)}\n")
    text = "".join([*lines, _TAIL])
    parse(text.encode(), where="policy")
    return text


def _flow(member: Member) -> str:
    names = {"key_sha256": "keySha256", "root_sha256": "rootSha256"}
    names |= {"repo_id": "repoId", "owner_id": "ownerId"}
    fields = [name for name in member.__struct_fields__ if getattr(member, name) is not None]
    # JSON's strings are YAML's, too.
    shown = [
        f"{names.get(n, n)}: {json.dumps(getattr(member, n), ensure_ascii=False)}" for n in fields
    ]
    return "{" + ", ".join(shown) + "}"
