"""The error tree: "cannot go on", never "the claim is false" (that is a finding, in the report).

Every error carries what is wrong, where, what was expected, what was found and the next command to
type. Its `exit_code` is the one of DESIGN section 7.
"""

from __future__ import annotations

from typing import ClassVar, Final

EXIT_VERIFIED: Final = 0
EXIT_REFUTED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNSIGNED: Final = 3
EXIT_UNPROVEN: Final = 4
EXIT_DENIED: Final = 5

_SHOWN = 200


def printable(text: str, limit: int = _SHOWN) -> str:
    """Escape text from outside so that it can't drive a terminal, a page or an annotation."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    said = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    # GitHub's runner obeys "##[command]" anywhere in a line of a log (actions/runner, ActionCommand.cs).
    return said.replace("##[", "##\\x5b")


class ParentageError(Exception):
    """The root of the tree.

    Attributes:
        code: a stable kebab-case name of the failure.
        where: file, tensor, step or field.
        expected, found: the two values that disagree, as text.
        hint: the next command to type.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = EXIT_REFUTED

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        found: str = "",
        hint: str = "",
    ) -> None:
        self.what = printable(what, 600)
        self.where = printable(where)
        self.expected = printable(expected)
        self.found = printable(found)
        self.hint = printable(hint, 400)
        super().__init__(self.describe())

    def describe(self) -> str:
        """Return the message on several lines: what, where, expected, found, next."""
        lines = [self.what]
        for label, value in (
            ("where", self.where),
            ("expected", self.expected),
            ("found", self.found),
            ("next", self.hint),
        ):
            if value:
                lines.append(f"  {label + ':':<10}{value}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str]:
        """Return the fields of the JSON form (`--json`)."""
        return {
            "code": self.code,
            "message": self.what,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "next": self.hint,
        }


class UsageError(ParentageError):
    """The command or call itself is wrong."""

    code = "usage"
    exit_code = EXIT_USAGE


class UnsignedError(ParentageError):
    """There is nothing to verify: no manifest or no signature."""

    code = "unsigned"
    exit_code = EXIT_UNSIGNED


class CannotRunError(ParentageError):
    """The answer can't be had here: a parent, a device, an extra or disk space is missing."""

    code = "cannot-run"
    exit_code = EXIT_UNPROVEN


class MissingExtraError(CannotRunError):
    """An optional dependency is needed and absent."""

    code = "missing-extra"


class ParentMissingError(CannotRunError):
    """A parent's weights are needed and were not given."""

    code = "parent-missing"


class WriteFailedError(CannotRunError):
    """The disk is full or read-only; what was there before is untouched."""

    code = "write-failed"


class HubError(CannotRunError):
    """A Hub can't be read now: it does not answer, or refuses."""

    code = "hub"


class HubOfflineError(HubError):
    """Something must be read from a Hub, and HF_HUB_OFFLINE forbids it."""

    code = "hub-offline"


class HubTokenError(HubError):
    """A Hub refuses the token: expired, revoked, or without the right to do this."""

    code = "hub-token"


class HubGatedError(HubError):
    """A repository whose owner must let readers in first."""

    code = "hub-gated"


class HubNotFoundError(HubError):
    """A Hub shows no such repository, revision or file; a private one looks the same."""

    code = "hub-not-found"


class HubUnreachableError(HubError):
    """A Hub did not answer in time, however often it was asked."""

    code = "hub-unreachable"


class HubAnswerError(HubError):
    """A Hub or mirror answered something else than it was asked."""

    code = "hub-answer"


class HubMovedError(HubError):
    """Somebody else changed a repository while it was written to."""

    code = "hub-moved"


class HubContentError(HubError):
    """A Hub or mirror gave other bytes than it lists for the file at that commit."""

    code = "hub-content"


class KeylessError(CannotRunError):
    """A keyless signature can't be had now: no identity, or a service is down or answers nonsense."""

    code = "keyless"


class TrustedRootError(CannotRunError):
    """A Sigstore trusted root that can't be used: malformed, empty or too old."""

    code = "trusted-root"


class MalformedError(ParentageError):
    """Input that breaks its own format."""

    code = "malformed"


class JsonError(MalformedError):
    """Not the strict JSON that we read: duplicate key, NaN, too large, too deep."""

    code = "json"


class YamlError(MalformedError):
    """YAML that we don't read: too large, too deep, an alias, a tag, a key that stands twice."""

    code = "yaml"


class CardError(MalformedError):
    """A model card that can't be read: too large, not UTF-8, front matter that is no mapping."""

    code = "card"


class HeaderError(MalformedError):
    """A safetensors header that is truncated, oversized, overlapping or lying."""

    code = "safetensors-header"


class GgufError(MalformedError):
    """A GGUF file that breaks its format, or holds tensors of a type that we don't read."""

    code = "gguf"


class OnnxError(MalformedError):
    """An ONNX file that breaks its format, or whose initialisers are not raw bytes inside it."""

    code = "onnx"


class PickleError(MalformedError):
    """A .pt or .bin that is more than tensors, or wants code to run."""

    code = "pickle"


class ShardIndexError(MalformedError):
    """A `model.safetensors.index.json` that does not describe the shards beside it."""

    code = "shard-index"


class FileSetError(MalformedError):
    """A file that can't be part of a release: a link out, a special file, a bad name."""

    code = "file-set"


class TensorTableError(MalformedError):
    """A `.parentage/tensors.jsonl` or `leaves.bin` that is not canonical or not consistent."""

    code = "tensor-table"


class RecipeError(MalformedError):
    """A recipe that can't be one: cycle, unknown op or field, inexact ratio."""

    code = "recipe"


class ShapeMismatchError(RecipeError):
    """The inputs of a step do not fit: another architecture, missing tensor, shape or dtype."""

    code = "inputs-mismatch"


class LineageError(MalformedError):
    """A lineage predicate that breaks its schema."""

    code = "lineage"


class StatementError(MalformedError):
    """An in-toto statement that breaks its schema."""

    code = "statement"


class ResultsError(MalformedError):
    """A benchmark's results file or samples log that is of no known format, or breaks its own."""

    code = "results"


class BundleError(MalformedError):
    """A bundle or envelope that breaks its format."""

    code = "bundle"


class SignatureError(ParentageError):
    """A signature that does not verify, or is not by a trusted key."""

    code = "signature"


class CertificateError(SignatureError):
    """A certificate that does not lead to a trusted root at the time that counts."""

    code = "certificate"


class TimestampError(SignatureError):
    """An RFC 3161 timestamp that is broken, of something else, or by an authority not trusted."""

    code = "timestamp"


class SigningFailedError(CannotRunError):
    """What should sign or stamp did not: a command, a token, a timestamp authority."""

    code = "signing-failed"


class SigningKeyError(ParentageError):
    """A key that can't be read or used."""

    code = "key"
    exit_code = EXIT_USAGE


class PolicyError(UsageError):
    """A trust policy that breaks its schema, or that can never be met."""

    code = "policy"


class LockError(UsageError):
    """A lock file that breaks its schema, or that somebody else changed meanwhile."""

    code = "lock"


class JournalError(UsageError):
    """A journal that can't be resumed from: of other inputs, in use, or open to others."""

    code = "journal"


class PartError(ParentageError):
    """A partial result that is not believed: by whom, of what, or beside which others."""

    code = "part"
