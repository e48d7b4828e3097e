"""The public Sigstore client conformance vectors (bundle-verify), through our key and keyless paths.

    python tests/conformance/sigstore_vectors.py

Each case is verified twice, by artifact and by digest. The suite signs bare artifacts, and in older
bundle formats too, which Parentage itself neither writes nor reads: a thin reader here hands their
parts to the same verifier. Prints the score; exits 1 below the reference client's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from data import vectors
from sigstore.hashes import Hashed
from sigstore_models.common.v1 import HashAlgorithm

from parentage.attest import bundle as bundles
from parentage.attest import keyless, material, trusted_root
from parentage.attest.identity_pattern import IdentityPattern
from parentage.attest.keys import PublicKey
from parentage.attest.material import Material
from parentage.manifest.errors import BundleError, ParentageError, SignatureError

#: sigstore-python 4.5.1 with a path for managed keys added.
REFERENCE = 136
#: What we refuse although the suite passes it, and why.
KNOWN = {
    "intoto-with-custom-trust-root": "log entries of the retired type intoto",
    "trust-root-tsa-validity-end-inclusive": "sigstore-python ends an authority's service a moment early",
}
BEACON = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"


def verify(case: Path, digest: bytes, artifact: bytes | None) -> None:
    """Verify one case; raises where it is refused."""
    data = (case / "bundle.sigstore.json").read_bytes()
    document = json.loads(data)
    held = document["verificationMaterial"]
    if (case / "key.pub").exists():
        verify_key(case, document, digest, artifact)
        return
    root_path = case / "trusted_root.json"
    root = trusted_root.load(root_path) if root_path.exists() else keyless.embedded_root()
    if "dsseEnvelope" in document and document["mediaType"] == bundles.MEDIA_TYPE:
        parsed = bundles.parse(data, case.name)
        found = keyless.verify(parsed, root, case.name)
        require_subject(json.loads(parsed.payload), digest)
    else:
        found = keyless.verify_with(reading(held), data, root, case.name, of_artifact(digest))
    wanted = IdentityPattern(text(case, "identity", BEACON), text(case, "issuer", ISSUER))
    if not wanted.matches(found.identity):
        raise SignatureError("by another identity", found=str(found.identity))


def reading(held: dict[str, Any]) -> Material:
    """Read the material of any bundle version: our own reader, after the chain became a leaf."""
    held = dict(held)
    chain = held.pop("x509CertificateChain", None)
    if chain is not None:
        if not chain["certificates"]:
            raise BundleError("certificate chain is empty")
        held["certificate"] = chain["certificates"][0]
    return material.parse(held, "verificationMaterial")


def of_artifact(digest: bytes) -> keyless.Check:
    hashed = Hashed(digest=digest, algorithm=HashAlgorithm.SHA2_256)

    def check(verifier: Any, held: Any, policy: Any) -> None:
        if held._dsse_envelope is not None:
            require_subject(json.loads(verifier.verify_dsse(held, policy)[1]), digest)
        else:
            verifier.verify_artifact(hashed, held, policy)

    return check


def verify_key(case: Path, document: Any, digest: bytes, artifact: bytes | None) -> None:
    """Verify with a managed key; like the reference's, this path looks at no log."""
    key = PublicKey.load(case / "key.pub")
    signature = base64.b64decode(document["messageSignature"]["signature"], validate=True)
    said = document["messageSignature"]["messageDigest"]["digest"]
    if artifact is None:
        verify_digest(case / "key.pub", signature, digest)
    else:
        key.verify(signature, artifact)
    if base64.b64decode(said) != digest:
        raise SignatureError("bundle is about another digest")


def verify_digest(path: Path, signature: bytes, digest: bytes) -> None:
    """Our keys sign bytes; for the suite's digests, the same check by cryptography itself."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(path.read_bytes())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    except InvalidSignature as error:
        raise SignatureError("signature does not verify") from error


def require_subject(statement: Any, digest: bytes) -> None:
    subjects = {subject["digest"].get("sha256") for subject in statement["subject"]}
    if digest.hex() not in subjects:
        raise SignatureError("statement is about another artifact", found=str(subjects))


def text(case: Path, name: str, default: str) -> str:
    path = case / name
    return path.read_text().strip() if path.exists() else default


def outcomes(folder: Path) -> Iterator[tuple[str, bool, str]]:
    """Yield name, whether the outcome is the suite's, and why it was refused."""
    cases = sorted(path for path in (folder / "bundle-verify").iterdir() if path.is_dir())
    for case in cases:
        path = case / "artifact"
        artifact = (path if path.exists() else folder / "bundle-verify" / "a.txt").read_bytes()
        digest = hashlib.sha256(artifact).digest()
        for way, given in (("artifact", artifact), ("digest", None)):
            refused = ""
            try:
                verify(case, digest, given)
            except (ParentageError, *keyless.NONSENSE) as error:
                refused = str(error).splitlines()[0] or type(error).__name__
            yield f"{case.name} ({way})", bool(refused) == case.name.endswith("_fail"), refused


def main(folder: Path) -> int:
    right = total = 0
    for name, as_suite, refused in outcomes(folder):
        total += 1
        right += as_suite
        if not as_suite:
            known = KNOWN.get(name.partition(" ")[0], "")
            print(f"{name}: {refused or 'accepted'}{'  [' + known + ']' if known else ''}")
    print(
        f"sigstore-conformance: {right} of {total} as the suite says; reference client {REFERENCE}"
    )
    return 0 if right >= REFERENCE else 1


if __name__ == "__main__":
    sys.exit(main(vectors("sigstore-conformance") / "sigstore-conformance"))
