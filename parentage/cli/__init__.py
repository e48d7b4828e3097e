"""The `parentage` command: one thin file a subcommand, loaded when it is called."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from contextlib import suppress
from typing import Any, Final

import click

from parentage import __version__
from parentage.cli.lazy import Lazy

_COMMANDS: Final = {
    "keygen": "make a signing key",
    "declare": "digest a release and draft its lineage",
    "sign": "sign what was declared",
    "merge": "run a recipe, write the weights, declare and sign them",
    "show": "say what a release claims, without trusting it",
    "verify": "check signature, bytes and recipe",
    "pull": "download a release, verified before it is placed",
    "push": "publish a release, verified before and after",
    "oms": "sign and verify any model as OpenSSF Model Signing does",
    "trust": "write, check and explain a trust policy",
    "attest": "verify, and sign what was found",
    "affirm": "say that a release is current, until a date",
    "supersede": "say that another release replaces one",
    "withdraw": "say that a release must not be used",
    "dispute": "disagree with what a release claims",
    "endorse": "stand by what a release claims",
    "locate": "say which revision of a repository holds a release",
    "countersign": "sign again, byte for byte, what somebody signed",
    "gate": "let a release through, or say every reason why not",
    "bench": "bind benchmark scores to weights",
    "identify": "say whose weights these are",
    "card": "hold a model card against the manifest, and write its provenance section",
    "staged": "check the releases that some files belong to, as a commit hook does",
    "export": "derive SLSA, CycloneDX or SVR documents from a verified release",
    "join": "decide from the partial results of several verifiers' runs",
}

_EPILOG: Final = """\b
Examples:
  parentage keygen -o release.key
  parentage merge recipe.yaml -o out --parent nex=./nex --parent qwen=./qwen --key release.key
  parentage verify out --key release.pub --parent ./nex --parent ./qwen

\b
Exit codes: 0 verified, 1 refuted, 2 usage, 3 unsigned, 4 unproven, 5 denied.
Shell completion: eval "$(_PARENTAGE_COMPLETE=bash_source parentage)"   (or zsh_source, fish_source)
"""


@click.group(
    cls=Lazy,
    table=_COMMANDS,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="parentage")
def cli() -> None:
    """Receipts for open weights: sign lineage, recompute it, refuse what is unproven."""


def run() -> None:
    """Run as a process: like `main`, with three things that only a process may do.

    Start-up makes many objects and no garbage, so the collector looks seldom: a tenth off torch's
    import. numpy, which torch imports, starts no threads of its own: they would spin. And torch,
    once imported, is not taken down again, which takes it half a second and gives back what the
    system takes back anyway.
    """
    gc.set_threshold(100_000)
    if "bench" not in sys.argv[1:2]:  # what it runs inherits the environment
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        main()
    except SystemExit as leaving:
        if "torch" not in sys.modules or not isinstance(leaving.code, int):
            raise
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # its reader went away
                stream.flush()
        os._exit(leaving.code)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and leave with its exit code; an error is text, never a traceback."""
    from parentage.cli.shared import report_error
    from parentage.manifest.errors import ParentageError

    given = sys.argv[1:] if arguments is None else arguments
    as_json = _wants_json(given)
    try:
        result: Any = cli.main(args=given, prog_name="parentage", standalone_mode=False)
    except ParentageError as error:
        sys.exit(report_error(error, as_json=as_json))
    except click.exceptions.Abort:
        click.echo("interrupted; nothing was left half-written", err=True)
        sys.exit(130)
    except click.ClickException as error:
        sys.exit(_mistake(error, as_json=as_json))
    except BrokenPipeError:
        # The reader of our output went away; leave quietly, as `head` expects.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        sys.exit(_extra_missing(error.name, as_json=as_json))
    except OSError as error:
        sys.exit(_os_error(error, as_json=as_json))
    sys.exit(result if isinstance(result, int) else 0)


def _wants_json(given: list[str]) -> bool:
    """Say whether errors are JSON, too: asked before the options are parsed."""
    pairs = itertools.pairwise(given)
    return bool({"--json", "--format=json"} & {*given}) or ("--format", "json") in pairs


def _mistake(error: click.ClickException, *, as_json: bool) -> int:
    from parentage.cli.shared import report_error
    from parentage.manifest.errors import UsageError

    if not as_json:
        error.show()
        return UsageError.exit_code
    return report_error(UsageError(error.format_message(), hint="--help"), as_json=True)


#: What an extra brings, and its name.
_EXTRAS = {"torch": "recompute"}


def _extra_missing(name: str, *, as_json: bool) -> int:
    from parentage.cli.shared import report_error
    from parentage.manifest.errors import CannotRunError

    error = CannotRunError(
        f"this needs {name}, which is not installed",
        hint=f"pip install 'parentage[{_EXTRAS[name]}]'",
    )
    return report_error(error, as_json=as_json)


def _os_error(error: OSError, *, as_json: bool) -> int:
    from parentage.cli.shared import report_error
    from parentage.manifest.errors import CannotRunError

    where = str(error.filename or "")
    return report_error(CannotRunError(str(error.strerror or error), where=where), as_json=as_json)
