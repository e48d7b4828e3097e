"""What a gate's file comes to: every check, and how the file has it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from parentage.verify.gates.checks import CHECKS
from parentage.verify.gates.policy import Rules


class Explained(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One check.

    Attributes:
        code: of its reasons.
        rule: where the file sets it; empty: it always holds.
        what: one sentence.
        value: what the file says of it, or what holds where it says nothing.
    """

    code: str
    rule: str
    what: str
    value: Any = None


def explained(rules: Rules | None = None) -> list[Explained]:
    """Return all checks, with their values where a gate is given."""
    return [
        Explained(
            code=check.code,
            rule=check.rule,
            what=check.what,
            value=_value(rules, check.rule) if rules is not None and check.rule else None,
        )
        for check in CHECKS
    ]


def demanded(rules: Rules) -> str:
    """Return the verification that a gate demands, in words."""
    recompute = f"every step recomputed to rung {rules.rung}" if rules.level == "recompute" else ""
    compared = (
        "signature, whole files, tensors" if rules.whole_files else "signature, files, tensors"
    )
    if rules.level == "remote":
        compared = f"signature, what a Hub declares, headers, {rules.slices} slices; no download"
    parts = [
        compared,
        recompute,
        "recomputes by verifiers, as the trust policy demands" if rules.attested else "",
    ]
    return "; ".join(part for part in parts if part)


def _value(rules: Rules, path: str) -> Any:  # noqa: ANN401  (JSON)
    found: Any = rules
    for name in path.split("."):
        found = getattr(found, re.sub("[A-Z]", lambda m: "_" + m[0].lower(), name))
    return msgspec.to_builtins(found)
