"""A TUF repository with the rig's trust documents, written by python-tuf and served on loopback."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)


def write(folder: Path, targets: Mapping[str, bytes]) -> Path:
    """Write a repository whose four roles share one key; return its root metadata."""
    (folder / "targets").mkdir(parents=True)
    expires = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    signer = CryptoSigner.generate_ecdsa()
    root = Root(expires=expires, consistent_snapshot=False)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(signer.public_key, role)
    listed = Targets(expires=expires)
    for name, data in targets.items():
        listed.targets[name] = TargetFile.from_data(name, data)
        (folder / "targets" / name).write_bytes(data)
    signed = {
        "1.root": root,
        "targets": listed,
        "snapshot": Snapshot(expires=expires, meta={"targets.json": MetaFile(1)}),
        "timestamp": Timestamp(expires=expires, snapshot_meta=MetaFile(1)),
    }
    for name, content in signed.items():
        metadata = Metadata(content)
        metadata.sign(signer)
        metadata.to_file(str(folder / f"{name}.json"))
    return folder / "1.root.json"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
