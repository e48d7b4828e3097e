"""`parentage bench`: attach, run, replay."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.saying import RELEASE, Voice, look, statement_option, voice_options
from parentage.cli.shared import FILE, progress, report_error, threads_option

samples_option = click.option(
    "--samples",
    "logs",
    type=FILE,
    multiple=True,
    help="Log of samples beside the results (JSON lines); repeat for more.",
)


@click.group(
    "bench",
    epilog="\b\nExample:\n  parentage bench attach ./rio results.json --key evaluator.key --publisher release.pub",
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
