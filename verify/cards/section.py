"""The section of a card that `card sync` writes and replaces."""

from __future__ import annotations

from typing import Final

BEGIN: Final = "<!-- parentage:begin -->"
END: Final = "<!-- parentage:end -->"
