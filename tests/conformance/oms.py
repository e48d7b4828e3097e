"""Run the public OMS conformance cases, and the folders that earlier releases signed, against us.

    python tests/conformance/oms.py [--only key|certificate|sigstore] [--adapter PROGRAM]

Each case runs through the adapter (or another program with its protocol). The cases are the suite's data;
what is asked of a bundle is what its specification asks, checked here. Cases that sign as a live CI
identity need a network and are counted as not run.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from data import vectors

IDENTITY = ["--identity", "stefanb@us.ibm.com"]
IDENTITY += ["--identity-provider", "https://sigstore.verify.ibm.com/oauth2"]
HISTORY = {"certificate": "certificate", "elliptic-key": "key", "sigstore": "sigstore"}
TYPES = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": "https://model_signing/signature/v1.0",
}


class FailedError(Exception):
    """A case that did not end as it should."""


@dataclass
class Case:
    """One case: its group in the table, its name, its method, and how it is run in a folder."""

    group: str
    name: str
    method: str
    run: Callable[[Adapter, Path], None] | None


@dataclass
class Adapter:
    """The program under test."""

    command: list[str]

    def __call__(self, *words: str | Path) -> tuple[bool, str]:
        """Run it; say whether it succeeded, and what it printed."""
        done = subprocess.run(
            [*self.command, *map(str, words)], capture_output=True, text=True, check=False
        )
        output = (done.stdout + done.stderr)[-600:]
        # A case whose key is not in the data can't but be a usage error; no other may be.
        complete = all(
            word.exists() for word in words if isinstance(word, Path) and word.suffix == ".pem"
        )
        require(done.returncode != 2 or not complete, f"usage error: {output}")
        require("Traceback" not in output, output)
        return done.returncode == 0, output


@dataclass
class Tally:
    """A line of the table."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    not_run: int = 0


def cases(suite: Path, history: Path) -> Iterator[Case]:
    for folder in sorted((suite / "test-cases" / "roundtrip").iterdir()):
        config = json.loads((folder / "config.json").read_bytes())
        live = config.get("requires_ci", False)
        yield Case("sign and verify", folder.name, config["method"],
                   None if live else roundtrip(suite, folder.name, config))  # fmt: skip
    for kind in ("positive", "negative", "historical"):
        for folder in sorted((suite / "test-cases" / "verify" / kind).iterdir()):
            config = json.loads((folder / "config.json").read_bytes())
            yield Case(f"verify, {kind}", folder.name, config["method"],
                       verification(suite, folder, config))  # fmt: skip
    for folder in sorted(history.glob("v*-*")):
        method = HISTORY[folder.name.partition("-")[2]]
        yield Case("folders of releases 0.2.0 to 1.1.0", folder.name, method,
                   signed_folder(history, folder, method))  # fmt: skip


def roundtrip(suite: Path, name: str, config: dict[str, Any]) -> Callable[[Adapter, Path], None]:
    def run(adapter: Adapter, place: Path) -> None:
        model = placed(suite / config["model"], place, config)
        inside = config.get("sig_inside_model", False)
        bundle = (model if inside else place) / "bundle.sig"
        said, asked = config.get("sign", {}), config.get("verify", {})
        words: list[str | Path] = ["--method", config["method"], "--model-path", model]
        signing = [*words, "--output-bundle", bundle]
        signing += keys(
            suite, said, {"private_key": "--private-key", "signing_cert": "--signing-cert"}
        )
        signing += ignores(model, asked)
        done, output = adapter("sign-model", *signing)
        if config.get("expect") == "fail":
            return require(not done, "signed what must be refused")
        require(done, output)
        check_bundle(bundle, config)
        if asked.get("ignore_unsigned_files") and asked.get("ignore_paths"):
            (model / "injected.bin").write_text("injected after signing\n")
        require(*adapter("verify-model", *words, "--bundle", bundle, *asking(suite, model, asked)))
        if "deterministic" in name:
            again = place / "again.sig"
            adapter("sign-model", *signing[:4], "--output-bundle", again, *signing[6:])
            require(statement(again) == statement(bundle), "signing twice gives two statements")
        return None

    return run


def verification(
    suite: Path, folder: Path, config: dict[str, Any]
) -> Callable[[Adapter, Path], None]:
    def run(adapter: Adapter, place: Path) -> None:
        near = config.get("model_relative_to") == "test_dir"
        model = placed((folder if near else suite) / config["model"], place, config)
        words = [
            "--method",
            config["method"],
            "--model-path",
            model,
            "--bundle",
            folder / "bundle.sig",
        ]
        done, output = adapter("verify-model", *words, *asking(suite, model, config["verify"]))
        if config.get("expect") == "fail" or folder.name.endswith("_fail"):
            require(not done, "accepted what must be refused")
        else:
            require(done, output)

    return run


def signed_folder(history: Path, folder: Path, method: str) -> Callable[[Adapter, Path], None]:
    def run(adapter: Adapter, place: Path) -> None:
        copy = place / folder.name
        shutil.copytree(folder, copy)
        # Releases up to 1.0.0 signed the one file of these folders, not the folder.
        model = copy if (copy / "signme-2").exists() else copy / "signme-1"
        words = ["--method", method, "--model-path", model, "--bundle", copy / "model.sig"]
        if (copy / "ignore-me").exists():
            words += ["--ignore-paths", copy / "ignore-me"]
        held = history / "keys" / "certificate"
        given = {
            "key": ["--public-key", held / "signing-key-pub.pem"],
            "certificate": ["--cert-chain", held / "ca-cert.pem"],
            "sigstore": IDENTITY,
        }
        require(*adapter("verify-model", *words, *given[method]))

    return run


def placed(source: Path, place: Path, config: dict[str, Any]) -> Path:
    """Copy a model and change the copy as the case says."""
    if source.is_file():
        target = Path(shutil.copy(source, place / source.name))
    else:
        target = Path(shutil.copytree(source, place / "model", symlinks=True))
    folder = target if target.is_dir() else target.parent
    changes = config.get("model_modifications", {})
    for name, text in {**changes.get("tamper", {}), **changes.get("inject", {})}.items():
        (folder / name).write_text(text)
    for name in changes.get("delete", []):
        (folder / name).unlink(missing_ok=True)
    for name, leads_to in changes.get("symlinks", {}).items():
        (folder / name).symlink_to(leads_to)
    return target


def keys(suite: Path, said: dict[str, Any], options: dict[str, str]) -> list[str | Path]:
    words: list[str | Path] = []
    for field_, option in options.items():
        if said.get(field_):
            words += [option, suite / said[field_]]
    for path in said.get("cert_chain", []):
        words += ["--cert-chain", suite / path]
    return words


def ignores(model: Path, asked: dict[str, Any]) -> list[str | Path]:
    folder = model if model.is_dir() else model.parent
    return [w for path in asked.get("ignore_paths", []) for w in ("--ignore-paths", folder / path)]


def asking(suite: Path, model: Path, asked: dict[str, Any]) -> list[str | Path]:
    words = keys(suite, asked, {"public_key": "--public-key"}) + ignores(model, asked)
    for field_, option in (
        ("identity", "--identity"),
        ("identity_provider", "--identity-provider"),
    ):
        if asked.get(field_):
            words += [option, asked[field_]]
    return words + (["--ignore-unsigned-files"] if asked.get("ignore_unsigned_files") else [])


def statement(bundle: Path) -> Any:
    return json.loads(base64.b64decode(json.loads(bundle.read_bytes())["dsseEnvelope"]["payload"]))


def check_bundle(bundle: Path, config: dict[str, Any]) -> None:
    """Check what the specification asks of a bundle that was made: sections 4 to 6."""
    document = json.loads(bundle.read_bytes())
    require(
        document.keys() == {"mediaType", "verificationMaterial", "dsseEnvelope"}, "bundle's fields"
    )
    material, envelope = document["verificationMaterial"], document["dsseEnvelope"]
    kind = {"key": "publicKey", "certificate": "x509CertificateChain", "sigstore": "certificate"}
    kinds = set(kind.values()) & material.keys()
    require(kinds == {kind[config["method"]]}, f"checked by {kinds}")
    require(envelope["payloadType"] == "application/vnd.in-toto+json", "payload type")
    require(len(envelope["signatures"]) == 1, "one signature")
    said = statement(bundle)
    require(said.keys() == {*TYPES, "subject", "predicate"}, "statement's fields")
    require(all(said[name] == value for name, value in TYPES.items()), "statement's types")
    predicate = said["predicate"]
    require(predicate.keys() == {"resources", "serialization"}, "predicate's fields")
    serialization = predicate["serialization"]
    require(serialization["method"] == "files" and "shard_size" not in serialization, "method")
    require(serialization["hash_type"] == "sha256", "hash type")
    require(serialization["allow_symlinks"] is False, "links")
    check_resources(predicate["resources"], said["subject"], config)
    own = bundle.name if config.get("sig_inside_model") else ""
    require(own not in {r["name"] for r in predicate["resources"]}, "the bundle lists itself")


def check_resources(resources: Any, subjects: Any, config: dict[str, Any]) -> None:
    names = [r["name"] for r in resources]
    require(bool(names) and names == sorted(names), f"resources in order: {names}")
    require(
        all(r["algorithm"] == "sha256" and len(r["digest"]) == 64 for r in resources), "digests"
    )
    escaping = [n for n in names if n.startswith("/") or n.endswith("/") or "../" in n]
    require(not escaping, f"resources escape: {escaping}")
    root = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    require(len(subjects) == 1 and bool(subjects[0]["name"]), "one named subject")
    require(subjects[0]["digest"] == {"sha256": root}, "root")
    expected = config.get("expected_signed_files")
    require(expected is None or names == sorted(expected), f"signed {names}, not {expected}")


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FailedError(otherwise)


def attempt(adapter: Adapter, case: Case) -> str:
    """Run a case; return what went wrong, or nothing."""
    assert case.run is not None
    with tempfile.TemporaryDirectory(prefix="parentage-oms-") as place:
        try:
            case.run(adapter, Path(place))
        except FailedError as failure:
            return f"{case.name}: {failure}"
    return ""


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--only", choices=["key", "certificate", "sigstore"])
    given.add_argument("--adapter", help="another program with the protocol")
    words = given.parse_args()
    ours = [sys.executable, str(Path(__file__).with_name("oms_adapter.py"))]
    adapter = Adapter([words.adapter] if words.adapter else ours)
    data = vectors("oms-conformance", "oms-history")
    found = list(cases(data / "oms-conformance", data / "oms-history"))
    chosen = [case for case in found if words.only in {None, case.method}]
    table: dict[str, Tally] = {case.group: Tally() for case in chosen}
    running = [case for case in chosen if case.run is not None]
    with ThreadPoolExecutor(2) as pool:
        problems = pool.map(lambda case: attempt(adapter, case), running)
        for case, problem in zip(running, problems, strict=True):
            if problem:
                table[case.group].failed.append(problem)
            else:
                table[case.group].passed += 1
    for case in chosen:
        table[case.group].not_run += case.run is None
    report(table)


def report(table: dict[str, Tally]) -> None:
    for line in table.values():
        for problem in line.failed:
            print(f"FAILED {problem}\n")
    print("| OMS conformance | passed | failed | need a live CI identity |\n|---|---|---|---|")
    for group, line in table.items():
        print(f"| {group} | {line.passed} | {len(line.failed)} | {line.not_run} |")
    passed = sum(line.passed for line in table.values())
    failed = sum(len(line.failed) for line in table.values())
    print(f"\n{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
