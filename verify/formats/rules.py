"""What codes mean, in one sentence each, and what tells two results of a code apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from parentage.manifest.errors import ParentageError
from parentage.verify.formats.grouping import Group
from parentage.verify.showing import Shown

#: Where the codes and formats are written down, in this repository.
DOCS: Final = "docs/gates.md"
#: Codes of findings. Errors met on the way are known by their classes, gate checks and card rules by theirs.
MEANINGS: Final = {
    "benchmark-unsigned": "No statement is about this results file",
    "binding-too-weak": "Scores are bound to the weights more weakly than the gate demands",
    "card-unreadable": "The model card, or what it is compared with, can't be read",
    "dataset-not-pinned": "Nothing says which documents a benchmark task had",
    "denied": "The release is valid, and the policy says no",
    "dispute": "Somebody whom the policy does not list disagrees with the release",
    "disputed": "A verifier or witness of the policy disagrees with the release",
    "file-digest": "A file's contents are not those that were signed",
    "file-missing": "A signed file is not here",
    "file-size": "A file has another size than the one that was signed",
    "file-unsigned": "A file lies in the release that the signature does not cover",
    "frozen-tensor-changed": "A tensor that the training declares as frozen differs from its base",
    "header-digest": "The header of a weights file is not the signed one",
    "hidden-merge": "The weights are a merge that the lineage does not declare",
    "ignored-content": "The signer left out a file that loaders read",
    "manifest-malformed": "A file of the manifest breaks its format",
    "is-intermediate": "What was released is the output of an earlier step",
    "is-known-model": "The weights are those of a release that was given to compare with",
    "key-compromised": "The signing key was stolen before this was provably signed",
    "legacy-signature": "The model signature has a form from before model_signing 1.1",
    "lineage-not-known": "Where the weights come from is not known as the gate demands",
    "lineage-ring": "The claims of a release and its parents go in a ring",
    "log-unsigned": "No counted statement names the log of samples",
    "metric-not-listed": "The board does not count this metric",
    "more-problems": "More problems than this format lists",
    "no-trace": "The declared training changed nothing",
    "not-finite": "Weights hold NaN or infinity",
    "parent-is-another": "Weights given as a parent are not those that the lineage names",
    "parent-lineage": "What a parent says of itself contradicts this release",
    "parent-unreachable": "A parent can't be brought from where the lineage says that it is",
    "parent-unreadable": "Weights given as a parent can't be read",
    "parent-unsigned": "Nobody whom the policy lists signed this parent",
    "read-from-pickle": "Weights were read from a pickle",
    "recipe-mismatch": "The recipe, recomputed, does not give these weights",
    "refuted": "Evidence contradicts the claim",
    "replay-differs": "Logged samples, scored again, do not have the scores that were logged",
    "repository-moved": "A repository of a Hub was found under another name than the one asked for",
    "requirement-not-met": "The trust policy demands a statement that is not here",
    "score-contradicted": "A row of the leaderboard contradicts what was signed",
    "score-differs": "An evaluator signed another score of the same task",
    "score-unproven": "Nothing that the gate counts proves a row of the leaderboard",
    "signature-vanished": "A signature that the lock file remembers is gone",
    "signer-changed": "Somebody else signed than the lock file remembers",
    "slice-digest": "A slice of a weights file is not what was signed",
    "statement-not-counted": "No statement about this results file counts",
    "status-fork": "Two statuses of one sequence contradict each other",
    "status-history": "The chain of statuses has a gap",
    "status-missing": "No status says that the release is current",
    "status-unreadable": "A status can't be read",
    "status-went-back": "A statement that the lock file remembers is gone",
    "step-output": "A step, recomputed, does not give the output that it declares",
    "table-contradicts-signature": "Tensor table and model signature name different contents",
    "task-differs": "A task's data set, hash or version is another than the board's",
    "task-not-listed": "The board has no such task",
    "tensor-digest": "A tensor's contents are not those that were signed",
    "tensor-form": "A tensor has another shape or dtype than the recipe gives",
    "tensor-from-nowhere": "No step of the recipe makes this tensor",
    "tensor-missing": "A signed tensor is not here",
    "tensor-not-there": "The recipe makes a tensor that the release lacks",
    "tensor-place": "A header puts a tensor elsewhere than the signed table",
    "tensor-unsigned": "A tensor is here that the signed table does not have",
    "too-few-signers": "Fewer publishers signed than the policy demands",
    "training-base-differs": "The declared base is not what the training started from",
    "training-too-far": "Weights moved further than the declared learning rates allow",
    "unannounced-replacement": "The lock file remembers other contents, and nobody announced these",
    "uncovered-content": "A file that loaders read is not covered by the signature",
    "unproven": "It could not be decided whether the claim holds",
    "unsigned": "There is no signature to verify",
    "weights-differ": "Scores are signed as those of other weights",
    "weights-files": "Folder and tensor table have different weights files",
    "weights-newer": "Weights were written after the manifest was made",
    "weights-staged": "Weights that are to be committed are not the manifest's",
    "weights-root": "The lineage is about other weights",
    "weights-size": "The lineage counts other tensors or bytes than the tensor table",
}


def about(code: str, own: Mapping[str, str]) -> str:
    """Return what a code means, by the result's own table or by the common one; empty: neither has it."""
    return own.get(code) or MEANINGS.get(code) or _errors().get(code, "")


def fingerprint(shown: Shown, group: Group) -> str:
    """Return a name of a result that a new revision, other counts and moved lines leave as it is."""
    subject = shown.subject.partition("@")[0]
    parts = ("1", shown.command, subject, group.code, group.file, group.module)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@cache
def _errors() -> dict[str, str]:
    found: dict[str, str] = {}
    for error in _below(ParentageError):
        first = (error.__doc__ or "").strip().partition("\n")[0]
        found.setdefault(error.code, first.rstrip("."))
    return found


def _below(error: type[ParentageError]) -> Iterator[type[ParentageError]]:
    for child in error.__subclasses__():
        yield child
        yield from _below(child)
