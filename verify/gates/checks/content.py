"""Checks of files: what loaders would run or read that nobody verified, names and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from parentage.manifest import table
from parentage.manifest.model import PICKLED, READERS
from parentage.manifest.wire import matches
from parentage.verify.gates.facts import Facts, FileFact
from parentage.verify.gates.reasons import Reason, by_rule, reason
from parentage.verify.verdict import Verdict

#: Pickles, and Keras's and TensorFlow's files, whose layers may be code.
_RUNNING: Final = (
    *(*PICKLED, ".pkl", ".pickle", ".joblib", ".dill", ".nemo", ".mar", ".t7"),
    *(".h5", ".hdf5", ".keras", "saved_model.pb"),
)
_CODE: Final = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".jar", ".ipynb")
_WEIGHTS: Final = (*READERS, *PICKLED, ".h5", ".keras", ".msgpack", ".npz", ".tflite", ".pb")
#: Ours, and called .bin.
_OURS: Final = frozenset({table.LEAVES, ".parentage/sketch.bin"})


def pickles(facts: Facts) -> Iterator[Reason]:
    """Known by their names, or by how they begin: protocols 2 to 5, in torch's zip file, in NumPy's objects."""
    for name, file in _files(facts):
        # Leaves are digests, of which one in 16,384 begins as a pickle does; no loader reads them.
        if name not in _OURS and (_ends(name, _RUNNING) or _is_pickle(file.head)):
            yield from by_rule(
                facts.rules.pickles,
                "pickle",
                "this file can run code when it is loaded",
                where=name,
                hint="publish safetensors, and leave it out",
            )
    if facts.unread and facts.rules.pickles == "fail":
        yield reason(
            "pickle",
            Verdict.UNPROVEN,
            f"how {facts.unread:,} files begin is not known: too many to ask a Hub for",
            hint="level: integrity looks at all of them",
        )


def code(facts: Facts) -> Iterator[Reason]:
    """Files that are code, and configs that name some."""
    for name, file in _files(facts):
        if _ends(name, _CODE) or file.head.startswith((b"\x7fELF", b"MZ\x90")):
            yield from by_rule(
                facts.rules.code,
                "remote-code",
                "this file is code",
                where=name,
                hint="leave it out, or set code where it was read and is trusted",
            )
        if file.asks_for_code is not False:
            asks = file.asks_for_code
            yield from by_rule(
                facts.rules.code,
                "remote-code",
                "this config has loaders run code that it names"
                if asks
                else "this config can't be read, so that nobody knows what it has loaders do",
                where=name,
                hint="remove auto_map, custom_pipelines, or the module that is not the library's own"
                if asks
                else "write strict JSON, below 4 MiB",
            )


def other_weights(facts: Facts) -> Iterator[Reason]:
    """Weights that a loader may prefer to those that were verified."""
    if facts.lineage is None:
        return
    for name, file in _files(facts):
        if _ends(name, _WEIGHTS) and not file.is_weights and name not in _OURS:
            yield from by_rule(
                facts.rules.other_weights,
                "weights-unverified",
                "weights that the tensor table has not, and that no recipe is about",
                where=name,
                hint="one release, one set of weights: publish these by themselves",
            )


def ignored(facts: Facts) -> Iterator[Reason]:
    """Files that the signer's own ignore list leaves out."""
    for name, file in _files(facts):
        if file.is_ignored:
            yield from by_rule(
                facts.rules.ignored,
                "file-ignored",
                "the signer left this file out of the signature",
                where=name,
                hint="remove it, or sign it",
            )


def denied(facts: Facts) -> Iterator[Reason]:
    """Names."""
    rules = facts.rules.files
    for name, _ in _files(facts):
        forbidden = bool(rules.deny) and matches(name, rules.deny)
        if forbidden or (rules.allow and not matches(name, rules.allow)):
            yield reason(
                "file-denied",
                Verdict.DENIED,
                "this file's name is denied" if forbidden else "this file's name is not allowed",
                where=name,
            )


def large(facts: Facts) -> Iterator[Reason]:
    """Counts and sizes."""
    rules, files = facts.rules.files, facts.files or {}
    sizes = [file.size for file in files.values()]
    largest = max(files, key=lambda name: files[name].size, default="")
    for limit, found, what, where in (
        (rules.max_bytes, sum(sizes), "bytes", ""),
        (rules.max_files, len(sizes), "files", ""),
        (rules.max_file_bytes, max(sizes, default=0), "bytes in one file", largest),
    ):
        if limit is not None and found > limit:
            yield reason(
                "release-too-large",
                Verdict.DENIED,
                f"too many {what}",
                where=where,
                expected=f"at most {limit:,} {what}",
                found=f"{found:,}",
            )


def _files(facts: Facts) -> Iterator[tuple[str, FileFact]]:
    yield from sorted((facts.files or {}).items())


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _is_pickle(head: bytes) -> bool:
    protocol = head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}
    zipped = head.startswith(b"PK\x03\x04") and b"data.pkl" in head
    objects = head.startswith(b"\x93NUMPY") and b"'descr': '|O'" in head
    return protocol or zipped or objects
