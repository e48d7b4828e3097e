"""`parentage bench`: attach, run, replay."""

from __future__ import annotations

import re
from pathlib import Path

import click

from parentage.cli.saying import RELEASE, Voice, look, statement_option, voice_options
from parentage.cli.shared import (
    FILE,
    device_option,
    progress,
    report_error,
    show_report,
    threads_option,
)
from parentage.manifest.errors import UsageError

samples_option = click.option(
    "--samples",
    "logs",
    type=FILE,
    multiple=True,
    help="Log of samples beside the results (JSON lines); repeat for more.",
)


@click.group(
    "bench",
    epilog="\b\nExample:\n  parentage bench attach ./rio results.json --key evaluator.key --publisher release.pub --json",
)
def command() -> None:
    """Bind benchmark scores to weights: by assertion, by observation, by replay."""


@command.command("attach")
@click.argument("release", type=RELEASE)
@click.argument("results", type=FILE)
@samples_option
@statement_option
@voice_options
def attach(
    release: Path, results: Path, logs: tuple[Path, ...], statement: str, voice: Voice
) -> int:
    """Say that the scores in RESULTS are those of RELEASE (binding: asserted).

    RESULTS is of lm-evaluation-harness, lighteval, inspect_ai, EvalPlus, OpenCompass, Every Eval Ever, a
    model card's model-index, or .eval_results: told by its content. Nothing is digested but the files
    named here: the weights root is the one that the release's lineage has.
    """
    from parentage.verify.benchmarks.claim import bound, claim
    from parentage.verify.benchmarks.documents import read_file
    from parentage.verify.benchmarks.readers import read_results
    from parentage.verify.benchmarks.samples import digest_log

    data = read_file(results)
    result = read_results(data, str(results))
    samples = [digest_log(log) for log in logs]
    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    payload = claim(
        bound(place.signature, place.found), result, data, samples=samples, words=statement
    )
    voice.say([release], payload, signing)
    return 0


@command.command(
    "run",
    epilog="""\b
Example:
  parentage bench run ./rio --results 'out/**/results_*.json' --samples 'out/**/samples_*.jsonl' \\
      --key evaluator.key --publisher release.pub -- \\
      lm_eval --model hf --model_args pretrained={release} --tasks arc_easy --output_path out --log_samples

\b
Exit codes: those of the command where it fails; else as `parentage verify`.""",
)
@click.argument("release", type=RELEASE)
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND…")
@click.option(
    "--results", required=True, metavar="PATTERN", help="Where the command leaves its results file."
)
@click.option(
    "--samples", multiple=True, metavar="PATTERN", help="Where it leaves its logs; repeat for more."
)
@statement_option
@threads_option
@voice_options
def run(
    release: Path,
    argv: tuple[str, ...],
    results: str,
    samples: tuple[str, ...],
    statement: str,
    threads: int | None,
    voice: Voice,
) -> int:
    """Run a benchmark on RELEASE between two digests of all of it, and sign the scores (binding: observed).

    The command gets the release's path for {release}, no network where this machine can cut it off, and
    no secrets of the environment. Where it fails, or a file of the release was written meanwhile, nothing
    is signed.
    """
    from parentage.verify.benchmarks.observing import HarnessFailedError, Run, observe
    from parentage.verify.demands import Demands

    signing = voice.signing.build()
    asked = Run(argv=argv, results=results, samples=samples, words=statement)
    with progress("digest", quiet=voice.as_json, reads=[release] * 2) as bar:
        try:
            found = observe(
                release,
                asked,
                voice.trust(signing.trust),
                demands=Demands(threads=threads, progress=bar),
            )
        except HarnessFailedError as error:
            report_error(error, as_json=voice.as_json)
            return error.status
    click.echo(f"network: cut off by {found.isolation}" if found.isolation != "environment"
               else "network: asked not to be used; bwrap and unshare do not work here", err=True)  # fmt: skip
    click.echo(f"results: {found.results} ({len(found.result.scores)} scores, {found.logs} logs)", err=True)  # fmt: skip
    voice.say([release], found.payload, signing)
    return 0


@command.command(
    "replay",
    epilog="""\b
Example:
  parentage bench replay ./rio --samples-file samples_arc_easy.jsonl --samples 16 \\
      --key verifier.key --policy trust.yaml

\b
Exit codes: 0 the weights give the logged answers, 1 they do not, 3 no accepted statement names the log,
4 it can't be decided here. A disagreement is signed only into -o FILE.""",
)
@click.argument("release", type=RELEASE)
@click.option("--samples-file", "log", type=FILE, required=True, help="Log that a statement names.")
@click.option(
    "--samples", type=click.IntRange(1, 4096), default=16, show_default=True,
    help="How many log-likelihoods to score again, at places drawn now.",
)  # fmt: skip
@click.option("--nonce", default="", metavar="HEX", help="Repeat a replay.")
@click.option("--dtype", default="", help="To compute in; default: that of the logged run.")
@device_option
@threads_option
@voice_options
def replay(
    release: Path,
    log: Path,
    samples: int,
    nonce: str,
    dtype: str,
    device: str,
    threads: int | None,
    voice: Voice,
) -> int:
    """Score logged samples of RELEASE again on verified weights, and sign what came of it.

    The places follow from the signed statement and a nonce drawn now. What counts as equal comes from the
    same weights, scored again in other batches and a wider dtype.
    """
    from parentage.verify.benchmarks.replayed import Verifier, again
    from parentage.verify.demands import Demands

    _check_replay(nonce, dtype)
    signing = voice.signing.build()
    place = look(release, voice.trust(signing.trust))
    with progress("load", quiet=voice.as_json, reads=[release]) as bar:
        report, line = again(
            release,
            log,
            place.signature,
            place.found,
            place.claims,
            by=Verifier(signing.signer, signing.trust),
            samples=samples,
            trust=place.believed,
            demands=Demands(device=device, threads=threads, progress=bar),
            dtype=dtype,
            nonce=nonce,
        )
    written = voice.put([release], line) if report.verified or voice.output is not None else []
    show_report(report, as_json=voice.as_json, command="bench replay")
    for path in written or ["nothing: a disagreement is signed into -o FILE only"]:
        click.echo(f"signed: {path}", err=True)
    return report.exit_code


def _check_replay(nonce: str, dtype: str) -> None:
    if nonce and not re.fullmatch("[0-9a-f]{64}", nonce):
        raise UsageError("not a nonce", expected="64 hex digits", found=nonce)
    if dtype not in {"", "bfloat16", "float16", "float32", "float64"}:
        raise UsageError(
            "not a dtype", expected="bfloat16, float16, float32 or float64", found=dtype
        )
