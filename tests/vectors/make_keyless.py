"""Make the golden keyless bundles, once: `python tests/vectors/make_keyless.py` (needs `make rig`).

Certificates, log keys and timestamps are of a Sigstore that is gone; what they prove stays provable.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[0] / "rigs" / "sigstore"))

import mutations  # noqa: E402
from sigstore_rig import Rig, require_node  # noqa: E402

if __name__ == "__main__":
    rig, foreign = Rig(require_node()), Rig(require_node())
    mutations.save(mutations.make(rig, foreign), HERE / "keyless")
    rig.close()
    foreign.close()
