"""The checks of gates, one line each. Codes are stable.

To add one: a function in a file here that yields reasons, its line in the table, and its rule in policy.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from parentage.verify.gates.checks import content, origin, recipe, standing
from parentage.verify.gates.facts import Facts
from parentage.verify.gates.reasons import Reason


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check.

    Attributes:
        code: of its reasons.
        rule: where the gate's file sets it; empty: it can't be set.
        what: one sentence.
        look: yields reasons.
    """

    code: str
    rule: str
    what: str
    look: Callable[[Facts], Iterator[Reason]]


CHECKS: Final = (
    Check(code="nothing-checked", rule="", look=recipe.nothing,
          what="Not a tensor, or not every tensor, was compared with what was signed"),
    Check(code="recipe-missing", rule="noRecipe", look=recipe.missing,
          what="The lineage does not say where the weights come from"),
    Check(code="rung-not-reached", rule="rung", look=recipe.rung,
          what="A step was not recomputed to the rung that is demanded"),
    Check(code="step-declared", rule="declared", look=recipe.declared,
          what="A step can only be taken at its word, and this gate does not"),
    Check(code="step-denied", rule="denySteps", look=recipe.denied,
          what="The recipe has a step that this gate does not let through"),
    Check(code="status-not-current", rule="status", look=standing.current,
          what="No valid status says that the release is current"),
    Check(code="parent-denied", rule="parents.deny", look=origin.denied,
          what="The release is, or is made from, weights that are denied"),
    Check(code="parent-not-allowed", rule="parents.allow", look=origin.not_allowed,
          what="A parent is not among those that are allowed"),
    Check(code="licence-denied", rule="licences.deny", look=origin.licence_denied,
          what="A licence of the release or of a parent is denied, or not among those allowed"),
    Check(code="licence-unknown", rule="licences.unknown", look=origin.licence_unknown,
          what="The release or a parent has no licence"),
    Check(code="pickle", rule="pickles", look=content.pickles,
          what="A file runs code when it is loaded"),
    Check(code="remote-code", rule="code", look=content.code,
          what="The release brings code, or asks for it"),
    Check(code="weights-unverified", rule="otherWeights", look=content.other_weights,
          what="Weights lie beside those that were verified"),
    Check(code="file-ignored", rule="ignored", look=content.ignored,
          what="The signer left a file out of the signature"),
    Check(code="file-denied", rule="files.deny", look=content.denied,
          what="A file has a name that is denied, or not among those allowed"),
    Check(code="release-too-large", rule="files.maxBytes", look=content.large,
          what="The release has more files or bytes than are allowed"),
)  # fmt: skip
