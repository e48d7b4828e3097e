"""OpenSSF Model Signing: read more strictly than the reference tool, and accepted by it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from worlds import World

from parentage.attest import bundle, coverage, oms
from parentage.attest.keys import PublicKey
from parentage.attest.opening import open_bundle
from parentage.attest.statement import Subject, build_statement, parse_statement
from parentage.attest.trust import TrustedKeys
from parentage.manifest.errors import BundleError, StatementError

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "oms-history"
PEER = Path(
    os.environ.get(
        "PARENTAGE_MODEL_SIGNING",
        Path(__file__).parents[2] / ".peers/model-signing/bin/model_signing",
    )
)
ONE, TWO = "11" * 32, "22" * 32


def resource(name: Any, digest: Any = ONE, algorithm: str = "sha256") -> dict[str, Any]:
    return {"name": name, "digest": digest, "algorithm": algorithm}


def payload(
    resources: Any,
    *,
    root: str | None = None,
    subjects: Any = None,
    serialization: dict[str, Any] | None = None,
    **more: Any,
) -> bytes:
    if root is None:
        root = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    fields = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    fields["ignore_paths"] = ["model.sig"]  # type: ignore[assignment]
    predicate = {
        "resources": resources,
        "serialization": {**fields, **(serialization or {})},
        **more,
    }
    return build_statement(subjects or (Subject("m", root),), oms.PREDICATE, predicate)


def test_what_we_build_we_read() -> None:
    built = oms.build("m", {"b": TWO, "a": ONE})
    found = oms.parse(parse_statement(built, "t"))

    assert found.resources == {"a": ONE, "b": TWO}
    assert found.root == hashlib.sha256(bytes.fromhex(ONE + TWO)).hexdigest()
    assert ".parentage/claims.jsonl" in found.ignore_paths


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (payload([], root=hashlib.sha256(b"").hexdigest()), "nothing is signed"),
        (payload([resource("a"), resource("a")]), "stands twice"),
        (payload([resource("a")], root=TWO), "root|digest"),
        (payload([resource("../a")]), "not a path inside"),
        (payload([resource("/a")]), "not a path inside"),
        (payload([resource("a/./b")]), "not a path inside"),
        (payload([resource("a//b")]), "not a path inside"),
        (payload([resource("")]), "not a path inside"),
        (payload([resource("a\0")]), "not a path inside"),
        (payload([resource(5)]), "not a path inside"),
        (payload([resource("a", algorithm="md5")]), "not a sha256"),
        (payload([resource("a", algorithm=["sha256"])]), "not a sha256"),
        (payload([resource("a", "11" * 31)], root=ONE), "not a sha256"),
        (payload([resource("a", ONE.upper().replace("1", "A"))]), "not a sha256"),
        (payload([{"name": "a", "digest": ONE}]), "lacks a field"),
        (payload([resource("a")], serialization={"method": "shards"}), "shard_size belongs"),
        (payload([resource("a")], serialization={"shard_size": 5}), "shard_size belongs"),
        (payload([resource("a")], serialization={"method": "tensors"}), "not read here"),
        (payload([resource("a")], serialization={"method": ["files"]}), "not read here"),
        (payload([resource("a")], serialization={"hash_type": "md5"}), "not read here"),
        (payload([resource("a")], serialization={"hash_type": {}}), "not read here"),
        (payload([resource("a")], serialization={"allow_symlinks": "false"}), "not read here"),
        (payload([resource("a")], serialization={"hash_type": "blake2b"}), "not a blake2b"),
        (payload([resource("a")], serialization={"more": 1}), "other fields"),
        (payload([resource("a")], serialization={"ignore_paths": "*"}), "not a list"),
        (payload([resource("a")], serialization={"ignore_paths": ["../x"]}), "not a path inside"),
        (payload([resource("a")], more=1), "other fields"),
        (payload([resource("a")], subjects=(Subject("m", ONE), Subject("n", ONE))), "other fields"),
    ],
)
def test_model_signatures_that_lie(data: bytes, message: str) -> None:
    with pytest.raises(StatementError, match=message):
        oms.parse(parse_statement(data, "model.sig"))


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "pytorch_model.bin",
        "modeling.py",
        "config.json",
        "tokenizer.json",
        "sub/model.gguf",
        "chat_template.jinja",
        ".parentage/tensors.jsonl",
        ".parentage/leaves.bin",
        "vocab.txt",
    ],
)
def test_an_ignore_list_may_not_hide_what_loaders_read(name: str) -> None:
    for ignored in {name, name.split("/", maxsplit=1)[0]}:
        assert coverage.dangerous_ignores(frozenset([ignored]), [name]) == [name]


def test_the_usual_ignores_hide_nothing() -> None:
    names = [".git/config", "model.sig", ".gitattributes", ".parentage/claims.jsonl", "README.md"]

    assert coverage.dangerous_ignores(frozenset(coverage.DEFAULT_IGNORES), names) == []


def test_any_listed_order_is_read() -> None:
    """Specification and reference tool sort differently; the root is over the listed order."""
    found = oms.parse(parse_statement(payload([resource("b"), resource("a", TWO)]), "t"))

    assert found.resources == {"b": ONE, "a": TWO}


def test_an_empty_model_is_not_signed() -> None:
    with pytest.raises(StatementError, match="empty model"):
        oms.build("m", {})


def peer(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PEER, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def signed(world: World) -> Path:
    release = world.merge()
    (world.root / "release.pub").write_bytes(world.key.public.pem)
    return release


needs_peer = pytest.mark.skipif(
    not PEER.exists(), reason="model_signing is not installed (make peers)"
)


@pytest.mark.peer
@needs_peer
def test_an_unmodified_model_signing_accepts_our_release(signed: Path, world: World) -> None:
    done = peer("verify", "key", signed, "--signature", signed / "model.sig",
                "--public_key", world.root / "release.pub")  # fmt: skip

    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.peer
@needs_peer
def test_and_refuses_a_changed_file_as_we_do(signed: Path, world: World) -> None:
    (signed / "model.safetensors").write_bytes(
        (signed / "model.safetensors").read_bytes()[:-1] + b"x"
    )
    done = peer("verify", "key", signed, "--signature", signed / "model.sig",
                "--public_key", world.root / "release.pub")  # fmt: skip

    assert done.returncode != 0
    assert not world.verify("merged", ["a", "b"]).verified


@pytest.mark.peer
@needs_peer
def test_a_signature_by_model_signing_opens_here(world: World) -> None:
    folder = world.root / "a"
    (world.root / "k.key").write_bytes(world.key.to_pem(None))
    done = peer("sign", "key", folder, "--signature", folder / "model.sig",
                "--private_key", world.root / "k.key")  # fmt: skip
    assert done.returncode == 0, done.stderr

    opened = open_bundle((folder / "model.sig").read_bytes(), world.trust, "model.sig")
    found = oms.parse(opened.statement)

    assert found.resources == {
        "model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    }


def test_folders_signed_by_earlier_releases() -> None:
    """Public data; the bundles of 1.1.0 are the ones that name their key by a hint."""
    if not VECTORS.is_dir():
        pytest.skip("no public test data here (shared/vectors)")
    key = PublicKey.load(VECTORS / "keys" / "certificate" / "signing-key-pub.pem")
    seen = 0
    for folder in sorted(VECTORS.glob("v*-*")):
        data = (folder / "model.sig").read_bytes()
        try:
            parsed = bundle.parse(data, "model.sig")
        except BundleError:
            # Keys written as raw bytes and older bundles: named, never half-read.
            continue
        if not parsed.hint:
            continue
        seen += 1
        found = oms.parse(parse_statement(parsed.payload, folder.name))
        assert {
            n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in found.resources
        } == (found.resources)
        if parsed.hint == key.fingerprint:
            open_bundle(data, TrustedKeys((key,)), folder.name)
    assert seen


def test_the_name_of_the_subject_is_free(signed: Path, world: World) -> None:
    shutil.move(signed, world.root / "renamed")

    assert world.verify("renamed", ["a", "b"]).verified


def test_our_payload_is_canonical(signed: Path, world: World) -> None:
    import rfc8785

    opened = open_bundle((signed / "model.sig").read_bytes(), world.trust, "t")
    assert rfc8785.dumps(json.loads(opened.payload)) == opened.payload
