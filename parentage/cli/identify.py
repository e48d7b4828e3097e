"""`parentage identify`."""

from __future__ import annotations

import click

from parentage.cli.places import SOURCE, Given, all_at_hand, at_hand
from parentage.cli.shared import coloured, emit, json_option, progress, threads_option


@click.command(
    "identify",
    epilog="""\b
Examples:
  parentage identify ./suspect --against ./all-minilm --against ./qwen
  parentage identify model.onnx --against ./all-minilm --json
  parentage identify hf://acme/new --against hf://acme/base@v1

\b
Exit codes: 0 every tensor is one of a known model's, 2 usage, 4 not, or only in part.""",
)
@click.argument("suspect", type=SOURCE)
@click.option(
    "--against",
    type=SOURCE,
    multiple=True,
    required=True,
    help="Known weights; repeat for more.",
)
@threads_option
@json_option
def command(suspect: Given, against: tuple[Given, ...], threads: int | None, as_json: bool) -> int:
    """Say whose weights SUSPECT is made of: byte for byte, under whatever names."""
    from parentage.manifest.errors import EXIT_UNPROVEN, EXIT_VERIFIED
    from parentage.verify.identify import identify, to_text

    held = at_hand(suspect, "weights", quiet=as_json)
    known = all_at_hand(against, "weights", quiet=as_json)
    with progress("identify", quiet=as_json, reads=[held, *known]) as bar:
        found = identify(held, known, threads=threads, progress=bar)
    if as_json:
        emit(found)
    else:
        word, split, rest = to_text(found).partition("  ")
        click.echo(coloured(word, "green" if found.identified else "yellow") + split + rest)
    return EXIT_VERIFIED if found.identified else EXIT_UNPROVEN
