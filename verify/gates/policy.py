"""The rules of gates: typed YAML, closed, published as `schemas/gate-v0.1.json`.

    version: "0.1"
    trust: trust.yaml
    upload: {level: recompute, rung: A, licences: {deny: [cc-by-nc-4.0]}}
    download: {level: integrity, card: {all: warning}}
    benchmark: {binding: observed, lineage: exact}

What is left out is strict about what no release needs, and asks nothing else. Paths are relative to the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from parentage.attest.keys import PublicKey
from parentage.attest.policy import OnIt, RecomputeRule, Text
from parentage.attest.policy_file import load as load_trust
from parentage.attest.roles import Believed
from parentage.attest.trusted_root import TrustedRoot
from parentage.manifest.errors import PolicyError, RecipeError, UsageError
from parentage.manifest.wire import Glob, Hex, Wire
from parentage.verify.benchmarks.rules import BenchmarkRules
from parentage.verify.cards.levels import WORDS, rule_id
from parentage.verify.showing import Level

MAX_GATE: Final = 1 << 20
_INIT: Final = "parentage gate init writes one with comments"
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
_Globs = Annotated[tuple[Glob, ...], msgspec.Meta(max_length=256)]
_Word = Literal["ignore", "note", "warning", "error"]
#: Names every rule of cards that is not named itself.
ALL: Final = "all"


class Denied(Wire, frozen=True, kw_only=True):
    """Weights that must not be here, or made use of; exactly one of these.

    Attributes:
        root: of the weights, in any profile: found also where the release or a step's output is it.
        repo: "org/name" of a parent's locator, `*` as a glob. A publisher may leave a locator out.
    """

    root: Hex | None = None
    repo: Text | None = None


class ParentRules(Wire, frozen=True, kw_only=True):
    """What a release may be made from.

    Attributes:
        allow: roots of weights; empty: any. Names bind nobody, so only roots can allow.
        deny: weights.
        fetch: bring parents that were not given from where the lineage says that they are.
    """

    allow: Annotated[tuple[Hex, ...], msgspec.Meta(max_length=1024)] = ()
    deny: Annotated[tuple[Denied, ...], msgspec.Meta(max_length=1024)] = ()
    fetch: bool = False


class LicenceRules(Wire, frozen=True, kw_only=True):
    """Licences of the release, by its card, and of its parents, by the lineage.

    Attributes:
        allow: names as the Hub or SPDX has them, in any case; empty: any that is not denied.
        deny: likewise.
        unknown: none is given.
    """

    allow: Annotated[tuple[Text, ...], msgspec.Meta(max_length=256)] = ()
    deny: Annotated[tuple[Text, ...], msgspec.Meta(max_length=256)] = ()
    unknown: OnIt = "warn"


class FileRules(Wire, frozen=True, kw_only=True):
    """Files of a release.

    Attributes:
        allow: globs, `*` passes slashes; empty: any.
        deny: globs.
        max_bytes: of all.
        max_file_bytes: of one.
        max_files: how many.
    """

    allow: _Globs = ()
    deny: _Globs = ()
    max_bytes: _Count | None = None
    max_file_bytes: _Count | None = None
    max_files: _Count | None = None


class Rules(Wire, frozen=True, kw_only=True):
    """What a gate demands of a release.

    Attributes:
        level: the recipe too; signature and digests only; or what can be had from a Hub without a download.
        slices: chunks of 1 MiB that "remote" reads of the weights.
        rung: weakest that counts.
        whole_files: SHA-256 of weights files too.
        declared: kinds of steps that can't be recomputed and are taken at their word.
        no_recipe: the lineage says nothing of where the weights come from.
        attested: the trust policy must demand recomputes by verifiers.
        status: "current": a valid status must say so.
        deny_steps: ops that must not occur, such as "abliterate/v1".
        pickles: files that run code when they are loaded.
        code: code beside the weights, or a config that asks for it (`auto_map`, `custom_pipelines`,
            modules of sentence-transformers that are not its own).
        other_weights: weights files that no tensor of the table is in.
        ignored: files that the signer left out, beyond those that the specification does.
        parents, licences, files: see there.
        card: levels of the card's rules, by id or slug; "all" is every other.
    """

    level: Literal["recompute", "integrity", "remote"] = "recompute"
    slices: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    rung: Literal["A", "B", "C"] = "A"
    whole_files: bool = False
    declared: tuple[Literal["training", "opaque"], ...] = ()
    no_recipe: OnIt = "fail"
    attested: bool = False
    status: Literal["any", "current"] = "any"
    deny_steps: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    pickles: OnIt = "fail"
    code: OnIt = "fail"
    other_weights: OnIt = "fail"
    ignored: OnIt = "fail"
    parents: ParentRules = ParentRules()
    licences: LicenceRules = LicenceRules()
    files: FileRules = FileRules()
    card: dict[Text, _Word] = msgspec.field(default_factory=dict)

    def levels(self) -> dict[str, Level | None]:
        """Return the levels of the card's rules that differ from their own.

        Raises:
            UsageError: no such rule.
        """
        from parentage.verify.cards.rules import RULES

        named = {rule_id(name): WORDS[word] for name, word in self.card.items() if name != ALL}
        if ALL not in self.card:
            return named
        return {**dict.fromkeys(RULES, WORDS[self.card[ALL]]), **named}


class GatePolicy(Wire, frozen=True, kw_only=True):
    """The whole file.

    Attributes:
        version: of this format.
        trust: the trust policy: who may sign, and what must have been said.
        lock: the lock file, which need not exist; None: nothing is remembered.
        upload: of a release that is to be published.
        download: of a release that is to be used.
        benchmark: of scores that are to be shown.
    """

    version: Literal["0.1"]
    trust: Text
    lock: Text | None = None
    upload: Rules | None = None
    download: Rules | None = None
    benchmark: BenchmarkRules | None = None

    def gates(self) -> dict[str, Rules]:
        """Return the gates that the file has rules for."""
        given = {"upload": self.upload, "download": self.download}
        return {name: rules for name, rules in given.items() if rules is not None}


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's file, read with the trust policy that it names.

    Attributes:
        path: of the file.
        sha256: of the file.
        policy: what it says.
        believed: the trust policy.
    """

    path: Path
    sha256: str
    policy: GatePolicy
    believed: Believed

    @property
    def lock(self) -> Path | None:
        """The lock file."""
        return None if self.policy.lock is None else self.path.parent / self.policy.lock

    def board(self) -> BenchmarkRules:
        """Return what is demanded of benchmark scores.

        Raises:
            PolicyError: the file says nothing of them, or nobody may sign any.
        """
        found, trust = self.policy.benchmark, self.believed.policy
        if found is None:
            raise PolicyError(
                "this file says nothing of benchmarks",
                where=str(self.path),
                expected="benchmark: {binding: observed, lineage: exact}",
                hint=_INIT,
            )
        if trust is None or trust.roles.evaluator is None:
            raise PolicyError(
                "scores are demanded of evaluators, and the trust policy has none",
                where=f"{self.path}: benchmark",
                expected=f"roles: {{evaluator: {{any: […]}}}} in {self.policy.trust}",
                hint="parentage trust init --evaluator lab.pub",
            )
        return found

    def rules(self, gate: Literal["upload", "download"]) -> Rules:
        """Return what one gate demands.

        Raises:
            PolicyError: the file says nothing of it, or demands what its trust policy does not.
        """
        found = self.policy.gates().get(gate)
        if found is None:
            raise PolicyError(
                f"this file says nothing of {gate}s",
                where=str(self.path),
                expected=f"{gate}: {{level: …}}",
                hint=_INIT,
            )
        demands = self.believed.policy.demands() if self.believed.policy else []
        if found.attested and not any(isinstance(one, RecomputeRule) for one in demands):
            raise PolicyError(
                "attested recomputes are demanded, and the trust policy asks no verifier for one",
                where=f"{self.path}: {gate}",
                expected=f"require: [{{recompute: {{}}}}] in {self.policy.trust}",
            )
        return found


def parse(data: bytes, *, where: str) -> GatePolicy:
    """Turn a YAML document into the rules of gates.

    Raises:
        PolicyError: the schema is broken, no gate is named, or a rule is not one.
    """
    from parentage.manifest.strict_yaml import parse_yaml

    try:
        policy = msgspec.convert(parse_yaml(data, where=where), GatePolicy)
    except RecipeError as error:
        raise PolicyError(f"gate: {error.what}", where=where, found=error.found) from error
    except msgspec.ValidationError as error:
        raise PolicyError(f"not the rules of a gate: {error}", where=where, hint=_INIT) from error
    for name, rules in policy.gates().items():
        _check(rules, f"{where}: {name}")
    return policy


def load(
    path: Path,
    keys: tuple[PublicKey, ...] = (),
    root: TrustedRoot | None = None,
    *,
    usable: bool = True,
) -> Gate:
    """Read a gate's file and the trust policy that it names.

    Args:
        path: of the file.
        keys: for members whom the trust policy names by fingerprint only.
        root: of the Sigstore instance that vouches for identities.
        usable: whether nothing at hand to verify with is an error.

    Raises:
        PolicyError: one of them is no such file.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_GATE + 1)
    except OSError as error:
        raise PolicyError(f"can't read: {error.strerror}", where=str(path)) from error
    if len(data) > MAX_GATE:
        raise PolicyError("file too large", where=str(path), expected=f"<= {MAX_GATE} bytes")
    policy = parse(data, where=str(path))
    believed = load_trust(path.parent / policy.trust, keys, usable=usable, root=root)
    return Gate(
        path=path, sha256=hashlib.sha256(data).hexdigest(), policy=policy, believed=believed
    )


def _check(rules: Rules, where: str) -> None:
    try:
        rules.levels()
    except UsageError as error:
        raise PolicyError(
            f"card: {error.what}", where=where, expected=error.expected, found=error.found
        ) from error
    for denied in rules.parents.deny:
        if (denied.root is None) == (denied.repo is None):
            raise PolicyError(
                "what is denied is not named in one way",
                where=f"{where}: parents",
                expected="{root: …} or {repo: …}",
            )
