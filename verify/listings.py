"""What a Hub lists compared with what was signed: before a byte of the weights is read."""

from __future__ import annotations

from collections.abc import Mapping

from parentage.attest.oms import Oms
from parentage.manifest.table import Table
from parentage.verify import integrity
from parentage.verify.sources.listed import Listed
from parentage.verify.verdict import Finding, finding


def compare(listing: Mapping[str, Listed], signed: Oms, table: Table) -> list[Finding]:
    """Return a finding for every file that is not, by name, size or SHA-256, what was signed.

    A regular file has no SHA-256 in a listing; whoever fetches it compares that.
    """
    found = integrity.check_names(listing, signed)
    for name in sorted(set(listing) & set(signed.resources)):
        listed, line = listing[name], table.files.get(name)
        if listed.sha256 is not None and listed.sha256 != signed.resources[name]:
            found.append(integrity.file_finding(name, signed.resources[name], listed.sha256))
        elif line is not None and line.size != listed.size:
            found.append(
                finding(
                    "file-size",
                    "file has not the signed size",
                    where=name,
                    expected=f"{line.size} bytes",
                    found=f"{listed.size} bytes",
                )
            )
    return found
