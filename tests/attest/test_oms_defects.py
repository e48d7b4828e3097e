"""What model_signing 1.1.1 does wrong, and we do right: one section a defect, measured on both.

Tests marked `peer` run model_signing itself. Where it is wrong they say what it does, so that they fail
on the day it is mended.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from models import (
    FILES,
    VECTORS,
    Desk,
    codes,
    honest,
    needs_peer,
    peer,
    peer_python,
    resource,
    statement,
)
from pki import issue
from worlds import command

from parentage.attest import bundle
from parentage.attest.chains import CertificateSigner
from parentage.manifest.errors import StatementError


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A publisher with a model of three files."""
    return Desk(tmp_path)


def ours(desk: Desk, *options: object) -> tuple[int, dict]:
    """Run our command on the desk's model, and return exit code and report."""
    done = command("oms", "verify", desk.model, "--key", desk.public, "--json", *options)
    return done.returncode, json.loads(done.stdout)


def theirs(desk: Desk, *options: object) -> bool:
    """Say whether model_signing verifies the desk's model."""
    done = peer("verify", "key", desk.model, "--signature", desk.model / "model.sig",
                "--public_key", desk.public, *options)  # fmt: skip
    return done.returncode == 0


def theirs_by_api(desk: Desk) -> str:
    """Let model_signing take all from the signature; return the end of its complaint."""
    code = """
import model_signing as m, pathlib
m.verifying.Config().use_elliptic_key_verifier(public_key=argv[3]).verify(
    pathlib.Path(argv[1]), pathlib.Path(argv[2]))"""
    done = peer_python(code, desk.model, desk.model / "model.sig", desk.public)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def sign_by_api(desk: Desk, serialization: str) -> None:
    """Sign with model_signing's API, which can do more than its command."""
    code = f"""
import model_signing as m, pathlib
h = m.hashing.Config().{serialization}.set_ignored_paths(paths=[argv[2]])
m.signing.Config().use_elliptic_key_signer(private_key=argv[3]).set_hashing_config(h).sign(
    pathlib.Path(argv[1]), pathlib.Path(argv[2]))"""
    done = peer_python(code, desk.model, desk.model / "model.sig", desk.private)
    assert done.returncode == 0, done.stderr


# 1: signatures by BLAKE2, BLAKE3 or shards can't be verified from its command line


@pytest.mark.parametrize("method", ["files", "shards"])
@pytest.mark.parametrize("kind", ["sha256", "blake2b", "blake3"])
def test_1_every_hash_and_method_is_verified_by_the_command(
    desk: Desk, kind: str, method: str
) -> None:
    size = ["--shard-size", "64"] if method == "shards" else []
    done = command("oms", "sign", desk.model, "--key", desk.private, "--hash", kind,
                   "--method", method, *size)  # fmt: skip
    assert done.returncode == 0, done.stderr

    code, report = ours(desk)
    assert (code, report["verdict"]) == (0, "verified")
    assert report["serialization"]["hashType"] == kind
    desk.write("model.safetensors", FILES["model.safetensors"][:-1] + b"x")
    assert ours(desk)[0] == 1


@pytest.mark.peer
@needs_peer
def test_1_model_signing_can_not(desk: Desk) -> None:
    sign_by_api(desk, "use_file_serialization(hashing_algorithm='blake3')")

    assert not theirs(desk)
    assert ours(desk)[0] == 0


# 2: sharded bundles break their own schema, and then its own verifier


def test_2_shards_are_written_as_the_specification_says(desk: Desk) -> None:
    desk.sign(shard_size=1000)
    document = json.loads((desk.model / "model.sig").read_bytes())
    predicate = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))["predicate"]

    assert repr(predicate["serialization"]["shard_size"]) == "1000"
    assert {r["algorithm"] for r in predicate["resources"]} == {"sha256"}
    names = [r["name"] for r in predicate["resources"]]
    assert [n for n in names if n.startswith("model.safetensors")] == [
        "model.safetensors:0:1000",
        "model.safetensors:1000:2000",
        "model.safetensors:2000:2304",
    ]


def test_2_the_reference_spelling_of_shards_is_read(desk: Desk) -> None:
    """`sha256-sharded-64` as algorithm, and the size as a float."""
    resources = [
        resource(f"{name}:{at}:{min(at + 64, len(data))}", data[at : at + 64], "sha256-sharded-64")
        for name, data in FILES.items()
        for at in range(0, len(data), 64)
    ]
    desk.by_hand(resources, serialization={"method": "shards", "shard_size": 64.0})

    assert desk.verify().verified


@pytest.mark.peer
@needs_peer
def test_2_model_signing_can_not_read_its_own(desk: Desk) -> None:
    sign_by_api(desk, "use_shard_serialization(shard_size=64)")

    assert "TypeError" in theirs_by_api(desk)
    assert ours(desk)[0] == 0


# 3: it writes `blake2b` and reads `blake2`


@pytest.mark.peer
@needs_peer
def test_3_its_blake2_signature_is_read_here_and_not_there(desk: Desk) -> None:
    sign_by_api(desk, "use_file_serialization(hashing_algorithm='blake2')")

    assert "Unsupported hashing method blake2b" in theirs_by_api(desk)
    assert ours(desk)[0] == 0


# 4: whether links are followed is signed, and then not obeyed


def test_4_the_signed_rule_for_links_is_obeyed(desk: Desk) -> None:
    (desk.model / "link.txt").symlink_to("config.json")
    desk.sign(allow_symlinks=True)
    assert desk.verify().verified

    resources = [*honest(), resource("link.txt", FILES["config.json"])]
    desk.by_hand(sorted(resources, key=lambda r: r["name"]))  # says: no links
    report = desk.verify()
    assert codes(report) == ["file-set"]
    assert "a link" in report.findings[0].message


@pytest.mark.peer
@needs_peer
def test_4_model_signing_forgets_it(desk: Desk) -> None:
    (desk.model / "link.txt").symlink_to("config.json")
    desk.sign(allow_symlinks=True)

    assert "it is a symlink" in theirs_by_api(desk)
    assert ours(desk)[0] == 0


# 5: an encrypted key can't be used


def test_5_an_encrypted_key_signs(desk: Desk) -> None:
    desk.private.write_bytes(desk.key.to_pem(b"correct horse"))
    done = command("oms", "sign", desk.model, "--key", desk.private,
                   env={"PARENTAGE_PASSPHRASE": "correct horse"})  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert ours(desk)[0] == 0


@pytest.mark.peer
@needs_peer
def test_5_model_signing_refuses_the_right_password(desk: Desk) -> None:
    desk.private.write_bytes(desk.key.to_pem(b"correct horse"))
    done = peer("sign", "key", desk.model, "--signature", desk.root / "s",
                "--private_key", desk.private, "--password", "correct horse")  # fmt: skip

    assert done.returncode != 0


# 6: keys of other kinds end in an AttributeError


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "x25519"])
def test_6_a_key_that_signs_no_models_is_named(desk: Desk, kind: str) -> None:
    desk.private.write_bytes(other_key(kind))
    done = command("oms", "sign", desk.model, "--key", desk.private)

    assert done.returncode == 2
    assert "key" in done.stderr
    assert not (desk.model / "model.sig").exists()


@pytest.mark.peer
@needs_peer
def test_6_model_signing_has_no_word_for_it(desk: Desk) -> None:
    desk.private.write_bytes(other_key("ed25519"))
    done = peer("sign", "key", desk.model, "--signature", desk.root / "s",
                "--private_key", desk.private)  # fmt: skip

    assert "no attribute 'curve'" in done.stderr + done.stdout


def other_key(kind: str) -> bytes:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519

    made = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "x25519": x25519.X25519PrivateKey.generate,
    }
    return made[kind]().private_bytes(  # type: ignore[operator, no-any-return]
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()
    )


# 7: an empty model is signed, and verifies


def test_7_an_empty_model_is_neither_signed_nor_verified(desk: Desk) -> None:
    for name in FILES:
        (desk.model / name).unlink()
    with pytest.raises(StatementError, match="empty model"):
        desk.sign()

    desk.by_hand([])
    assert codes(desk.verify()) == ["statement"]


@pytest.mark.peer
@needs_peer
def test_7_model_signing_does_both(desk: Desk) -> None:
    for name in FILES:
        (desk.model / name).unlink()
    done = peer("sign", "key", desk.model, "--signature", desk.model / "model.sig",
                "--private_key", desk.private)  # fmt: skip

    assert done.returncode == 0
    assert theirs(desk)


# 8: a signature over nothing, or over whatever its signer did not care to ignore


def test_8_a_signature_over_nothing_says_nothing(desk: Desk) -> None:
    desk.by_hand([], serialization={"ignore_paths": ["."]})
    assert codes(desk.verify()) == ["statement"]

    desk.by_hand([resource("sub/notes.txt", b"notes")], serialization={"ignore_paths": ["."]})
    assert codes(desk.verify()) == ["statement"]


@pytest.mark.parametrize("ignored", ["model.safetensors", "config.json", "sub/modeling.py", "sub"])
def test_8_what_loaders_read_may_not_be_ignored(desk: Desk, ignored: str) -> None:
    desk.write("sub/modeling.py", b"import os")
    covered = [r for r in honest() if not r["name"].startswith(ignored)]
    if ignored == "sub/modeling.py":
        covered = honest()
    elif not ignored.startswith("sub"):
        covered.append(resource("sub/modeling.py", b"import os"))
    desk.by_hand(covered, serialization={"ignore_paths": ["model.sig", ignored]})

    report = desk.verify()
    assert codes(report) == ["ignored-content"]
    assert report.coverage.files_ignored == (2 if ignored == "sub" else 1)
    assert desk.verify(allow_uncovered=True).verified


def test_8_the_coverage_is_always_printed(desk: Desk) -> None:
    desk.write("README.md", b"# a model")
    desk.sign(ignore_paths=("README.md",))
    size = sum(map(len, FILES.values()))
    expected = f"3 of 4 files, {size:,} of {size + 9:,} bytes; ignored 1 (9 bytes), unsigned 0"

    for spoil in ("", "signature", "absent"):
        if spoil == "signature":
            (desk.model / "model.sig").write_bytes(b"{}")
        elif spoil:
            (desk.model / "model.sig").unlink()
        done = command("oms", "verify", desk.model, "--key", desk.public)
        assert done.returncode == {"": 0, "signature": 1, "absent": 3}[spoil]
        assert "covered" in done.stdout
        assert (expected if not spoil else "no file was compared") in done.stdout


@pytest.mark.peer
@needs_peer
def test_8_model_signing_takes_both(desk: Desk) -> None:
    desk.by_hand([], serialization={"ignore_paths": ["."]})
    assert theirs(desk)

    covered = [r for r in honest() if r["name"] != "config.json"]
    desk.by_hand(covered, serialization={"ignore_paths": ["config.json", "model.sig"]})
    assert theirs(desk)


# 9: of two resources with one name the last wins; of two keys likewise


def test_9_one_name_has_one_digest(desk: Desk) -> None:
    desk.by_hand([resource("config.json", b"evil"), *honest()])

    assert codes(desk.verify()) == ["statement"]


def test_9_one_key_has_one_value(desk: Desk) -> None:
    payload = json.dumps(statement(honest())).encode()
    doubled = payload.replace(b'"predicateType"', b'"predicateType": "x", "predicateType"')
    (desk.model / "model.sig").write_bytes(desk.sealed(doubled))

    assert codes(desk.verify()) == ["statement"]
    assert "duplicate key" in desk.verify().findings[0].message


@pytest.mark.peer
@needs_peer
def test_9_model_signing_takes_the_last(desk: Desk) -> None:
    desk.by_hand([resource("config.json", b"evil"), *honest()])
    assert theirs(desk)


# 10: a resource outside of the model is read


@pytest.mark.parametrize("name", ["../outside.txt", "sub/../../outside.txt", "/etc/hostname"])
def test_10_nothing_outside_of_the_model_is_read(desk: Desk, name: str) -> None:
    (desk.root / "outside.txt").write_bytes(b"not the model")
    desk.by_hand([*honest(), resource(name, b"not the model")])

    report = desk.verify(ignore_unsigned=True)
    assert codes(report) == ["statement"]
    assert "not a path inside" in report.findings[0].message


@pytest.mark.peer
@needs_peer
def test_10_model_signing_reads_it(desk: Desk) -> None:
    (desk.root / "outside.txt").write_bytes(b"not the model")
    desk.by_hand([resource("../outside.txt", b"not the model"), *honest()])

    # Its command passes the path of the model as text or as a path, by version; so its API is asked.
    code = """
import model_signing as m, pathlib
m.verifying.Config().use_elliptic_key_verifier(public_key=argv[3]).set_ignore_unsigned_files(True).verify(
    pathlib.Path(argv[1]), pathlib.Path(argv[2]))"""
    done = peer_python(code, desk.model, desk.model / "model.sig", desk.public)
    assert done.returncode == 0, done.stderr


# 11: a certificate is looked at in the hour it began, so it never expires and is never too early

ANY_YEAR = [timedelta(days=-800), timedelta(days=100)]


def by_a_certificate(desk: Desk, starts: timedelta) -> Path:
    """Sign with a certificate that is valid for 30 days from then; return its root."""
    root = issue("root", ca=True, starts=timedelta(days=-4000), ends=timedelta(days=4000))
    leaf = issue("publisher", root, starts=starts, ends=starts + timedelta(days=30))
    signer = CertificateSigner(leaf.signer_key, (leaf.certificate, root.certificate))
    payload = json.dumps(statement(honest())).encode()
    (desk.model / "model.sig").write_bytes(bundle.build(payload, signer))
    return root.write(desk.root, "root")[0]


@pytest.mark.parametrize("starts", ANY_YEAR)
def test_11_a_certificate_is_valid_now_or_not_at_all(desk: Desk, starts: timedelta) -> None:
    root = by_a_certificate(desk, starts)
    done = command("oms", "verify", desk.model, "--ca", root)
    assert done.returncode == 1
    assert "[certificate]" in done.stdout

    root = by_a_certificate(desk, timedelta(days=-1))
    assert command("oms", "verify", desk.model, "--ca", root).returncode == 0


@pytest.mark.peer
@needs_peer
@pytest.mark.parametrize("starts", ANY_YEAR)
def test_11_model_signing_takes_any(desk: Desk, starts: timedelta) -> None:
    root = by_a_certificate(desk, starts)
    done = peer("verify", "certificate", desk.model, "--signature", desk.model / "model.sig",
                "--certificate_chain", root)  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


# 12: names with colons break shards; unsigned files can't be ignored with shards


def test_12_names_with_colons_are_names(desk: Desk) -> None:
    for name in ("a:b", "a:0:5", "c:0:1:2.txt"):
        desk.write(name, b"five!" * 3)
    desk.sign(shard_size=5)
    assert desk.verify().verified
    assert {"a:b", "a:0:5", "c:0:1:2.txt"} <= desk.sign(shard_size=5).oms.files.keys()

    desk.write("a:0:5", b"five!five!five?")
    assert codes(desk.verify()) == ["file-digest"]


@pytest.mark.parametrize("shard_size", [0, 64])
def test_12_unsigned_files_can_be_let_be(desk: Desk, shard_size: int) -> None:
    desk.sign(shard_size=shard_size)
    desk.write("notes.md", b"made later")

    assert codes(desk.verify()) == ["file-unsigned"]
    report = desk.verify(ignore_unsigned=True)
    assert report.verified
    assert (report.coverage.files_unsigned, report.coverage.bytes_unsigned) == (1, 10)


@pytest.mark.parametrize("name", ["run.py", "sub/adapter.safetensors", "Tokenizer.json"])
def test_12_but_not_where_loaders_read_them(desk: Desk, name: str) -> None:
    desk.sign()
    desk.write(name, b"made later")

    assert codes(desk.verify(ignore_unsigned=True)) == ["uncovered-content"]
    assert desk.verify(ignore_unsigned=True, allow_uncovered=True).verified


@pytest.mark.peer
@needs_peer
def test_12_model_signing_breaks_on_a_colon(desk: Desk) -> None:
    desk.write("a:b", b"colon")
    sign_by_api(desk, "use_shard_serialization(shard_size=64)")

    assert "expected 3 components" in theirs_by_api(desk)
    assert ours(desk)[0] == 0


# 13: keyless verification always asks the network first

#: Whoever reaches for the network is ended.
ALONE = """
import os, sys
def alone(event, _):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        os.write(2, b"reached for the network")
        os._exit(77)
sys.addaudithook(alone)
"""
WHO, ISSUER = "stefanb@us.ibm.com", "https://sigstore.verify.ibm.com/oauth2"


def signed_keyless() -> Path:
    folder = VECTORS / "oms-history" / "v1.1.0-sigstore"
    if not folder.is_dir():
        pytest.skip("no public test data here (shared/vectors)")
    return folder


def test_13_a_keyless_signature_is_verified_without_a_network() -> None:
    pytest.importorskip("sigstore")
    folder = signed_keyless()
    words = ["oms", "verify", str(folder), "--identity", WHO, "--issuer", ISSUER]
    words += ["--ignore-paths", "ignore-me"]
    code = f"{ALONE}\nfrom parentage.cli import main\nmain({words})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("VERIFIED")


@pytest.mark.peer
@needs_peer
def test_13_model_signing_can_not() -> None:
    folder = signed_keyless()
    words = ["verify", "sigstore", str(folder), "--signature", str(folder / "model.sig")]
    words += ["--identity", WHO, "--identity_provider", ISSUER]
    done = peer_python(f"{ALONE}\nfrom model_signing._cli import main\nmain({words})")

    assert done.returncode == 77, done.stderr


# 14: what `hf download --local-dir` adds makes verification fail

HUB = {
    ".cache/huggingface/.gitignore": b"*",
    ".cache/huggingface/CACHEDIR.TAG": b"Signature: 8a477f597d28d172789f06886806bc55",
    ".cache/huggingface/download/config.json.metadata": b'abc\n"def"\n1.5\n',
    ".cache/huggingface/download/tokenizer.json.lock": b"",
}


@pytest.mark.parametrize("ignored", [["model.sig"], [".cache/huggingface", "model.sig"]])
def test_14_a_downloaded_model_verifies(desk: Desk, ignored: list[str]) -> None:
    """Whether or not the signer thought of it."""
    desk.by_hand(honest(), serialization={"ignore_paths": ignored})
    for name, data in HUB.items():
        desk.write(name, data)

    report = desk.verify()
    assert report.verified
    assert report.coverage.files_ignored == len(HUB)


def test_14_and_nothing_else_in_that_folder_is_let_be(desk: Desk) -> None:
    desk.sign()
    desk.write(".cache/other/run.py", b"import os")

    assert codes(desk.verify()) == ["file-unsigned"]


@pytest.mark.peer
@needs_peer
def test_14_model_signing_refuses_it_unless_we_signed(desk: Desk) -> None:
    peer("sign", "key", desk.model, "--signature", desk.model / "model.sig",
         "--private_key", desk.private)  # fmt: skip
    for name, data in HUB.items():
        desk.write(name, data)
    assert not theirs(desk)
    assert ours(desk)[0] == 0

    desk.sign()
    assert theirs(desk)


# 15: the payload's bytes differ from run to run


def test_15_signing_twice_signs_the_same_bytes(desk: Desk) -> None:
    import rfc8785

    payloads = set()
    for _ in range(2):
        desk.sign()
        document = json.loads((desk.model / "model.sig").read_bytes())
        payloads.add(document["dsseEnvelope"]["payload"])

    (payload,) = map(base64.b64decode, payloads)
    assert rfc8785.dumps(json.loads(payload)) == payload


@pytest.mark.peer
@needs_peer
def test_15_model_signing_does_not(desk: Desk) -> None:
    payloads = set()
    for seed in range(4):
        os.environ["PYTHONHASHSEED"] = str(seed)
        try:
            peer("sign", "key", desk.model, "--signature", desk.root / "s",
                 "--private_key", desk.private)  # fmt: skip
        finally:
            del os.environ["PYTHONHASHSEED"]
        document = json.loads((desk.root / "s").read_bytes())
        payloads.add(document["dsseEnvelope"]["payload"])

    assert len(payloads) > 1


# Names: the root does not bind them, so whoever trusts it alone can be given renamed files


def test_renamed_files_are_refuted(desk: Desk) -> None:
    desk.sign()
    (desk.model / "sub" / "notes.txt").rename(desk.model / "sub" / "run_me.py")

    assert codes(desk.verify()) == ["file-missing", "file-unsigned"]


# Order: the specification sorts strings, the reference tool parts of paths


@pytest.mark.parametrize("order", [["sub-a.txt", "sub/x.bin"], ["sub/x.bin", "sub-a.txt"]])
def test_either_order_is_read_and_ours_is_the_specification(desk: Desk, order: list[str]) -> None:
    data = {"sub-a.txt": b"one", "sub/x.bin": b"two"}
    for name in FILES:
        (desk.model / name).unlink()
    for name in order:
        desk.write(name, data[name])
    desk.by_hand([resource(name, data[name]) for name in order])
    assert desk.verify().verified

    assert list(desk.sign().oms.resources) == ["sub-a.txt", "sub/x.bin"]


# One file: named "." by the reference tool, by its name in the specification


def test_one_file_has_its_own_name_or_a_dot(desk: Desk) -> None:
    file = desk.model / "model.safetensors"
    signed = desk.sign(file)
    assert signed.signature == desk.model / "model.safetensors.sig"
    assert list(signed.oms.files) == ["model.safetensors"]
    assert desk.verify(file).verified

    dot = desk.by_hand([resource(".", FILES["model.safetensors"])])
    assert desk.verify(file, signature=dot).verified
    file.write_bytes(b"other")
    assert codes(desk.verify(file, signature=dot)) == ["file-digest"]
    assert codes(desk.verify(desk.model, signature=dot)) == [
        "file-missing",
        *["file-unsigned"] * 4,
    ]


@pytest.mark.peer
@needs_peer
def test_one_file_signed_by_model_signing_verifies(desk: Desk) -> None:
    file, place = desk.model / "model.safetensors", desk.root / "one.sig"
    peer("sign", "key", file, "--signature", place, "--private_key", desk.private)

    assert desk.verify(file, signature=place).verified
