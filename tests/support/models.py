"""Models to sign, and model signatures made by hand: whatever a publisher may write, or a liar."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from parentage import KeySigner, PrivateKey, TrustedKeys
from parentage.attest import bundle
from parentage.attest.oms_sign import How, SignedModel, sign_model
from parentage.verify.oms_check import OmsDemands, verify_oms
from parentage.verify.oms_report import OmsReport

ROOT = Path(__file__).parents[2]
VECTORS = Path(os.environ.get("PARENTAGE_VECTORS", ROOT.parent / "shared" / "vectors"))
PEER = Path(
    os.environ.get("PARENTAGE_MODEL_SIGNING", ROOT / ".peers/model-signing/bin/model_signing")
)
needs_peer = pytest.mark.skipif(
    not PEER.exists(), reason="model_signing is not installed (make peers)"
)
TYPE, PREDICATE = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 9,
    "sub/notes.txt": b"notes",
}


def peer(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run model_signing's command."""
    return subprocess.run([PEER, *map(str, arguments)], capture_output=True, text=True, check=False)


def peer_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program against model_signing's API; `argv` has the arguments."""
    return subprocess.run(
        [PEER.with_name("python"), "-c", f"from sys import argv\n{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


class Desk:
    """Somebody with a key and a model."""

    def __init__(self, root: Path) -> None:
        self.root, self.model = root, root / "model"
        self.key = PrivateKey.generate()
        self.trust = TrustedKeys((self.key.public,))
        self.private, self.public = root / "k.key", root / "k.pub"
        self.private.write_bytes(self.key.to_pem(None))
        self.public.write_bytes(self.key.public.pem)
        for name, data in FILES.items():
            self.write(name, data)

    def write(self, name: str, data: bytes = b"") -> Path:
        path = self.model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def sign(self, model: Path | None = None, **how: Any) -> SignedModel:
        signer = KeySigner(self.key)
        return sign_model(model or self.model, signer, self.trust, how=How(**how))

    def verify(self, model: Path | None = None, **demands: Any) -> OmsReport:
        signature = demands.pop("signature", None)
        return verify_oms(
            model or self.model,
            trust=self.trust,
            signature=signature,
            demands=OmsDemands(**demands),
        )

    def by_hand(self, resources: list[Any], **changes: Any) -> Path:
        """Sign any list of resources at all; a change replaces a field of the statement."""
        place = self.model / "model.sig"
        place.write_bytes(self.sealed(json.dumps(statement(resources, **changes)).encode()))
        return place

    def sealed(self, payload: bytes) -> bytes:
        """Sign any payload at all."""
        return bundle.build(payload, KeySigner(self.key))


def statement(
    resources: list[Any], *, serialization: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return a model signature's statement, true to its form but for the changes."""
    digests = [r["digest"] for r in resources]
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()
    said = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    said["ignore_paths"] = ["model.sig"]  # type: ignore[assignment]
    said |= serialization or {}
    return {
        "_type": TYPE,
        "subject": [{"name": "model", "digest": {"sha256": root}}],
        "predicateType": PREDICATE,
        "predicate": {"resources": resources, "serialization": said},
        **changes,
    }


def resource(name: str, data: bytes, algorithm: str = "sha256") -> dict[str, str]:
    """Return the resource of a file with these contents."""
    return {
        "name": name,
        "algorithm": algorithm,
        "digest": hashlib.new(algorithm.partition("-")[0], data).hexdigest(),
    }


def honest() -> list[dict[str, str]]:
    """Return the resources of the model that a desk starts with."""
    return [resource(name, data) for name, data in sorted(FILES.items())]


def codes(report: OmsReport) -> list[str]:
    """Return the codes of the findings that refute."""
    return [found.code for found in report.findings if found.refutes]
