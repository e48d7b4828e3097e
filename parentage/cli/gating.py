"""What gates share: the file of their rules, and how a release is asked about."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
import msgspec
from click.core import ParameterSource

from parentage.cli.formatting import FormatChoice, format_options, placed
from parentage.cli.locking import LockChoice
from parentage.cli.places import (
    Given,
    all_at_hand,
    ancestor_option,
    at_hand,
    loose_parents,
    parent_option,
)
from parentage.cli.shared import FILE, device_option, progress, threads_option
from parentage.cli.trusting import TrustChoice, load_root, trusted_root_option
from parentage.manifest.errors import UsageError
from parentage.verify.sources.place import HubPlace

if TYPE_CHECKING:
    from parentage.verify.gates.policy import Gate
    from parentage.verify.gates.report import GateReport

Name = Literal["upload", "download"]
gate_option = click.option(
    "--gate", "gate_file", type=FILE, required=True, help="The gate's rules (YAML)."
)
key_option = click.option(
    "--key",
    "keys",
    type=FILE,
    multiple=True,
    help="Public key (PEM) of a member whom the trust policy names by keySha256; repeat for more.",
)


class GateChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say.

    Attributes:
        gate_file: of the rules.
        keys: files of public keys.
        trusted_root: file with the keys of the Sigstore instance.
        parents, ancestors: where they are.
        device, threads: of the recompute.
    """

    gate_file: Path
    keys: tuple[Path, ...]
    trusted_root: Path | None
    parents: tuple[str, ...]
    ancestors: tuple[Given, ...]
    device: str
    threads: int | None

    def load(self) -> Gate:
        """Read the rules and the trust policy.

        Raises:
            PolicyError: they are none.
        """
        from parentage.attest.keys import PublicKey
        from parentage.verify.gates.policy import load

        keys = tuple(map(PublicKey.load, self.keys))
        return load(self.gate_file, keys, load_root(self.trusted_root))

    def ask(self, release: Given, name: Name, formatted: FormatChoice) -> int:
        """Ask a gate, show what it says, and return the exit code."""
        from parentage.attest.bundle import MODEL_SIG

        report, folder = self.asked(self.load(), release, name, quiet=formatted.quiet)
        near = ("README.md", MODEL_SIG) if folder is not None else ()
        shown = placed(report.shown(), folder or Path(), *near, self.gate_file)
        return formatted.show(shown)

    def asked(
        self, gate: Gate, release: Given, name: Name, *, quiet: bool
    ) -> tuple[GateReport, Path | None]:
        """Ask a gate, keep what its lock file is to remember, and return where the release lies, too."""
        from parentage.verify.demands import Demands
        from parentage.verify.gates.run import run

        parents = loose_parents(self.parents, quiet=quiet)
        locked = LockChoice(lock=gate.lock)
        remembered = locked.remembered(release)
        remote = isinstance(release, HubPlace) and gate.rules(name).level == "remote"
        folder = None if remote else at_hand(release, quiet=quiet)
        reads = [] if folder is None else [folder, *(path for _, path in parents)]
        with progress(f"gate {name}", quiet=quiet, reads=reads) as bar:
            report = run(
                folder or release,
                gate,
                name,
                parents=parents,
                demands=Demands(
                    device=self.device,
                    threads=self.threads,
                    progress=bar,
                    remembered=remembered,
                    ancestors=all_at_hand(self.ancestors, "claims", quiet=quiet),
                ),
            )
        if report.passed or report.report.verdict == "denied":
            locked.keep(report.report, remembered)
        return report, folder


_OPTIONS: Final = (
    gate_option,
    key_option,
    trusted_root_option,
    parent_option,
    ancestor_option,
    device_option,
    threads_option,
)


def gate_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of a gate and of formats, as arguments `gate` and `formatted`."""

    @functools.wraps(command)
    def gathering(*arguments: Any, **options: Any) -> int:  # noqa: ANN401
        own = {name: options.pop(name) for name in GateChoice.__struct_fields__}
        return command(*arguments, gate=GateChoice(**own), **options)

    whole = format_options(gathering)
    for option in reversed(_OPTIONS):
        whole = option(whole)
    return whole


def require_gate_alone(trusted: TrustChoice, locked: LockChoice, *named: str) -> None:
    """Refuse options that a gate's file decides: `named` ones, whom to trust, the lock.

    Raises:
        UsageError: naming them.
    """
    source = click.get_current_context().get_parameter_source
    typed = [
        f"--{name.replace('_', '-')}"
        for name in named
        if source(name) is ParameterSource.COMMANDLINE
    ]
    if trusted != TrustChoice(keys=trusted.keys, trusted_root=trusted.trusted_root):
        typed.append("whom to trust, but for --key and --trusted-root")
    if locked != LockChoice():
        typed.append("--lock")
    if typed:
        raise UsageError(
            "with --gate, its file says this", found=", ".join(typed), hint="leave it out"
        )
