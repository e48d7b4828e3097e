"""Parentage: signed provenance for model weights that anyone can recompute.

    import parentage
    from pathlib import Path

    report = parentage.verify_release(
        Path("rio-merge"),
        trust=parentage.TrustedKeys((parentage.PublicKey.load(Path("release.pub")),)),
        parents=[("nex", Path("nex")), ("qwen", Path("qwen"))],
    )
    print(report.verdict, report.reached)

Names are loaded when first used: `import parentage` costs next to nothing and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parentage.attest.chains import CertificateSigner, TrustedChains
    from parentage.attest.keys import PrivateKey, PublicKey
    from parentage.attest.release import sign_release
    from parentage.attest.signer import KeySigner
    from parentage.attest.trust import AnyOf, TrustedKeys
    from parentage.manifest.build import declare
    from parentage.manifest.errors import ParentageError
    from parentage.manifest.recipe import Recipe
    from parentage.manifest.recipe import load as load_recipe
    from parentage.verify.check import verify as verify_release
    from parentage.verify.check import verify_part
    from parentage.verify.demands import Demands
    from parentage.verify.exports import export_release
    from parentage.verify.identify import identify
    from parentage.verify.join import join as join_parts
    from parentage.verify.loading import RefusedError, Verified, iter_verified, load_verified
    from parentage.verify.produce import merge
    from parentage.verify.remote import Slices, verify_remote
    from parentage.verify.report import Report
    from parentage.verify.verdict import Verdict
    from parentage.verify.way import Way

__version__ = "0.1.0"

_HOME = {
    "AnyOf": "attest.trust",
    "CertificateSigner": "attest.chains",
    "Demands": "verify.demands",
    "KeySigner": "attest.signer",
    "ParentageError": "manifest.errors",
    "PrivateKey": "attest.keys",
    "PublicKey": "attest.keys",
    "Recipe": "manifest.recipe",
    "RefusedError": "verify.loading",
    "Report": "verify.report",
    "TrustedChains": "attest.chains",
    "TrustedKeys": "attest.trust",
    "Verdict": "verify.verdict",
    "Verified": "verify.loading",
    "Slices": "verify.remote",
    "Way": "verify.way",
    "declare": "manifest.build",
    "export_release": "verify.exports",
    "identify": "verify.identify",
    "iter_verified": "verify.loading",
    "join_parts": "verify.join:join",
    "load_recipe": "manifest.recipe:load",
    "load_verified": "verify.loading",
    "merge": "verify.produce",
    "sign_release": "attest.release",
    "verify_part": "verify.check",
    "verify_release": "verify.check:verify",
    "verify_remote": "verify.remote",
}

__all__ = [
    "AnyOf",
    "CertificateSigner",
    "Demands",
    "KeySigner",
    "ParentageError",
    "PrivateKey",
    "PublicKey",
    "Recipe",
    "RefusedError",
    "Report",
    "Slices",
    "TrustedChains",
    "TrustedKeys",
    "Verdict",
    "Verified",
    "Way",
    "declare",
    "export_release",
    "identify",
    "iter_verified",
    "join_parts",
    "load_recipe",
    "load_verified",
    "merge",
    "sign_release",
    "verify_part",
    "verify_release",
    "verify_remote",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  (PEP 562)
    """Load a public name from the room that it lives in."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'parentage' has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(f"parentage.{module}"), attribute or name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
