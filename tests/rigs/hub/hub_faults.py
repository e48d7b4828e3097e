"""What the local Hub can be told to do wrong, and when.

    hub.faults.add("status", route="resolve", code=503, times=2)
    hub.faults.add("ignore-range", path="*.safetensors")
    hub.faults.after("tree", lambda: hub.force_push("acme/m", {...}))

Faults of the whole answer: `status` (code, headers), `garbage`, `redirect` (to), `stall`, `endless` (a listing
without an end). Faults of a content: `ignore-range`, `wrong-range` (the range named isn't the one
sent), `fewer` (half of the range asked for, honestly named), `truncate` (the connection ends after
`keep` bytes), `stop` (nothing more is sent after `keep` bytes), `corrupt` (the bit at byte `at` of
the file is flipped), `replace` (data is sent instead).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

ANSWERS = {"status", "garbage", "redirect", "stall", "endless"}
CONTENTS = {"ignore-range", "wrong-range", "fewer", "truncate", "stop", "corrupt", "replace"}


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        route: the name of the route that meets it; "": every one.
        path: a pattern of file names in a repository, for routes that serve a file.
        times: how often; below zero: always.
        hits: how often it has happened.
    """

    kind: str
    route: str = ""
    path: str = "*"
    times: int = -1
    values: dict[str, Any] = field(default_factory=dict)
    hits: int = 0

    def meets(self, kinds: set[str], route: str, path: str) -> bool:
        """Say whether a request runs into it."""
        return (
            self.kind in kinds
            and self.times != self.hits
            and self.route in ("", route)
            and fnmatchcase(path, self.path)
        )


class Faults:
    """The faults that are switched on."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._after: list[tuple[Fault, Callable[[], object]]] = []
        self._lock = threading.Lock()

    def add(
        self, kind: str, *, route: str = "", path: str = "*", times: int = -1, **values: Any
    ) -> Fault:
        """Switch a fault on."""
        assert kind in ANSWERS | CONTENTS, kind
        fault = Fault(kind, route, path, times, values)
        self._faults.append(fault)
        return fault

    def after(
        self, route: str, act: Callable[[], object], *, path: str = "*", times: int = 1
    ) -> Fault:
        """Act when a route's answer is made and before it is sent: what it says is then out of date."""
        fault = Fault("after", route, path, times)
        self._after.append((fault, act))
        return fault

    def clear(self) -> None:
        """Switch all off."""
        self._faults.clear()
        self._after.clear()

    def answer(self, route: str, path: str) -> Fault | None:
        """Return the fault of the whole answer that this request meets."""
        return next(iter(self._hit(ANSWERS, route, path, most=1)), None)

    def content(self, route: str, path: str) -> dict[str, dict[str, Any]]:
        """Return the faults, by kind, that the content of this answer meets."""
        return {fault.kind: fault.values for fault in self._hit(CONTENTS, route, path)}

    def act(self, route: str, path: str) -> None:
        """Do what was to be done after this route."""
        for fault, act in list(self._after):
            with self._lock:
                due = fault.meets({"after"}, route, path)
                fault.hits += due
            if due:
                act()

    def _hit(self, kinds: set[str], route: str, path: str, most: int = 99) -> list[Fault]:
        with self._lock:
            met = [fault for fault in self._faults if fault.meets(kinds, route, path)][:most]
            for fault in met:
                fault.hits += 1
        return met
