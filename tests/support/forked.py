"""Commands in processes of their own that need not import torch first: forks of one that has.

A server imports what commands import and does nothing else, so it has no threads. For each command it
forks; the child takes over files, folder and environment, and runs `parentage` to its end. Two servers
take turns, so that two commands in a row never share the seed of their hashes.

`python forked.py DESCRIPTOR` is the server; the descriptor is its end of a socket.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from itertools import cycle
from typing import Any

MODULES = (
    "torch",
    "parentage.cli",
    "parentage.cli.sign",
    "parentage.cli.verify",
    "parentage.attest.keyless",
    "parentage.verify.history",
)
#: Names of variables that are read when Python or torch starts, begin with these.
EARLY = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "ATEN_", "LD_")


class Server:
    """A process that forks, seen from the tests."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()  # it leaves when nobody is left to ask
        self._process.wait()

    def run(
        self, arguments: list[str], environment: dict[str, str], folder: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as `subprocess.run` would."""
        request = json.dumps([arguments, environment, folder]).encode()
        read, write = os.pipe()
        with (
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
            os.fdopen(read) as said,
        ):
            try:
                socket.send_fds(self._socket, [request], [out.fileno(), err.fileno(), write])
            finally:
                os.close(write)
            pid = int(said.readline())
            ended = select.poll()  # `select` knows no descriptors above 1023, and tests hold many
            ended.register(said)
            if not ended.poll(timeout * 1000):
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout)
            code = int(said.readline())
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


@cache
def servers() -> Any:
    return cycle([Server(), Server()])


def possible(arguments: list[str], changed: dict[str, str], options: dict[str, Any]) -> bool:
    """Say whether a fork does what a new process would."""
    early = any(name.startswith(EARLY) for name in changed)
    return (
        hasattr(os, "fork") and not early and not set(options) - {"cwd"} and "ray" not in arguments
    )


def run(
    arguments: list[str], environment: dict[str, str], timeout: float, cwd: object = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a process of its own."""
    return next(servers()).run(arguments, environment, str(cwd or os.getcwd()), timeout)  # noqa: PTH109


def serve(descriptor: int) -> None:
    """Fork for each request until nobody is left to make one."""
    sys.path.pop(0)  # the folder of this file, which a user's interpreter does not look into
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as requests:
        while True:
            request, files, _, _ = socket.recv_fds(requests, 1 << 17, 3)
            if not request:
                return
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                requests.close()
                attend(request, *files)
            for file in files:
                os.close(file)


def attend(request: bytes, out: int, err: int, status: int) -> None:
    """Run the command in a child, and say its number and then its exit code."""
    pid = os.fork()
    if pid == 0:
        os.close(status)
        perform(*json.loads(request), out, err)
    os.write(status, f"{pid}\n".encode())
    _, code = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os._exit(0)


def perform(
    arguments: list[str], environment: dict[str, str], folder: str, out: int, err: int
) -> None:
    """Be the command, and leave as an interpreter would."""
    code = 1
    try:
        with open(os.devnull) as nothing:  # noqa: PTH123
            for have, want in ((nothing.fileno(), 0), (out, 1), (err, 2)):
                os.dup2(have, want)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = ["parentage", *arguments]
        from parentage.cli import run as parentage

        parentage()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BaseException:  # noqa: BLE001  (the interpreter's own last resort)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
