"""A first file of gates, with comments: what `parentage gate init` writes."""

from __future__ import annotations

import json

from parentage.verify.gates.policy import parse

_HEAD = """\
# What these gates let through. See what it comes to: parentage gate explain FILE
# Format: docs/gates.md; schema: schemas/gate-v0.1.json.
version: "0.1"
"""
_GATES = """\
upload:                    # parentage gate upload FOLDER --gate FILE --parent ...
  level: recompute         # recompute, integrity (signature and digests), remote (on a Hub, no download)
  rung: A                  # weakest that counts: A exact, B witnessed, C in-cell
  declared: []             # steps that are taken at their word: [training, opaque]
  noRecipe: fail           # ignore, warn, fail: weights without a history (base models)
  status: any              # any, current
  denySteps: []            # such as [abliterate/v1]
  pickles: fail            # files that run code when they are loaded
  code: fail               # code beside the weights, and auto_map in configs
  otherWeights: fail       # weights beside those that were verified
  ignored: fail            # files that the signer left out
  licences: {allow: [], deny: [], unknown: warn}
  parents: {allow: [], deny: []}   # deny: [{root: ...}, {repo: "org/*"}]; allow: roots
  files: {deny: ["*.exe"]}         # allow, maxBytes, maxFileBytes, maxFiles
  card: {}                 # rules of the card (parentage card explain): {C05: error, C12: ignore}
download:                  # parentage gate download FOLDER --gate FILE
  level: integrity
  attested: false          # true: the trust policy must demand recomputes by verifiers
  status: any
  licences: {unknown: ignore}
  card: {all: warning}     # `all` is every rule that is not named
benchmark:                 # parentage gate benchmark RESULTS --release FOLDER --gate FILE
  binding: observed        # weakest that counts: asserted, observed, replayed
  lineage: exact           # exact, witnessed, in-cell (recomputed), declared, signed
  isolated: false          # true: observed runs must have been cut off from the network
  pinned: true             # tasks must name a commit of their data set, or a hash of their documents
  tasks: []                # such as [{id: arc_easy, dataset: allenai/ai2_arc, metrics: [acc]}]; empty: any
  replay: {samples: 16, maxTolerance: "0.5"}   # when a replay counts
"""


def text_of(trust: str, lock: str | None) -> str:
    """Return a file of gates by a trust policy, and a lock file or none."""
    lines = [
        f"trust: {_quoted(trust)}   # who may sign, and what must have been said (parentage trust init)",
        f"{'' if lock else '# '}lock: {_quoted(lock or 'parentage.lock')}   # remembers what was seen",
    ]
    text = _HEAD + "\n".join(lines) + "\n" + _GATES
    parse(text.encode(), where="gate")
    return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
