"""A key that another program holds: bytes to sign on its standard input, signature on its output.

That covers any KMS, HSM or agent with a command line. No shell is between: the words are run as they
are. What the program says on standard error goes to the user as it is and is kept by nobody here.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from typing import IO, Final

from parentage.attest.keys import PublicKey
from parentage.manifest.errors import SignatureError, SigningFailedError, UsageError

#: Seconds that a signature may take: somebody may have to touch a token.
SECONDS: Final = 120.0
#: Bytes that a signature may have; ML-DSA-87 has 4,627.
_MAX_SIGNATURE: Final = 16 << 10
_PIECE: Final = 64 << 10


class CommandKey:
    """A key in the hands of a command. Its public half is given, and every signature is checked."""

    def __init__(self, command: str, public: PublicKey, *, seconds: float = SECONDS) -> None:
        """Sign by running `command`, split into words as a shell would.

        Raises:
            UsageError: no words, or quotes that do not close.
        """
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError("not a command", where="--signer-cmd", found=str(error)) from error
        if not self._words:
            raise UsageError("not a command", where="--signer-cmd", found="no words")
        self.public = public
        self._seconds = seconds

    def sign(self, data: bytes) -> bytes:
        """Return what the command signs.

        Raises:
            SigningFailedError: it can't be run, fails, takes too long, or says too much.
            SignatureError: what it returns is no signature by the given key.
        """
        signature = self._run(data)
        try:
            self.public.verify(signature, data)
        except SignatureError as error:
            raise SignatureError(
                "the command's signature does not verify with the given public key",
                where=self._words[0],
                expected=f"a {self.public.algorithm.name} signature by key "
                f"{self.public.fingerprint}, DER for ECDSA, and nothing else",
                found=f"{len(signature)} bytes",
                hint="check --public-key; the command gets the bytes themselves, not a digest",
            ) from error
        return signature

    def _run(self, data: bytes) -> bytes:
        end = time.monotonic() + self._seconds
        try:
            # A session of its own, so that whatever it starts is ended with it.
            process = subprocess.Popen(  # noqa: S603  (the user's own command, no shell)
                self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "a NUL character"
            raise self._failed("can't be run", found=reason or type(error).__name__) from error
        try:
            output = self._talk(process, data, end)
            status = process.wait(max(end - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired as error:
            raise self._late() from error
        finally:
            _end(process)
        if status != 0:
            raise self._failed("fails", expected="exit status 0", found=str(status))
        return output

    def _talk(self, process: subprocess.Popen[bytes], data: bytes, end: float) -> bytes:
        """Feed and read side by side, so that neither waits for the other."""
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None  # noqa: S101  (both are pipes)
        assert stdout is not None  # noqa: S101
        left, output = memoryview(data), bytearray()
        os.set_blocking(stdin.fileno(), False)
        with selectors.DefaultSelector() as waiting:
            waiting.register(stdout, selectors.EVENT_READ)
            waiting.register(stdin, selectors.EVENT_WRITE)
            while stdout in _registered(waiting):
                if time.monotonic() >= end:
                    raise self._late()
                for key, _ in waiting.select(max(end - time.monotonic(), 0)):
                    if key.fileobj is stdout:
                        piece = os.read(stdout.fileno(), _PIECE)
                        output += piece
                        if len(output) > _MAX_SIGNATURE:
                            raise self._failed(
                                "says too much", expected=f"<= {_MAX_SIGNATURE} bytes"
                            )
                        if not piece:
                            waiting.unregister(stdout)
                    else:
                        left = left[_feed(stdin, left) :]
                        if not left:
                            waiting.unregister(stdin)
                            with suppress(BrokenPipeError):
                                stdin.close()
        return bytes(output)

    def _late(self) -> SigningFailedError:
        return self._failed("takes too long", expected=f"<= {self._seconds:g} s")

    def _failed(self, what: str, *, expected: str = "", found: str = "") -> SigningFailedError:
        # Only the first word is shown: the others may hold anything.
        return SigningFailedError(
            f"the signer's command {what}",
            where=self._words[0],
            expected=expected,
            found=found,
            hint="run it by hand: bytes to sign on its input, signature on its output",
        )


def _registered(waiting: selectors.BaseSelector) -> list[object]:
    return [key.fileobj for key in waiting.get_map().values()]


def _feed(stream: IO[bytes], left: memoryview) -> int:
    """Write what fits; a program that reads no more gets no more, and its answer decides."""
    try:
        return os.write(stream.fileno(), left[:_PIECE])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(left)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and what it started, and leave nothing open."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    process.wait()
