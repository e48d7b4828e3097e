"""A signer behind a command: real processes, good and bad."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parentage import KeySigner, PublicKey, TrustedKeys
from parentage.attest import bundle
from parentage.attest.external import CommandKey
from parentage.attest.keys import write_keypair
from parentage.attest.opening import open_bundle
from parentage.attest.statement import Subject, build_statement
from parentage.manifest.errors import ParentageError, SignatureError, SigningFailedError, UsageError

STATEMENT = build_statement((Subject("model", "0" * 64),), "https://example.com/x/v1", {"a": "b"})


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_keypair(tmp_path / "r.key", None)
    return tmp_path


def key(place: Path, command: str, seconds: float = 20) -> CommandKey:
    return CommandKey(command, PublicKey.load(place / "r.pub"), seconds=seconds)


def openssl(place: Path) -> str:
    return f"openssl dgst -sha256 -sign '{place}/r.key'"


def test_openssl_signs(place: Path) -> None:
    signer = KeySigner(key(place, openssl(place)))
    data = bundle.build(STATEMENT, signer)
    trust = TrustedKeys((PublicKey.load(place / "r.pub"),))

    assert open_bundle(data, trust, "t").payload == STATEMENT


def test_a_payload_larger_than_any_pipe(place: Path) -> None:
    data = os.urandom(5 << 20)
    signature = key(place, openssl(place)).sign(data)
    assert PublicKey.load(place / "r.pub").verify(signature, data) is None  # it raises otherwise


def test_other_algorithms(place: Path) -> None:
    public = write_keypair(place / "e.key", None, algorithm="ed25519")
    script = place / "sign.sh"
    script.write_text(
        "#!/bin/sh\ncat > in && exec openssl pkeyutl -sign -inkey e.key -rawin -in in\n"
    )
    script.chmod(0o755)
    command = CommandKey(f"env --chdir='{place}' ./sign.sh", public)
    assert public.verify(command.sign(b"data"), b"data") is None


def test_no_shell_is_between(place: Path) -> None:
    with pytest.raises(SigningFailedError, match=r"fails|can't be run"):
        key(place, f"false; touch {place}/pwned").sign(b"x")
    with pytest.raises(ParentageError):
        key(place, f"echo $(touch {place}/pwned) `touch {place}/pwned`").sign(b"x")
    assert not (place / "pwned").exists()


FAILING = {
    "exit-status": (python("import sys; sys.stdin.read(); sys.exit(7)"), "fails", "7"),
    "killed": (python("import os; os.kill(os.getpid(), 9)"), "fails", "-9"),
    "absent": ("/no/such/program --key secret", "can't be run", "No such file"),
    "no-program": ("{place}/r.pub", "can't be run", "Permission denied"),
    "nul": ("'a\0b'", "can't be run", "NUL"),
    "endless": (
        python("import sys\nwhile True: sys.stdout.buffer.write(b'x' * 65536)"), "says too much", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_commands_that_fail(place: Path, case: str) -> None:
    command, message, found = FAILING[case]
    with pytest.raises(SigningFailedError, match=message) as caught:
        key(place, command.replace("{place}", str(place))).sign(b"data" * 100_000)
    assert found in caught.value.found
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "code",
    [
        "pass",
        "print('junk')",
        "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[:70])",
    ],
    ids=["nothing", "text", "the-data"],
)
def test_what_is_no_signature(place: Path, code: str) -> None:
    with pytest.raises(SignatureError, match="does not verify with the given public key"):
        key(place, python(code)).sign(b"data")


def test_another_keys_signature(place: Path) -> None:
    write_keypair(place / "other.key", None)
    command = openssl(place).replace("r.key", "other.key")
    with pytest.raises(SignatureError, match="does not verify with the given public key"):
        key(place, command).sign(b"data")


@pytest.mark.parametrize("child", [False, True], ids=["itself", "its-child"])
def test_a_command_that_never_ends_is_ended(place: Path, child: bool) -> None:
    """Also one that leaves a child behind which holds the output open."""
    note = place / "pid"
    sleep = f"echo $$ > {note}; exec sleep 600"
    words = ["sh", "-c", f"sh -c {shlex.quote(sleep)} & exit 0" if child else sleep]
    start = time.monotonic()
    with pytest.raises(SigningFailedError, match="takes too long"):
        key(place, shlex.join(words), seconds=3).sign(b"x")
    assert time.monotonic() - start < 15
    process = note.read_text().strip()
    for _ in range(50):  # a killed process takes a moment to go, on a busy machine
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", process], capture_output=True, text=True, check=False
        ).stdout.strip()
        if state in {"", "Z"}:
            return
        time.sleep(0.1)
    raise AssertionError(state)


def test_a_command_that_does_not_read(place: Path) -> None:
    """It signed before, from a file, say; what it does not read is not pressed on it."""
    data = b"x" * (1 << 20)
    (place / "data").write_bytes(data)
    command = f"{openssl(place)} '{place}/data'"
    signature = key(place, command).sign(data)
    assert PublicKey.load(place / "r.pub").verify(signature, data) is None


@pytest.mark.parametrize("command", ["", "  ", "a 'b"])
def test_no_command(place: Path, command: str) -> None:
    with pytest.raises(UsageError, match="not a command"):
        key(place, command)
