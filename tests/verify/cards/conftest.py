"""A signed release with a card, made once: golden weights, a real key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cards import MERGE, NEX, QWEN

import parentage
from parentage import KeySigner, PrivateKey, TrustedKeys
from parentage.manifest import recipe as recipes
from parentage.verify.cards.sync import plan

CASE = Path(__file__).parents[2] / "vectors" / "honest-linear"


class Release:
    """A publisher's release on disk."""

    def __init__(self, root: Path) -> None:
        self.root, self.key = root, PrivateKey.generate()
        self.folder = root / "rio"
        self.trust = TrustedKeys((self.key.public,))
        (root / "release.pub").write_bytes(self.key.public.pem)
        self.folder.mkdir()
        shutil.copy(CASE / "release" / "model.safetensors", self.folder)
        for name, golden in (("nex", "a"), ("qwen", "b")):
            shutil.copytree(CASE / "parents" / golden, root / name)

    def declare(self) -> None:
        hints = [{k: p[k] for k in ("id", "uri", "license")} for p in (NEX, QWEN)]
        document = {"version": "0.1", "parents": hints, "steps": [MERGE]}
        parentage.declare(
            self.folder,
            recipes.parse(document, where="test"),
            parents={name: self.root / name for name in ("nex", "qwen")},
        )

    def sync(self) -> None:
        (self.folder / "README.md").write_bytes(plan(self.folder).after)

    def sign(self) -> None:
        parentage.sign_release(self.folder, KeySigner(self.key), self.trust)


@pytest.fixture(scope="session")
def signed_once(tmp_path_factory: pytest.TempPathFactory) -> Release:
    release = Release(tmp_path_factory.mktemp("cards"))
    release.declare()
    (release.folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Rio\n\nA merge.\n")
    release.sync()
    release.sign()
    return release


@pytest.fixture
def signed(signed_once: Release, tmp_path: Path) -> Release:
    """A copy of it, to be spoilt."""
    copy = object.__new__(Release)
    shutil.copytree(signed_once.root, tmp_path / "all")
    copy.__dict__.update(signed_once.__dict__)
    copy.root, copy.folder = tmp_path / "all", tmp_path / "all" / "rio"
    return copy
