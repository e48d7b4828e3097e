"""`parentage bench`: attach, run, replay."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.saying import RELEASE, Voice, look, statement_option, voice_options
from parentage.cli.shared import FILE

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
