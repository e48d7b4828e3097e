"""The runner that a verifier asked for: threads or Ray, with a journal or without."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from parentage import __version__
from parentage.manifest import canonical
from parentage.manifest.lineage import Lineage, to_document
from parentage.verify import on_ray
from parentage.verify.engine import Engine
from parentage.verify.journal import Journal
from parentage.verify.values import FileSource
from parentage.verify.way import Way
from parentage.verify.work import Kept, Runner, Scene, Threads


@contextmanager
def running(
    way: Way,
    engine: Engine,
    scene: Scene,
    parents: Mapping[str, FileSource],
    inputs: Mapping[str, str],
) -> Iterator[Runner]:
    """Yield the runner.

    Args:
        way: threads or Ray, journal or none.
        engine: devices and threads; with Ray, as many workers.
        scene: what tasks are about.
        parents: by id.
        inputs: what results depend on, as `inputs_of` gives it.

    Raises:
        JournalError, MissingExtraError, CannotRunError.
    """
    with ExitStack() as stack:
        runner: Runner = Threads(engine, scene)
        if way.engine == "ray":
            ray = stack.enter_context(on_ray.cluster(way.ray_address, engine.threads))
            runner = on_ray.OnRay(ray, engine, scene, on_ray.errand_of(scene, parents, engine))
        if way.resume is not None:
            journal = stack.enter_context(Journal(way.resume, inputs))
            runner = Kept(runner, journal, engine, scene)
        yield runner


def inputs_of(
    root: Mapping[str, str], lineage: Lineage, found: Iterable[str], rung: str
) -> dict[str, str]:
    """Return what every result depends on, by name.

    Args:
        root: of the release's weights, by digest profile.
        lineage: as signed.
        found: ids of the parents at hand, which have the roots that it declares.
        rung: demanded.
    """
    parents = {parent.id: dict(parent.weights) for parent in lineage.parents}
    return {
        "release": _text(dict(root)),
        "lineage": hashlib.sha256(canonical.dumps(to_document(lineage))).hexdigest(),
        "parents": _text({name: parents[name] for name in sorted(found)}),
        "rung": rung,
        "parentage": __version__,
        "torch": str(torch.__version__).partition("+")[0],
    }


def _text(value: object) -> str:
    return canonical.dumps(value).decode()
