"""`parentage verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parentage.cli.formatting import FormatChoice, format_options, placed
from parentage.cli.locking import LockChoice, lock_options
from parentage.cli.places import (
    SOURCE,
    Given,
    all_at_hand,
    ancestor_option,
    at_hand,
    fetch_parents_option,
    loose_parents,
    parent_option,
)
from parentage.cli.shared import (
    FILE,
    device_option,
    load_key,
    passphrase_option,
    progress,
    rung_option,
    threads_option,
)
from parentage.cli.trusting import TrustChoice, trust_options
from parentage.manifest.errors import UsageError

if TYPE_CHECKING:
    from parentage.attest.signer import KeySigner
    from parentage.verify.way import Way


@click.command(
    "verify",
    epilog="""\b
Examples:
  parentage verify ./rio --key release.pub --parent ./nex --parent ./qwen
  parentage verify ./rio --key release.pub --level integrity
  parentage verify ./rio --policy trust.yaml --lock parentage.lock --parent ./nex --parent ./qwen
  parentage verify ./rio --key release.pub --parent base=./base --against ./nex --against ./qwen
  parentage verify ./rio --key release.pub --parent ./nex --parent ./qwen --resume rio.journal
  parentage verify ./rio --key release.pub --parent ./nex --parent ./qwen --sample 64
  parentage verify hf://acme/rio@v1 --key release.pub --fetch-parents
  parentage verify hf://acme/rio@v1 --key release.pub --level remote --slices 8
  parentage verify ./rio --key release.pub --parent ./nex --parent ./qwen \\
      --shard 1/4 -o part-1.json --sign-key verifier.key

\b
Exit codes: 0 verified, 1 refuted, 2 usage, 3 unsigned, 4 unproven, 5 denied by the policy.""",
)
@click.argument("release", type=SOURCE)
@trust_options
@lock_options
@parent_option
@ancestor_option
@click.option(
    "--against",
    type=SOURCE,
    multiple=True,
    help="Other weights to look for an undeclared merge with.",
)
@fetch_parents_option
@click.option(
    "--level",
    type=click.Choice(["recompute", "integrity", "remote"]),
    default="recompute",
    show_default=True,
    help="How much to demand: the recipe too; signature and digests; or what needs no download.",
)
@click.option(
    "--slices",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="With --level remote: read N chunks of 1 MiB drawn at random.",
)
@click.option("--slice-seed", default="", metavar="HEX", help="Repeat a draw of slices.")
@rung_option
@click.option("--files", "whole_files", is_flag=True, help="Compare SHA-256 of weights files too.")
@device_option
@threads_option
@click.option(
    "--engine",
    type=click.Choice(["threads", "ray"]),
    default="threads",
    show_default=True,
    help="What runs the recompute: threads of this process, or Ray workers.",
)
@click.option(
    "--ray-address", default="", help="A running Ray cluster whose nodes see the same files."
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Journal: keep what is found, and go on from it after a kill.",
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="Compare N chunks of 1 MiB drawn at random; never better than unproven.",
)
@click.option("--sample-seed", default="", metavar="HEX", help="Repeat a sample.")
@click.option(
    "--shard", metavar="I/N", help="Recompute the I-th of N shares, for `parentage join`."
)
@click.option("--every-engine", is_flag=True, help="With --shard: try all engines on all tensors.")
@click.option(
    "-o",
    "--part",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --shard: the partial result to write.",
)
@click.option("--sign-key", type=FILE, help="With --shard: the verifier's private key.")
@passphrase_option
@format_options
def command(
    release: Given,
    trusted: TrustChoice,
    locked: LockChoice,
    parents: tuple[str, ...],
    ancestors: tuple[Given, ...],
    against: tuple[Given, ...],
    fetch_parents: bool,
    level: str,
    slices: int | None,
    slice_seed: str,
    rung: str,
    whole_files: bool,
    device: str,
    threads: int | None,
    formatted: FormatChoice,
    part: Path | None,
    sign_key: Path | None,
    passphrase_file: Path | None,
    **chosen: Any,  # noqa: ANN401  (the options of `Way`, under its names)
) -> int:
    """Check RELEASE: signature, every file and tensor, parents, and the recipe by recomputing it."""
    from parentage.attest.bundle import MODEL_SIG
    from parentage.manifest.atomic import write_bytes
    from parentage.verify.check import verify_part
    from parentage.verify.demands import Demands

    if level == "remote":
        unread = (parents, against, fetch_parents, whole_files, part, sign_key, *chosen.values())
        if any(value for value in unread if value != "threads"):
            raise UsageError(
                "--level remote reads no weights, and recomputes nothing",
                hint="leave out --parent, --against, --files, --sample and the like; or --slices N",
            )
        return _remote(release, trusted, locked, ancestors, slices, slice_seed, formatted)
    if slices is not None or slice_seed:
        raise UsageError("--slices and --slice-seed are for --level remote")
    way = _way(**chosen)
    signer = _signer(way, part, sign_key, passphrase_file)
    given = loose_parents(parents, quiet=formatted.quiet)
    remembered = locked.remembered(release)
    folder = at_hand(release, quiet=formatted.quiet)
    others = all_at_hand(against, "weights", quiet=formatted.quiet)
    reads = [folder, *(path for _, path in given), *others]
    if level == "recompute":
        reads.append(folder)
    with progress("verify", quiet=formatted.quiet, reads=reads) as bar:
        report, partial = verify_part(
            folder,
            trust=trusted.build(),
            parents=given,
            against=others,
            demands=Demands(
                level=level,  # type: ignore[arg-type]  # click checked the choice
                rung=rung,  # type: ignore[arg-type]
                whole_files=whole_files,
                device=device,
                threads=threads,
                progress=bar,
                way=way,
                remembered=remembered,
                ancestors=all_at_hand(ancestors, "claims", quiet=formatted.quiet),
                fetch_parents=fetch_parents,
            ),
            signer=signer,
        )
    locked.keep(report, remembered)
    if partial and part is not None:
        write_bytes(part, partial)
    return formatted.show(placed(report.shown("verify"), folder, "README.md", MODEL_SIG))


def _remote(
    release: Given,
    trusted: TrustChoice,
    locked: LockChoice,
    ancestors: tuple[Given, ...],
    slices: int | None,
    seed: str,
    formatted: FormatChoice,
) -> int:
    """Check what needs no download."""
    from parentage.verify.demands import Demands
    from parentage.verify.remote import Slices, verify_remote

    if isinstance(release, Path):
        raise UsageError(
            "--level remote checks what is on a Hub",
            expected="hf://org/name@revision",
            found=str(release),
        )
    remembered = locked.remembered(release)
    followed = all_at_hand(ancestors, "claims", quiet=formatted.quiet)
    report = verify_remote(
        release,
        trust=trusted.build(),
        demands=Demands(level="remote", remembered=remembered, ancestors=followed),
        slices=Slices(slices or 0, seed),
    )
    locked.keep(report, remembered)
    return formatted.show(report.shown("verify"))


def _way(*, shard: str | None, engine: str, **chosen: Any) -> Way:  # noqa: ANN401
    from parentage.verify.way import Way

    share: tuple[int, int] | None = None
    if shard is not None:
        number, slash, of = shard.partition("/")
        if not slash or not number.isdecimal() or not of.isdecimal() or len(shard) > 16:
            raise UsageError("not a shard", expected="I/N, such as 2/8", found=shard)
        share = int(number), int(of)
    return Way(shard=share, engine=engine, **chosen)  # type: ignore[arg-type]  # click checked it


def _signer(
    way: Way, part: Path | None, sign_key: Path | None, passphrase_file: Path | None
) -> KeySigner | None:
    if (way.shard is None) != (part is None) or (way.shard is None) != (sign_key is None):
        raise UsageError("--shard, --part and --sign-key go together")
    if way.every_engine and way.shard is None:
        raise UsageError("--every-engine is for shards; a whole run tries what it must")
    if sign_key is None:
        return None
    from parentage.attest.signer import KeySigner

    return KeySigner(load_key(sign_key, passphrase_file))
