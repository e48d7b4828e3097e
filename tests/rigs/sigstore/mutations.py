"""Keyless bundles with one thing wrong, for every part of them that somebody vouches for.

Made from honest ones, so that the same matrix runs on fresh bundles (with the second verifier
beside ours) and on the golden ones (without Node).
"""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from sigstore._internal.timestamp import TimestampAuthorityClient
from sigstore_rig import ALICE, ISSUER, Rig

from parentage.attest import keyless
from parentage.attest.patience import Deadline
from parentage.attest.statement import Subject, build_statement

Document = dict[str, Any]
STATEMENT = build_statement((Subject("model", "0" * 64),), "https://example.com/x/v1", {"a": "b"})
OTHER = build_statement((Subject("model", "1" * 64),), "https://example.com/x/v1", {"a": "b"})
LATE = {"fulcio": -540}  # a certificate with a minute left


class Made(msgspec.Struct, frozen=True):
    """Honest bundles of one Sigstore, and some that its clocks spoiled.

    Attributes:
        root: its trusted root.
        foreign: another instance's.
        bundles: by name; v1 and v2 are honest.
    """

    root: Document
    foreign: Document
    bundles: dict[str, Document]


class Case(msgspec.Struct, frozen=True):
    """What a verifier is given."""

    root: bytes
    bundle: bytes
    identity: str = ALICE
    issuer: str = ISSUER


def make(rig: Rig, foreign: Rig) -> Made:
    """Sign with every combination of logs and clocks that the matrix needs."""
    bundles: dict[str, Document] = {}

    def sign(name: str, version: int, payload: bytes = STATEMENT, **options: Any) -> None:
        rig.skew(**options.pop("skew", {}))
        claims = {"sub": "u1", "email": ALICE, "iss": ISSUER, **options}
        token = rig.mint(**claims)
        certified = keyless.Certified(rig.config(version), token, Deadline(30))
        bundles[f"{name}-v{version}"] = json.loads(certified.sign(payload))
        rig.skew()

    for version in (1, 2):
        sign("honest", version)
        sign("again", version)
        sign("other-statement", version, OTHER)
        sign("other-signer", version, email="bob@example.com")
        bundles[f"stamped-again-v{version}"] = _stamped_again(rig, bundles[f"honest-v{version}"])
        sign("stamped-after-the-certificate", version, skew={**LATE, "tsa": 120})
        sign("stamped-before-the-certificate", version, skew={"tsa": -1200})
    sign("logged-after-the-certificate", 1, skew={**LATE, "rekor": 120})
    sign("logged-before-the-certificate", 1, skew={"rekor": -1200})
    return Made(json.loads(rig.root), json.loads(foreign.root), bundles)


def _stamped_again(rig: Rig, document: Document) -> Document:
    """Have one authority stamp a signature twice within a second: other tokens, the same witness."""
    changed = copy.deepcopy(document)
    signature = base64.b64decode(changed["dsseEnvelope"]["signatures"][0]["sig"])
    authority = TimestampAuthorityClient(f"{rig.url}/api/v1/timestamp")
    time.sleep(1 - time.time() % 1)
    tokens = [authority.request_timestamp(signature).as_bytes() for _ in range(2)]
    changed["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] = [
        {"signedTimestamp": base64.b64encode(token).decode()} for token in tokens
    ]
    return changed


def save(made: Made, folder: Path) -> None:
    """Write golden vectors."""
    folder.mkdir(parents=True)
    for name, document in {"root": made.root, "foreign-root": made.foreign, **made.bundles}.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def load(folder: Path) -> Made:
    """Read golden vectors."""
    held = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return Made(held.pop("root"), held.pop("foreign-root"), held)


def honest(made: Made, version: int) -> Case:
    """Return what every verifier accepts."""
    return _case(made, made.bundles[f"honest-v{version}"])


def matrix(made: Made, version: int) -> dict[str, Case]:
    """Return what every verifier should refuse, by what is wrong with it."""
    held = made.bundles
    cases = {
        name.removesuffix(f"-v{version}"): _case(made, document)
        for name, document in held.items()
        if ("-the-certificate" in name or name.startswith("stamped"))
        and name.endswith(f"-v{version}")
    }
    good = held[f"honest-v{version}"]
    cases |= {
        "wrong-identity": _case(made, good, identity="bob@example.com"),
        "identity-as-a-pattern": _case(made, good, identity="alice.example.com"),
        "identity-cut-short": _case(made, good, identity=ALICE[:-1]),
        "identity-in-capitals": _case(made, good, identity=ALICE.upper()),
        "wrong-issuer": _case(made, good, issuer="https://accounts.elsewhere"),
        "issuer-with-a-slash": _case(made, good, issuer=ISSUER + "/"),
        "other-signer": _case(made, held[f"other-signer-v{version}"]),
        "foreign-root": _case(made, good, root=made.foreign),
    }
    edits = {**_EDITS, **(_EDITS_1 if version == 1 else _EDITS_2)}
    for name, edit in edits.items():
        document = copy.deepcopy(good)
        edit(document, made, version)
        cases[name] = _case(made, document)
    for name, change in _ROOTS.items():
        root = copy.deepcopy(made.root)
        change(root, version)
        cases[name] = _case(made, good, root=root)
    return cases


def _case(made: Made, document: Document, root: Document | None = None, **who: str) -> Case:
    return Case(json.dumps(root or made.root).encode(), json.dumps(document).encode(), **who)


# ---- one part of a document


def at(document: Document, path: str) -> tuple[Any, Any]:
    """Return the holder and the key of a part: `a.0.b`."""
    *steps, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    held: Any = document
    for step in steps:
        held = held[step]
    return held, last


def bit(path: str, position: int = -1) -> Callable[[Document, Made, int], None]:
    """Flip a bit inside base64."""

    def edit(document: Document, _made: Made, _version: int) -> None:
        holder, key = at(document, path)
        data = bytearray(base64.b64decode(holder[key]))
        data[position] ^= 1
        holder[key] = base64.b64encode(data).decode()

    return edit


def put(path: str, value: Any) -> Callable[[Document, Made, int], None]:
    """Replace a part, or add one."""

    def edit(document: Document, _made: Made, _version: int) -> None:
        holder, key = at(document, path)
        holder[key] = value(holder[key]) if callable(value) else value

    return edit


def drop(path: str) -> Callable[[Document, Made, int], None]:
    """Remove a part."""

    def edit(document: Document, _made: Made, _version: int) -> None:
        holder, key = at(document, path)
        del holder[key]

    return edit


def swap(path: str, other: str = "other-statement") -> Callable[[Document, Made, int], None]:
    """Take a part from another honest bundle."""

    def edit(document: Document, made: Made, version: int) -> None:
        holder, key = at(document, path)
        theirs, _ = at(made.bundles[f"{other}-v{version}"], path)
        holder[key] = theirs[key]

    return edit


def twice(path: str) -> Callable[[Document, Made, int], None]:
    """Say the only item of a list twice."""
    return put(path, lambda items: items * 2)


def _more(text: str) -> str:
    return str(int(text) + 1)


def _note(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        changed = text.replace(old, new, 1)
        assert changed != text
        return changed

    return edit


def _signed_again(text: str) -> str:
    """Put the same signature first, under a name that is not the log's."""
    note, _, line = text.partition("\n\n")
    dash, _name, signature = line.split(" ")
    return f"{note}\n\n{dash} elsewhere.example {signature}{line}"


def _same_shape(document: Document, _made: Made, _version: int) -> None:
    """Claim another size of the tree, for which the same path of hashes would do."""
    proof, _ = at(document, f"{_PROOF}.treeSize")
    index, size = int(proof["logIndex"]), int(proof["treeSize"])
    proof["treeSize"] = str(((size - 1) ^ 1) + 1)
    assert (index ^ (size - 1)).bit_length() == (index ^ ((size - 1) ^ 1)).bit_length()


_MATERIAL = "verificationMaterial"
_ENTRY = f"{_MATERIAL}.tlogEntries.0"
_PROOF = f"{_ENTRY}.inclusionProof"
_STAMPS = f"{_MATERIAL}.timestampVerificationData.rfc3161Timestamps"
_CERTIFICATE = f"{_MATERIAL}.certificate.rawBytes"
_ENVELOPE = "dsseEnvelope"
_EDITS: dict[str, Callable[[Document, Made, int], None]] = {
    "media-type": put("mediaType", "application/vnd.dev.sigstore.bundle.v0.9+json"),
    "unknown-field": put("extra", 1),
    "payload-bit": bit(f"{_ENVELOPE}.payload"),
    "payload-type": put(f"{_ENVELOPE}.payloadType", "text/plain"),
    "signature-bit": bit(f"{_ENVELOPE}.signatures.0.sig"),
    "signature-of-another": swap(f"{_ENVELOPE}.signatures.0.sig"),
    "two-signatures": twice(f"{_ENVELOPE}.signatures"),
    "no-signature": put(f"{_ENVELOPE}.signatures", []),
    "envelope-of-another": swap(_ENVELOPE),
    "envelope-signed-again": swap(_ENVELOPE, "again"),
    "certificate-bit": bit(_CERTIFICATE),
    "certificate-key-bit": bit(_CERTIFICATE, 120),
    "certificate-of-another": swap(f"{_MATERIAL}.certificate"),
    "certificate-of-another-signer": swap(f"{_MATERIAL}.certificate", "other-signer"),
    "no-certificate": drop(f"{_MATERIAL}.certificate"),
    "no-entries": drop(f"{_MATERIAL}.tlogEntries"),
    "entry-missing": put(f"{_MATERIAL}.tlogEntries", []),
    "entry-twice": twice(f"{_MATERIAL}.tlogEntries"),
    "entry-of-another": swap(_ENTRY),
    "entry-of-the-same-signed-again": swap(_ENTRY, "again"),
    "body-bit": bit(f"{_ENTRY}.canonicalizedBody", 40),
    "body-of-another": swap(f"{_ENTRY}.canonicalizedBody"),
    "kind": put(f"{_ENTRY}.kindVersion.kind", "intoto"),
    "version": put(f"{_ENTRY}.kindVersion.version", "0.0.3"),
    "log-id-first-bit": bit(f"{_ENTRY}.logId.keyId", 0),
    "log-id-last-bit": bit(f"{_ENTRY}.logId.keyId"),
    "index": put(f"{_ENTRY}.logIndex", _more),
    "no-proof": drop(_PROOF),
    "proof-of-another": swap(_PROOF),
    "proof-index": put(f"{_PROOF}.logIndex", _more),
    "proof-root-bit": bit(f"{_PROOF}.rootHash"),
    "proof-size": put(f"{_PROOF}.treeSize", _more),
    "proof-size-of-the-same-shape": _same_shape,
    "proof-hash-bit": bit(f"{_PROOF}.hashes.0"),
    "proof-hash-missing": put(f"{_PROOF}.hashes", lambda hashes: hashes[1:]),
    "proof-hash-more": put(f"{_PROOF}.hashes", lambda hashes: [*hashes, hashes[0]]),
    "no-checkpoint": drop(f"{_PROOF}.checkpoint"),
    "checkpoint-of-another": swap(f"{_PROOF}.checkpoint"),
    "checkpoint-signature": put(
        f"{_PROOF}.checkpoint.envelope", lambda text: text[:-9] + "AAAAAAA=\n"
    ),
    "checkpoint-origin": put(f"{_PROOF}.checkpoint.envelope", _note("127.0.0.1", "127.0.0.2")),
    "checkpoint-by-another-name": put(f"{_PROOF}.checkpoint.envelope", _note("— 127", "— 128")),
    "checkpoint-by-another-name-too": put(f"{_PROOF}.checkpoint.envelope", _signed_again),
    "checkpoint-unsigned": put(
        f"{_PROOF}.checkpoint.envelope", lambda text: text.partition("—")[0]
    ),
    "stamp-bit": bit(f"{_STAMPS}.0.signedTimestamp"),
    "stamp-time-bit": bit(f"{_STAMPS}.0.signedTimestamp", 110),
    "stamp-of-another": swap(f"{_STAMPS}.0"),
    "stamp-twice": twice(_STAMPS),
    "stamp-is-none": put(f"{_STAMPS}.0.signedTimestamp", base64.b64encode(b"0" * 40).decode()),
}
_EDITS_1: dict[str, Callable[[Document, Made, int], None]] = {
    "promise-bit": bit(f"{_ENTRY}.inclusionPromise.signedEntryTimestamp"),
    "promise-of-another": swap(f"{_ENTRY}.inclusionPromise"),
    "no-promise": drop(f"{_ENTRY}.inclusionPromise"),
    "time-of-the-log": put(f"{_ENTRY}.integratedTime", _more),
    "no-time-of-the-log": drop(f"{_ENTRY}.integratedTime"),
    "time-beyond-all-time": put(f"{_ENTRY}.integratedTime", "9" * 18),
    "no-time-at-all": lambda document, made, version: (
        drop(f"{_ENTRY}.inclusionPromise")(document, made, version),
        put(_STAMPS, [])(document, made, version),
    )[-1],
}
_EDITS_2: dict[str, Callable[[Document, Made, int], None]] = {
    "no-stamp": put(_STAMPS, []),
    "a-time-that-nobody-signs": put(f"{_ENTRY}.integratedTime", "1700000000"),
    "a-promise-from-nowhere": put(
        f"{_ENTRY}.inclusionPromise", {"signedEntryTimestamp": base64.b64encode(b"x" * 70).decode()}
    ),
}

# ---- trusted roots in which something had gone out of service, or was not yet in


def _ended(kind: str) -> Callable[[Document, int], None]:
    def change(root: Document, version: int) -> None:
        for each in root[kind]:
            holder = each.get("publicKey", each)
            holder["validFor"] = {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"}

    return change


def _gone(kind: str) -> Callable[[Document, int], None]:
    def change(root: Document, version: int) -> None:
        root[kind] = []

    return change


def _other_log_only(root: Document, version: int) -> None:
    root["tlogs"] = [root["tlogs"][2 - version]]


_ROOTS: dict[str, Callable[[Document, int], None]] = {
    "log-out-of-service": _ended("tlogs"),
    "authority-out-of-service": _ended("certificateAuthorities"),
    "certificate-log-out-of-service": _ended("ctlogs"),
    "stamper-out-of-service": _ended("timestampAuthorities"),
    "no-authority": _gone("certificateAuthorities"),
    "no-certificate-log": _gone("ctlogs"),
    "no-log": _gone("tlogs"),
    "no-stamper": _gone("timestampAuthorities"),
    "only-the-other-log": _other_log_only,
}
