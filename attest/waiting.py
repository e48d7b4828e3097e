"""Waiting that ends, whatever is being waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

T = TypeVar("T")


class OverdueError(Exception):
    """A call did not end in time; whoever waited gives it a name."""


def within(seconds: float, call: Callable[[], T], *, name: str = "waiting") -> T:
    """Return what `call` returns, or give up after `seconds`.

    A socket's timeout begins anew with every byte, so a service that drips could hold us for ever.
    What is given up runs on in a thread that ends with the process.

    Raises:
        OverdueError: it did not end; whatever else `call` raises is raised here.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  (handed to the caller, all of it)
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, daemon=True, name=name).start()
    try:
        return future.result(seconds)
    except FutureTimeoutError as error:
        if future.done():  # a timeout of the call's own
            raise
        raise OverdueError(name) from error
