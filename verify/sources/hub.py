"""A repository of a Hub, read at one commit; the one module that meets huggingface_hub to read.

The client gives the session, the headers (and so the token, which is never looked at) and the address
of a file. The rest is ours: it falls back to a cached commit where the Hub is unreachable, compares no
content with its digest, and takes the first bytes of a file for any range where a mirror ignores Range
(research/hub.md).
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from parentage.manifest import canonical
from parentage.manifest.errors import (
    HubAnswerError,
    HubError,
    HubOfflineError,
    JsonError,
    MissingExtraError,
    UsageError,
)
from parentage.verify.sources import exact
from parentage.verify.sources import listed as lists
from parentage.verify.sources.listed import Content, Listed
from parentage.verify.sources.place import HubPlace, parse_place
from parentage.verify.sources.refusals import refused
from parentage.verify.sources.web import Answer, PassingError, Patience, Web, address

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
#: Largest file that is read into memory at once.
MAX_WHOLE: Final = 256 << 20
_MAX_PAGE: Final = 32 << 20
_MAX_INFO: Final = 32 << 20
_MAX_PAGES: Final = 2_000
_COMMIT: Final = re.compile("[0-9a-f]{40}")


class Repo(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """A repository at one commit; everything that is read of it is read there.

    Attributes:
        place: at the commit.
        asked: as it was asked for: perhaps at a branch, which may point elsewhere by now.
        commit: 40 hex digits.
        endpoint: of the Hub.
        tags: that the Hub gives it: the card's, and what it makes of the card.
        moved_from: "org/name" that the Hub redirected from; empty: it did not.
        web: what it is read through; counts requests and bytes.
        targets: where files lie, for as long as those addresses hold.
    """

    place: HubPlace
    asked: HubPlace
    commit: str
    endpoint: str
    moved_from: str
    web: Web
    tags: tuple[str, ...] = ()
    targets: dict[str, str] = msgspec.field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.place)


def endpoint() -> str:
    """Return the Hub's address: HF_ENDPOINT, else the public one.

    Raises:
        UsageError: HF_ENDPOINT is no address.
    """
    found = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    parts = urlsplit(found)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
        raise UsageError(
            "HF_ENDPOINT is not the address of a Hub",
            expected=f"such as {DEFAULT_ENDPOINT}",
            found=address(found),
        )
    return found


def check_online(what: str) -> None:
    """Refuse to read from a Hub where the environment forbids it.

    Raises:
        HubOfflineError: HF_HUB_OFFLINE is set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise HubOfflineError(
            "HF_HUB_OFFLINE is set, and this must be read from the Hub",
            where=what,
            hint="unset HF_HUB_OFFLINE, or give a folder that was downloaded before",
        )


def patience() -> Patience:
    """Return how long to wait: HF_HUB_DOWNLOAD_TIMEOUT says how long a stall may last, in seconds."""
    text = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "")
    if text.isascii() and text.isdigit() and int(text[:6]) > 0:
        return Patience(stall=float(text[:6]))
    return Patience()


def resolve(place: HubPlace, *, waiting: Patience | None = None) -> Repo:
    """Ask the Hub which commit a revision is, once; never a cache.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        HubError: a subclass names what is in the way.
    """
    check_online(str(place))
    at = endpoint()
    web = _web(waiting or patience())
    revision = place.revision or "main"
    url = f"{at}/api/models/{place.repo}/revision/{quote(revision, safe='')}"
    document = _json(web, url, _MAX_INFO, place)[0]
    said = document.get("sha") if isinstance(document, dict) else None
    name = document.get("id") if isinstance(document, dict) else None
    if not isinstance(said, str) or not _COMMIT.fullmatch(said) or not isinstance(name, str):
        raise HubAnswerError(
            "the Hub does not say which commit this is", where=str(place), found=str(said)
        )
    if place.is_pinned and said != place.revision:
        raise HubAnswerError(
            "the Hub answers with another commit",
            where=str(place),
            expected=place.revision,
            found=said,
        )
    try:
        found = parse_place(f"hf://{name}@{said}")
    except UsageError as error:
        raise HubAnswerError(
            "the Hub answers with a name that is none", where=str(place), found=name
        ) from error
    return Repo(
        place=found,
        asked=place,
        commit=said,
        endpoint=at,
        moved_from=place.repo if found.repo != place.repo else "",
        web=web,
        tags=_tags(document),
    )


def _tags(document: Any) -> tuple[str, ...]:  # noqa: ANN401  (JSON)
    said = document.get("tags")
    return tuple(tag for tag in said if isinstance(tag, str)) if isinstance(said, list) else ()


def listing(repo: Repo) -> dict[str, Listed]:
    """Return every file of the repository at its commit, by name: what the Hub declares.

    Raises:
        HubAnswerError: names that lead elsewhere or stand twice, too many files or pages.
        HubError: a subclass names what is in the way.
    """
    base = f"{repo.endpoint}/api/models/{repo.place.repo}/tree/{repo.commit}"
    url: str | None = f"{base}?recursive=True&expand=False"
    found: dict[str, Listed] = {}
    for _ in range(_MAX_PAGES):
        document, answer = _json(repo.web, url, _MAX_PAGE, repo.place)
        lists.collected(found, lists.entries(document, str(repo)), str(repo))
        url = exact.next_page(answer, base)
        if url is None:
            lists.check_folders(found, str(repo))
            return dict(sorted(found.items()))
    raise HubAnswerError(
        "the Hub lists without an end", where=str(repo), expected=f"at most {_MAX_PAGES} pages"
    )


def leaderboard(dataset: str, *, waiting: Patience | None = None) -> list[Any]:
    """Return the rows of a data set's leaderboard, models with a declared base among them.

    The Hub's own view leaves those out, which rewards whoever declares none.

    Raises:
        UsageError: not "org/name".
        MissingExtraError: huggingface_hub is not installed.
        HubError: a subclass names what is in the way.
    """
    place = parse_place(f"hf://{dataset}")
    check_online(f"the leaderboard of {dataset}")
    url = f"{endpoint()}/api/datasets/{place.repo}/leaderboard?base_model=false"
    document, _ = _json(_web(waiting or patience()), url, _MAX_PAGE, place)
    if not isinstance(document, list):
        raise HubAnswerError("a leaderboard that is no list", where=dataset)
    return document


def read_range(repo: Repo, listed: Listed, start: int, stop: int) -> bytes:
    """Return bytes [start, stop) of a file: exactly those, or an error.

    Raises:
        UsageError: a range that is not in the file.
        HubAnswerError: the server ignores Range, or sends another one, or the file has another size.
        HubError: a subclass names what is in the way.
    """
    if not 0 <= start <= stop <= listed.size:
        raise UsageError(
            "not a range of the file",
            where=listed.path,
            found=f"[{start}, {stop}) of {listed.size}",
        )
    if start == stop:
        return b""

    def check(answer: Answer) -> int:
        _check(repo, listed, answer)
        exact.check_range(listed, answer, start, stop)
        return stop - start

    def once() -> bytes:
        headers = {"range": f"bytes={start}-{stop - 1}"}
        answer, data = repo.web.read(_at(repo, listed), check, headers=headers)
        _remember(repo, listed, answer)
        return exact.all_of(data, stop - start, listed)

    return repo.web.patiently(once)


def read_whole(repo: Repo, listed: Listed, *, limit: int = MAX_WHOLE) -> bytes:
    """Return a whole file, whose bytes are those that the Hub lists.

    Raises:
        HubContentError: they are not.
        HubError: it is larger than `limit`, or a subclass names what is in the way.
    """
    if listed.size > limit:
        raise HubError(
            "file too large",
            where=f"{repo}: {listed.path}",
            expected=f"at most {limit} bytes",
            found=f"{listed.size} bytes",
        )

    def check(answer: Answer) -> int:
        _check(repo, listed, answer)
        exact.check_whole(listed, answer)
        return listed.size

    def once() -> bytes:
        _, data = repo.web.read(_at(repo, listed), check)
        return exact.all_of(data, listed.size, listed)

    data = repo.web.patiently(once)
    content = Content(listed)
    content.update(data)
    exact.check_content(repo.place, listed, content)
    return data


@contextmanager
def streamed(repo: Repo, listed: Listed, start: int = 0) -> Iterator[Iterator[bytes]]:
    """Yield the pieces of a file from `start` on; fewer than all may come.

    Raises:
        PassingError: the transport failed, or was too slow.
        HubError: a subclass names what is in the way.
    """
    headers = {"range": f"bytes={start}-{listed.size - 1}"} if start else {}
    with repo.web.stream(_at(repo, listed), headers=headers) as (answer, pieces):
        _check(repo, listed, answer)
        if start:
            exact.check_range(listed, answer, start, listed.size)
        else:
            exact.check_whole(listed, answer)
        _remember(repo, listed, answer)
        yield pieces


def _check(repo: Repo, listed: Listed, answer: Answer) -> None:
    """Refuse a refusal, and an answer that is about another commit or content than is listed."""
    if answer.status >= 400:
        error = refused(repo.web, answer, repo.place, listed.path)
        # An address of a store holds for an hour or so; the Hub has a new one.
        if repo.targets.pop(listed.path, None) is not None:
            raise PassingError(error)
        raise error
    exact.check_head(repo.place, listed, answer)


def _at(repo: Repo, listed: Listed) -> str:
    """Return where a file lies: its store, once the Hub said where, or else the Hub."""
    from huggingface_hub import hf_hub_url

    known = repo.targets.get(listed.path)
    return known or hf_hub_url(
        repo.place.repo, listed.path, revision=repo.commit, endpoint=repo.endpoint
    )


def _remember(repo: Repo, listed: Listed, answer: Answer) -> None:
    """Keep where a file lies, so that its other ranges take one request each."""
    if listed.sha256 is not None and not answer.url.startswith(repo.endpoint + "/"):
        repo.targets[listed.path] = answer.url


def _json(web: Web, url: str | None, limit: int, place: HubPlace) -> tuple[Any, Answer]:
    def check(answer: Answer) -> int:
        if answer.status != 200:
            raise refused(web, answer, place)
        return limit

    answer, data = web.patiently(lambda: web.read(str(url), check))
    try:
        return canonical.loads(data, where=str(place), max_bytes=limit, floats=True), answer
    except JsonError as error:
        raise HubAnswerError(
            f"the Hub's answer can't be read: {error.what}", where=str(place), found=error.found
        ) from error


def _web(waiting: Patience) -> Web:
    try:
        from huggingface_hub import get_session
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, by its docs
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise MissingExtraError(
            "reading from a Hub needs huggingface_hub, which is not installed",
            hint="pip install 'parentage[hub]'",
        ) from error
    # httpx's or httpx2's, whichever this version of the client stands on.
    root = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    client = importlib.import_module(root.__module__.partition(".")[0])
    headers: Mapping[str, str] = build_hf_headers(library_name="parentage")
    return Web(get_session, headers, (root, client.InvalidURL, OSError), waiting)
