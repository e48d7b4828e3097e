"""Tasks on Ray: the only module that knows it. Weights never enter its object store.

A worker gets the paths of the files, the recipe and a task; it opens the files itself, reads its own
ranges, and sends back counts. What it opens must be what was hashed: the same inodes with the same
sizes and times, which a cluster whose nodes share a file system satisfies and another does not.
A worker that dies loses its tasks in hand, which Ray starts again elsewhere.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from parentage.manifest.errors import CannotRunError, FileSetError, MissingExtraError
from parentage.manifest.model import Model, open_model
from parentage.manifest.steps import Step
from parentage.verify import work
from parentage.verify.engine import Engine, bind
from parentage.verify.planner import Task, size_of
from parentage.verify.values import FileSource
from parentage.verify.work import AnyJob, Result, Scene

#: Bytes of Ray's object store: recipes and counts only. It takes no less.
_STORE: Final = 80 << 20
_RETRIES: Final = 5
#: Tasks handed to Ray ahead, a worker.
_AHEAD: Final = 3


class Place(msgspec.Struct, frozen=True):
    """A model as a worker finds it again.

    Attributes:
        path: absolute.
        files: (inode, size, time of change in ns) of each file of weights.
    """

    path: str
    files: dict[str, tuple[int, int, int]]


class Errand(msgspec.Struct, frozen=True):
    """What every task of a run has in common."""

    release: Place
    parents: dict[str, Place]
    steps: tuple[Step, ...]
    device: str


class OnRay:
    """Runs tasks on Ray workers."""

    def __init__(self, ray: Any, engine: Engine, scene: Scene, errand: Errand) -> None:  # noqa: ANN401
        self._ray, self._engine, self._scene = ray, engine, scene
        # A few KB of recipe and paths: the only thing that is put into the object store.
        self._errand = ray.put(msgspec.json.encode(errand))
        options = {"num_cpus": 1, "max_retries": _RETRIES}
        if errand.device != "cpu":
            options["num_gpus"] = 1
        self._remote = ray.remote(**options)(_perform)

    def run(self, job: AnyJob, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield results as they come."""
        ray = self._ray
        workers = int(ray.cluster_resources().get("CPU", 1))
        waiting: dict[Any, Task] = {}
        rest = iter(tasks)
        try:
            while True:
                while len(waiting) < workers * _AHEAD:
                    task = next(rest, None)
                    if task is None:
                        break
                    ticket = self._remote.remote(self._errand, _encoded(job, task))
                    waiting[ticket] = task
                if not waiting:
                    return
                for ticket in ray.wait(list(waiting), num_returns=1)[0]:
                    task = waiting.pop(ticket)
                    result = work.decode(job, self._fetch(ticket))
                    spec = self._scene.bound[job.step].specs[task.name]
                    self._engine.report(size_of(spec, task))
                    yield task, result
        finally:
            for ticket in waiting:
                ray.cancel(ticket, force=True)

    def _fetch(self, ticket: Any) -> bytes:  # noqa: ANN401
        from ray.exceptions import RayError, RayTaskError

        try:
            data: bytes = self._ray.get(ticket)
        except RayTaskError as error:
            # An error of ours that a worker met is ours again; anything else is a fault to be seen.
            raise error.cause from None
        except RayError as error:
            raise CannotRunError(
                "a task was lost on Ray, and again each time it was retried",
                found=type(error).__name__,
                hint="run without --engine ray, or look at the workers' memory",
            ) from error
        return data


def _encoded(job: AnyJob, task: Task) -> bytes:
    if isinstance(job, work.Lower):
        job = msgspec.structs.replace(job, missed={task.name: job.missed[task.name]})
    return msgspec.json.encode((job, task))


@contextmanager
def cluster(address: str, workers: int) -> Iterator[Any]:
    """Join the cluster at `address`, or start one on this machine: loopback only, no dashboard.

    Raises:
        MissingExtraError: Ray is not installed.
        CannotRunError: there is no cluster.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not address:
            # Loopback only: Ray replaces 127.0.0.1 by an address that others reach, but for this.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Ray is not installed", hint="pip install 'parentage[ray]', or --engine threads"
        ) from error
    options: dict[str, Any] = {"address": address}
    if not address:
        options = {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _STORE,
            "num_cpus": workers,
        }
    # Ray tells of dead workers on standard output, which is the report's.
    with redirect_stdout(sys.stderr):
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            hint = "a cluster that asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            raise CannotRunError(
                f"no Ray here: {error}", where=address, hint=hint if address else ""
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def errand_of(scene: Scene, parents: Mapping[str, FileSource], engine: Engine) -> Errand:
    """Return what workers need to find the same files and bind the same steps."""
    return Errand(
        release=_place(scene.release.model),
        parents={name: _place(source.model) for name, source in parents.items()},
        steps=tuple(source.step for source in scene.bound.values()),
        device=engine.device.type,
    )


def _place(model: Model) -> Place:
    files: dict[str, tuple[int, int, int]] = {}
    for name in model.headers:
        status = os.fstat(model.files.files[name].descriptor)
        files[name] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return Place(str(model.root.absolute()), files)


def _perform(errand: bytes, asked: bytes) -> bytes:
    """Do one task, in a worker."""
    job, task = msgspec.json.decode(asked, type=tuple[AnyJob, Task])
    runner = _runner(errand)
    for _, result in runner.run(job, [task]):
        return work.encode(result)
    raise AssertionError("a task without a result")


@lru_cache(maxsize=1)
def _runner(errand: bytes) -> work.Threads:
    """Open the files and bind the steps: once a worker."""
    asked = msgspec.json.decode(errand, type=Errand)
    with ExitStack() as stack:
        release = FileSource(stack.enter_context(_opened(asked.release)))
        parents = {
            name: FileSource(stack.enter_context(_opened(place)))
            for name, place in asked.parents.items()
        }
        bound = bind(asked.steps, parents)
        stack.pop_all()  # the files stay open as long as the worker lives
    return work.Threads(Engine(torch.device(asked.device), 1), Scene(release, bound))


def _opened(place: Place) -> Model:
    model = open_model(Path(place.path))
    found = _place(model)
    if found != place:
        model.files.close()
        raise FileSetError(
            "a Ray worker finds other files than those that were hashed",
            where=place.path,
            expected=str(place.files),
            found=str(found.files),
            hint="all nodes must see the same file system; nothing may be replaced meanwhile",
        )
    return model
