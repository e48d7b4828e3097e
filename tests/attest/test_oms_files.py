"""The files of a model, as a model signature sees them: links, ignore paths, shards, sizes, races."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import FILES, VECTORS, Desk, codes, honest, resource, statement
from worlds import World

from parentage.attest import oms, oms_files, oms_names
from parentage.attest.oms_opening import read
from parentage.manifest.errors import (
    BundleError,
    FileSetError,
    MalformedError,
    SignatureError,
    StatementError,
    UsageError,
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A publisher with a model of three files."""
    return Desk(tmp_path)


def outside(desk: Desk) -> Path:
    (desk.root / "outside.txt").write_bytes(b"elsewhere")
    return desk.root / "outside.txt"


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("config.json", "a link"),
        ("../outside.txt", "out of the model"),
        ("nowhere", "leads nowhere"),
        ("link", "leads nowhere"),
        ("sub", "a link to a folder"),
        (".", "a link to a folder"),
        ("..", "a link to a folder"),
        ("fifo", "a link"),
    ],
)
def test_links(desk: Desk, target: str, problem: str, *, follow: bool) -> None:
    outside(desk)
    if target == "fifo":
        os.mkfifo(desk.root / "fifo")
        target = str(desk.root / "fifo")
    (desk.model / "link").symlink_to(target)
    if follow and target == "config.json":
        signed = desk.sign(allow_symlinks=True)
        assert signed.oms.resources["link"] == signed.oms.resources["config.json"]
        assert signed.oms.allow_symlinks
        return

    with pytest.raises(FileSetError, match=problem):
        desk.sign(allow_symlinks=follow)


def test_a_special_file_is_not_signed_and_not_waited_for(desk: Desk) -> None:
    os.mkfifo(desk.model / "fifo")

    with pytest.raises(FileSetError, match="not a regular file"):
        desk.sign()
    assert desk.sign(ignore_paths=("fifo",)).cover.ignored.files == 1


def test_a_link_may_lie_where_nobody_looks(desk: Desk) -> None:
    (desk.model / ".git").mkdir()
    (desk.model / ".git" / "hook").symlink_to("/nowhere")
    desk.sign()

    assert desk.verify().verified


def test_a_folder_behind_a_link_is_never_let_be(desk: Desk) -> None:
    """Whatever stands behind it, loaders may read it."""
    desk.sign()
    (desk.model / "extra").symlink_to(desk.root)

    assert codes(desk.verify()) == ["file-unsigned"]
    assert codes(desk.verify(ignore_unsigned=True)) == ["uncovered-content"]
    assert codes(desk.verify(ignore_paths=("extra",))) == ["ignored-content"]
    with pytest.raises(UsageError, match="loaders read"):
        desk.sign(ignore_paths=("extra",))


def test_a_signed_file_replaced_by_a_link_is_refuted(desk: Desk) -> None:
    desk.sign()
    real = desk.root / "same.json"
    real.write_bytes(FILES["config.json"])
    (desk.model / "config.json").unlink()
    (desk.model / "config.json").symlink_to(real)

    assert codes(desk.verify()) == ["file-set"]


def test_a_hub_cache_snapshot_verifies(desk: Desk) -> None:
    """Its links are how that cache keeps files; links elsewhere are still none of the model's."""
    desk.sign()
    entry = desk.root / "models--org--name"
    snapshot = entry / "snapshots" / ("0" * 40)
    for path in [p for p in desk.model.rglob("*") if p.is_file()]:
        blob = entry / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(path.read_bytes())
        link = snapshot / path.relative_to(desk.model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    assert desk.verify(snapshot).verified

    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(outside(desk))
    assert codes(desk.verify(snapshot)) == ["file-set"]


def test_a_name_that_is_not_utf8(desk: Desk) -> None:
    Path(os.fsdecode(os.fsencode(desk.model) + b"/\xff.txt")).write_bytes(b"")

    with pytest.raises(FileSetError, match="not UTF-8"):
        desk.sign()


@pytest.mark.parametrize(
    "text",
    ["../outside.txt", "/etc", ".", "sub/..", "*.md", "a[0]", "model?"],
)
def test_ignore_paths_lie_inside_and_are_exact(desk: Desk, text: str) -> None:
    outside(desk)
    with pytest.raises(UsageError):
        desk.sign(ignore_paths=(text,))


def test_ignore_paths_in_three_spellings(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.root)
    given = ["sub/notes.txt", str(desk.model / "sub" / "notes.txt"), "model/sub/notes.txt", "later"]

    assert oms_files.ignore_names(given, desk.model) == [*["sub/notes.txt"] * 3, "later"]


def test_an_ignored_name_is_ignored_at_the_top_only(desk: Desk) -> None:
    desk.write(".git/config", b"x")
    desk.write("sub/.git/config", b"x")
    desk.write("notes.txt", b"x")
    signed = desk.sign(ignore_paths=("notes.txt",))

    assert {"sub/.git/config", "sub/notes.txt"} <= signed.oms.files.keys()
    assert not {".git/config", "notes.txt"} & signed.oms.files.keys()


def test_what_is_signed_is_checked_although_ignored(desk: Desk) -> None:
    """Neither signer nor verifier can ignore a listed file away."""
    desk.by_hand(honest(), serialization={"ignore_paths": ["sub"]})
    desk.write("sub/notes.txt", b"changed")

    assert codes(desk.verify(ignore_paths=("sub",))) == ["file-digest"]


def test_what_is_ignored_may_be_named_by_the_verifier_too(desk: Desk) -> None:
    desk.sign()
    desk.write("notes.md", b"later")
    desk.write("later.py", b"later")

    report = desk.verify(ignore_paths=("notes.md", "later.py"))
    assert codes(report) == ["ignored-content"]
    assert "you ignore it" in report.findings[0].message


def test_signing_refuses_what_verifying_would_refute(desk: Desk) -> None:
    with pytest.raises(UsageError, match="loaders read"):
        desk.sign(ignore_paths=("config.json",))
    desk.write("sub/__init__.py")
    with pytest.raises(UsageError, match="no shards"):
        desk.sign(shard_size=64)
    signed = desk.sign(shard_size=64, ignore_paths=("config.json",), allow_uncovered=True)
    assert signed.cover.unsigned.files == signed.cover.ignored.files == 1
    assert sorted(codes(desk.verify())) == ["ignored-content", "uncovered-content"]
    assert desk.verify(allow_uncovered=True).verified


def test_empty_files_have_no_shards(desk: Desk) -> None:
    """As the specification has it; so only those that nobody loads may come and go."""
    desk.write("empty.txt")
    desk.sign(shard_size=64)
    assert desk.verify().verified
    (desk.model / "empty.txt").unlink()
    assert desk.verify().verified

    desk.write("empty.py")
    assert codes(desk.verify()) == ["uncovered-content"]
    desk.write("later.txt", b"x")
    report = desk.verify(allow_uncovered=True)
    assert [found.code for found in report.findings] == ["file-unsigned", "uncovered-content"]


def test_too_many_shards_are_not_made(desk: Desk) -> None:
    with (desk.model / "big.bin").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(UsageError, match="too many shards"):
        desk.sign(shard_size=1000)


def test_a_file_that_grew_into_a_petabyte_is_not_cut(desk: Desk) -> None:
    desk.sign(shard_size=64)
    with (desk.model / "config.json").open("r+b") as file:
        file.truncate(1 << 43)

    assert codes(desk.verify()) == ["file-digest"]


def test_a_file_that_grows_while_it_is_read_is_refused(desk: Desk) -> None:
    found = oms_files.survey(desk.model, ignore_paths=[])
    desk.write("config.json", b"{    }")

    with pytest.raises(FileSetError, match="changed while"):
        oms_files.digests(found, ["config.json"], oms.Oms(root="", resources={}, files={}))


def test_a_release_with_a_lineage_keeps_its_signature(world: World) -> None:
    from parentage import KeySigner
    from parentage.attest.oms_sign import sign_model

    release = world.merge()
    with pytest.raises(UsageError, match="lineage"):
        sign_model(release, KeySigner(world.key), world.trust)
    other = sign_model(
        release, KeySigner(world.key), world.trust, signature=release.with_name("other.sig")
    )
    assert other.signature.is_file()
    assert world.verify("merged", ["a", "b"]).verified


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a:0:64", "a:65:100"], "gap or overlap"),
        (["a:0:64", "a:64:129"], "gap or overlap"),
        (["a:64:100"], "gap or overlap"),
        (["a:0:64", "a:64:64"], "gap or overlap"),
        (["a:0:9007199254740993"], "gap or overlap"),
        (["a:0:64", "a:0:63"], "overlap"),
        (["a"], "not a shard"),
        (["a:0:05"], "not a shard"),
        (["a:-1:5"], "not a shard"),
        (["a:0:5 "], "not a shard"),
        ([":0:5"], "not a shard"),
        (["../a:0:5"], "not a path"),
        ([".:0:5", "a:0:5"], "not a path"),
    ],
)
def test_shards_that_lie(names: list[str], message: str) -> None:
    said = {"method": "shards", "shard_size": 64}
    payload = json.dumps(statement([resource(n, b"") for n in names], serialization=said))

    with pytest.raises(StatementError, match=message):
        read(payload.encode(), "t")


@pytest.mark.parametrize("size", [0, -5, 0.5, 1e300, "64", True, None])
def test_sizes_that_are_none(size: Any) -> None:
    said = {"method": "shards", "shard_size": size}
    payload = json.dumps(statement([resource("a:0:5", b"")], serialization=said))

    with pytest.raises(StatementError, match="not a shard size"):
        read(payload.encode(), "t")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subject": []}, "without a subject"),
        ({"subject": [{"name": "", "digest": {"sha256": "0" * 64}}]}, "without a name"),
        ({"subject": [{"name": "m", "digest": {"sha512": "0"}}]}, "SHA-256"),
        ({"subject": [{"name": "m", "digest": {"sha256": "0" * 64}}]}, "root does not match"),
        ({"subject": [None]}, "without a name"),
        ({"predicate": None}, "not an object"),
        ({"predicate": []}, "not an object"),
        ({"predicate": {"resources": []}}, "other fields"),
        ({"predicateType": "https://model_signing/Digests/v0.1"}, "not a model signature"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "another type"),
        ({"more": 1}, "other fields"),
    ],
)
def test_statements_that_lie(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StatementError, match=message):
        read(json.dumps(statement(honest(), **changes)).encode(), "t")


def test_fields_that_are_to_be_ignored_are() -> None:
    """The specification: more fields in resources and subjects, other digests beside the root."""
    document = statement([{**r, "annotations": {"a": 1.5}} for r in honest()])
    document["subject"][0] |= {"annotations": {}, "uri": "x"}
    document["subject"][0]["digest"]["sha512"] = "00"

    assert read(json.dumps(document).encode(), "t")[0].files.keys() == FILES.keys()


@given(st.binary(max_size=200) | st.builds(lambda v: json.dumps(v).encode(), st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)))  # fmt: skip
def test_any_payload_is_read_or_refused_by_name(payload: bytes) -> None:
    for legacy in (False, True):
        with pytest.raises(MalformedError):
            read(payload, "t", legacy=legacy)


JUNK = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just([]) | st.just({})


@given(
    st.lists(
        st.fixed_dictionaries(
            {"name": JUNK | st.just("a:0:5"), "algorithm": JUNK | st.just("sha256")}
        )
        | JUNK,
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(["method", "hash_type", "allow_symlinks", "shard_size", "ignore_paths"]),
        JUNK | st.sampled_from(["files", "shards", "sha256", 5, 5.0]),
    ),
)
def test_any_predicate_is_read_or_refused_by_name(
    resources: list[Any], serialization: dict[str, Any]
) -> None:
    filled = [{**r, "digest": "00" * 32} if isinstance(r, dict) and r else r for r in resources]
    try:
        found = oms.read_predicate({"resources": filled, "serialization": serialization}, None)
    except StatementError:
        return
    assert found.files


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1,
                max_size=6).filter(lambda n: n not in {".", ".."}),
        st.integers(1, 300), min_size=1, max_size=4,
    ),
    st.integers(1, 70),
)  # fmt: skip
def test_shards_of_any_files_are_read_back(sizes: dict[str, int], shard_size: int) -> None:
    listed = {
        name: (start, end)
        for file, size in sizes.items()
        for name, start, end in oms_names.shard_names(file, size, shard_size)
    }
    payload = oms.build("m", dict.fromkeys(listed, "00" * 32), shard_size=shard_size)
    found, _ = read(payload, "t")

    assert {file: listed[parts[-1]][1] for file, parts in found.files.items()} == sizes


# What releases before 1.1 of the reference tool wrote


def old(release: str) -> tuple[Path, Path]:
    folder = VECTORS / "oms-history" / release
    if not folder.is_dir():
        pytest.skip("no public test data here (shared/vectors)")
    return folder, VECTORS / "oms-history" / "keys" / "certificate" / "signing-key-pub.pem"


@pytest.mark.parametrize("release", ["v0.3.1", "v1.0.0", "v1.0.1"])
def test_old_signatures_are_read_when_asked_for(release: str) -> None:
    from parentage import PublicKey, TrustedKeys
    from parentage.verify.oms_check import OmsDemands, verify_oms

    folder, key = old(f"{release}-elliptic-key")
    model = folder if (folder / "signme-2").exists() else folder / "signme-1"
    trust, ignored = TrustedKeys((PublicKey.load(key),)), (str(folder / "ignore-me"),)
    given: dict[str, Any] = {"trust": trust, "signature": folder / "model.sig"}
    ignored = ignored if (folder / "ignore-me").exists() else ()

    refused = verify_oms(model, demands=OmsDemands(ignore_paths=ignored), **given)
    assert codes(refused) == [BundleError.code]
    assert "--legacy-oms" in refused.findings[0].next
    report = verify_oms(model, demands=OmsDemands(legacy=True, ignore_paths=ignored), **given)
    assert report.verified


def test_a_raw_key_in_a_bundle_is_not_believed(desk: Desk) -> None:
    """It names a key, like a hint; whose signature it is depends on whom we trust."""
    from parentage.attest.oms_opening import open_oms

    folder, key = old("v1.0.1-elliptic-key")
    document = json.loads((folder / "model.sig").read_bytes())
    import base64

    for raw in (desk.key.public.pem, key.read_bytes()):
        held = {"rawBytes": base64.b64encode(raw).decode()}
        document["verificationMaterial"]["publicKey"] = held
        with pytest.raises(SignatureError):
            open_oms(json.dumps(document).encode(), desk.trust, "t", legacy=True)


def test_the_form_of_0_2_signs_as_it_did(desk: Desk) -> None:
    """Capital V, Python's spelling of the bytes, SHA-256; digests in the subjects."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    subjects = [{"name": r["name"], "digest": {"sha256": r["digest"]}} for r in honest()]
    payload = json.dumps(
        {"_type": statement([])["_type"], "subject": subjects,
         "predicateType": "https://model_signing/Digests/v0.1", "predicate": {"unused": "x"}}
    ).encode()  # fmt: skip
    signed = f"DSSEV1 28 application/vnd.in-toto+json {len(payload)} {payload!r}".encode()
    key = load_pem_private_key(desk.private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    import base64

    document = json.loads(desk.sealed(payload))
    signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    (desk.model / "model.sig").write_text(json.dumps(document))

    assert codes(desk.verify()) == [SignatureError.code]
    report = desk.verify(legacy=True)
    assert report.verified
    assert [found.code for found in report.findings] == ["legacy-signature"]
    desk.write("config.json", b"[]")
    assert codes(desk.verify(legacy=True)) == ["file-digest"]
