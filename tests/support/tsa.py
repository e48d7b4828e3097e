"""Timestamp authorities for tests: OpenSSL's behind HTTP on loopback, and one whose clock we set."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pki import NOW, STAMP, Holder, issue

YEARS = timedelta(days=400)
STAMPS: dict[str, Any] = {"extended": STAMP, "extended_critical": True}
CONFIG = """[tsa]
default_tsa=t
[t]
serial=serial
signer_cert=leaf.pem
signer_key=leaf.key
certs=intermediate.pem
signer_digest=sha256
default_policy=1.3.6.1.4.1.57264.2
digests=sha256,sha384,sha512
accuracy=secs:1
ess_cert_id_alg=sha256
"""


class Authority:
    """A root, an intermediate, and a certificate that stamps."""

    def __init__(self) -> None:
        self.root = issue("tsa root", ca=True, starts=-YEARS)
        self.intermediate = issue("tsa intermediate", self.root, ca=True, starts=-YEARS)
        self.leaf = issue("tsa", self.intermediate, **STAMPS, starts=-YEARS)

    def stamp(
        self,
        signature: bytes,
        at: datetime = NOW,
        *,
        digest: str = "sha256",
        certificates: tuple[Holder, ...] | None = None,
        by: Holder | None = None,
        status: int = 0,
        signers: int = 1,
    ) -> bytes:
        """Return a TimeStampResp over a signature, as RFC 3161 and RFC 5652 spell it."""
        by = by or self.leaf
        info = tsp.TSTInfo(
            {
                "version": "v1",
                "policy": "1.3.6.1.4.1.57264.2",
                "message_imprint": {
                    "hash_algorithm": {"algorithm": digest},
                    "hashed_message": hashlib.new(digest, signature).digest(),
                },
                "serial_number": 7,
                "gen_time": at,
            }
        ).dump()
        held = (self.leaf, self.intermediate) if certificates is None else certificates
        signed = cms.SignedData(
            {
                "version": "v3",
                "digest_algorithms": [{"algorithm": "sha256"}],
                "encap_content_info": {
                    "content_type": "tst_info",
                    "content": core.ParsableOctetString(info),
                },
                "certificates": [asn1_x509.Certificate.load(h.der) for h in held],
                "signer_infos": [_signer_info(info, by)] * signers,
            }
        )
        token = cms.ContentInfo({"content_type": "signed_data", "content": signed})
        response: bytes = tsp.TimeStampResp(
            {"status": {"status": status}, "time_stamp_token": token}
        ).dump()
        return response


def _signer_info(info: bytes, by: Holder) -> cms.SignerInfo:
    attributes = cms.CMSAttributes(
        [
            {"type": "content_type", "values": ["tst_info"]},
            {"type": "message_digest", "values": [hashlib.sha256(info).digest()]},
        ]
    )
    parsed = asn1_x509.Certificate.load(by.der)
    return cms.SignerInfo(
        {
            "version": "v1",
            "sid": {
                "issuer_and_serial_number": {
                    "issuer": parsed.issuer,
                    "serial_number": parsed.serial_number,
                }
            },
            "digest_algorithm": {"algorithm": "sha256"},
            "signed_attrs": attributes,
            "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
            "signature": by.key.sign(attributes.untag().dump(), ec.ECDSA(hashes.SHA256())),
        }
    )


class OpensslTsa(Authority):
    """`openssl ts -reply` behind HTTP; `faults` are what happens to the next requests instead."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.url = folder, ""
        folder.mkdir()
        self.leaf.write(folder, "leaf")
        for stem in ("intermediate", "root"):
            getattr(self, stem).write(folder, stem)
        (folder / "serial").write_text("01")
        (folder / "config").write_text(CONFIG)
        self.faults: list[Callable[[BaseHTTPRequestHandler, bytes], None]] = []
        self.asked: list[bytes] = []
        self._lock = threading.Lock()

    @contextmanager
    def serving(self) -> Iterator[OpensslTsa]:
        """Answer on loopback while the block runs."""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["Content-Length"]))
                authority.asked.append(query)
                if authority.faults:
                    authority.faults.pop(0)(self, query)
                else:
                    reply(self, authority.answer(query))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/stamp"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, query: bytes) -> bytes:
        with self._lock:
            (self.folder / "query").write_bytes(query)
            subprocess.run(
                ["openssl", "ts", "-reply", "-queryfile", "query", "-out", "reply",
                 "-config", "config"],
                cwd=self.folder, check=True, capture_output=True,
            )  # fmt: skip
            return (self.folder / "reply").read_bytes()


def reply(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/timestamp-reply")
    handler.send_header("Content-Length", str(len(body)))
    if 300 <= status < 400:
        handler.send_header("Location", "/elsewhere")
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    return lambda handler, _: reply(handler, b"no", code)


def body(data: bytes) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    return lambda handler, _: reply(handler, data)


def drop(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.connection.close()


def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """Send a header, one byte each 0.1 s, until the other side has had enough."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    try:
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        return
