"""What a gate demands of benchmark scores: the `benchmark` part of a gate's file.

    benchmark:
      binding: observed
      lineage: exact
      tasks: [{id: arc_easy, dataset: allenai/ai2_arc, revision: "210d026f…", metrics: [acc]}]

What is left out has its strictest value that a stranger's scores can meet.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from parentage.attest.clock import Duration
from parentage.attest.policy import Text
from parentage.attest.statements.benchmark import Binding, Number
from parentage.manifest.wire import Glob, Wire

Strength = Literal["exact", "witnessed", "in-cell", "declared", "signed"]


class TaskRule(Wire, frozen=True, kw_only=True):
    """A task that is on the board.

    Attributes:
        id: as the harness names it; `*` as a glob.
        dataset: that it must be of.
        revision: of the data set.
        task_hash: of its documents and prompts.
        version: of its definition.
        metrics: that count; empty: any.
    """

    id: Glob
    dataset: Text | None = None
    revision: Text | None = None
    task_hash: Text | None = None
    version: Text | None = None
    metrics: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()


class ReplayRule(Wire, frozen=True, kw_only=True):
    """When a replay counts.

    Attributes:
        samples: how many log-likelihoods, or all that there are.
        max_tolerance: of the largest difference, nats; 16-bit dtypes need a wide one.
    """

    samples: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 16
    max_tolerance: Number = "0.5"


class BenchmarkRules(Wire, frozen=True, kw_only=True):
    """What a score must have to be shown.

    Attributes:
        binding: weakest that counts.
        lineage: what must be known of where the weights come from: recomputed to a rung, here or by the
            trust policy's verifiers; or declared with a recipe; or signed, whatever it says.
        isolated: an observed run must have been cut off from the network.
        pinned: every task must name a commit of its data set, or a hash of its documents.
        tasks: on the board; empty: any.
        max_age: since the statement was made.
        replay: when one counts.
    """

    binding: Binding = "observed"
    lineage: Strength = "exact"
    isolated: bool = False
    pinned: bool = True
    tasks: Annotated[tuple[TaskRule, ...], msgspec.Meta(max_length=1024)] = ()
    max_age: Duration | None = None
    replay: ReplayRule = ReplayRule()

    def explained(self) -> dict[str, object]:
        """Return every demand by its name in the file, those that were left out among them."""
        return {
            "binding": self.binding,
            "lineage": self.lineage,
            "isolated": self.isolated,
            "pinned": self.pinned,
            "tasks": [msgspec.to_builtins(task) for task in self.tasks],
            "maxAge": self.max_age,
            "replay.samples": self.replay.samples,
            "replay.maxTolerance": self.replay.max_tolerance,
        }
