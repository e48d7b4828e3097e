"""Where the public test data is; without it there is nothing to report, so that is a failure."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def vectors(*names: str) -> Path:
    """Return the folder that holds the suites of these names, or leave with what to do."""
    place = Path(os.environ.get("PARENTAGE_VECTORS", ROOT.parent / "shared" / "vectors"))
    missing = [name for name in names if not (place / name).is_dir()]
    if missing:
        sys.exit(
            f"conformance data is not here: {', '.join(missing)} below {place}\n"
            "set PARENTAGE_VECTORS to the folder that holds the suites' data"
        )
    return place
