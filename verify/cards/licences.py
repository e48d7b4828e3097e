"""An order of licences, coarse and short: what may a child of such a parent be called.

    0  permissive        MIT, Apache-2.0, BSD, CC0, CC-BY, …
    1  weak copyleft     LGPL, MPL, EPL, …
    2  copyleft          GPL, AGPL, EUPL, CC-BY-SA, …
    3  restricted        non-commercial, no derivatives, use restrictions, a vendor's own terms

A child must be at least as strict as its strictest parent. This is a drift alarm, not legal advice:
two licences of class 3 can't be compared, nor can one that is not listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

CLASSES: Final = ("permissive", "weak copyleft", "copyleft", "restricted")
_LISTED: Final[Mapping[int, str]] = {
    0: (
        "mit mit-0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear 0bsd isc zlib ncsa unlicense"
        " cc0-1.0 pddl cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 odc-by wtfpl postgresql python-2.0 bsl-1.0"
        " artistic-2.0 ms-pl upl-1.0 blueoak-1.0.0 cdla-permissive-1.0 cdla-permissive-2.0"
    ),
    1: (
        "lgpl lgpl-2.1 lgpl-3.0 lgpl-2.1-only lgpl-2.1-or-later lgpl-3.0-only lgpl-3.0-or-later lgpl-lr"
        " mpl-2.0 epl-1.0 epl-2.0 cdla-sharing-1.0"
    ),
    2: (
        "gpl gpl-2.0 gpl-3.0 gpl-2.0-only gpl-2.0-or-later gpl-3.0-only gpl-3.0-or-later agpl-3.0"
        " agpl-3.0-only agpl-3.0-or-later eupl-1.1 eupl-1.2 osl-3.0 ofl-1.1 ms-rl"
        " cc-by-sa-3.0 cc-by-sa-4.0 odbl odbl-1.0 gfdl cecill-2.1"
    ),
    3: (
        "openrail creativeml-openrail-m openrail++ bigscience-openrail-m bigcode-openrail-m bigscience-bloom-rail-1.0"
        " cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0"
        " cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 llama2 llama3 llama3.1 llama3.2 llama3.3 llama4"
        " gemma deepfloyd-if-license fair-noncommercial-research-license intel-research grok2-community"
        " apple-amlr apple-ascl h-research open-mdw"
    ),
}  # fmt: skip
_CLASS: Final = {name: rank for rank, names in _LISTED.items() for name in names.split()}
RESTRICTED: Final = 3


def class_of(expression: str) -> int | None:
    """Return the class of a Hub's licence id or an SPDX expression; None: unknown.

    `AND` is as strict as its strictest part, `OR` as its least strict; an exception (`WITH`) only
    loosens, and is passed over. Parentheses are not read.
    """
    ranks: list[int | None] = []
    for either in _split(expression, "OR"):
        parts = [_CLASS.get(_name(part)) for part in _split(either, "AND")]
        ranks.append(None if None in parts else max(rank for rank in parts if rank is not None))
    if None in ranks:
        return None
    return min((rank for rank in ranks if rank is not None), default=None)


def listed(rank: int) -> tuple[str, ...]:
    """Return the licences of a class, as the Hub or SPDX writes them, in small letters."""
    return tuple(_LISTED[rank].split())


def same(one: str, other: str) -> bool:
    """Say whether two texts name one licence."""
    return _name(one) == _name(other)


def hub_id(expression: str) -> str:
    """Return a licence as cards write it: the Hub's ids are small letters."""
    name = expression.strip().lower()
    return (
        name if name.startswith("lgpl-lr") else name.removesuffix("-only").removesuffix("-or-later")
    )


def _split(text: str, operator: str) -> list[str]:
    return re.split(rf"\s+{operator}\s+", text.strip(), flags=re.IGNORECASE)


def _name(text: str) -> str:
    return re.split(r"\s+WITH\s+", text.strip(), flags=re.IGNORECASE)[0].strip().lower()
