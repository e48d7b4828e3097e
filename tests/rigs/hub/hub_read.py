"""What the local Hub answers to readers: states, listings, contents."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

import yaml
from hub_access import readable, visible
from hub_calls import Answer, Call, Content
from hub_repos import Commit, RefusalError, Stored, pointer

_FRONT = re.compile(rb"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


def info(call: Call, repo: str, rev: str | None = None) -> Answer:
    found = visible(call, repo)
    commit = found.find(unquote(rev or "main"))
    card = _card(commit)
    return Answer(
        document={
            "_id": "0" * 24,
            "id": found.id,
            "modelId": found.id,
            "author": found.id.split("/", maxsplit=1)[0],
            "sha": commit.oid,
            "private": found.private,
            "gated": found.gated,
            "disabled": False,
            "tags": list((card or {}).get("tags") or []),
            "downloads": 0,
            "likes": 0,
            "createdAt": found.ancestors(commit.oid)[-1].date,
            "lastModified": commit.date,
            "cardData": card,
            "siblings": [
                {
                    "rfilename": path,
                    **({"blobId": f.oid, **_entry(call, path, f)} if "blobs" in call.query else {}),
                }
                for path, f in sorted(commit.files.items())
            ],
        }
    )


def _card(commit: Commit) -> dict[str, Any] | None:
    readme = commit.files.get("README.md")
    front = _FRONT.match(readme.data or b"") if readme else None
    card = yaml.safe_load(front[1]) if front else None
    return json.loads(json.dumps(card, default=_day)) if isinstance(card, dict) else None


def _day(value: date) -> str:
    """Return a day as JavaScript writes it, which the Hub reads cards in."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _entry(call: Call, path: str, file: Stored) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    if file.sha256:
        length = len(pointer(file.sha256, file.size))
        entry["lfs"] = {
            "oid": file.sha256,
            "sha256": file.sha256,
            "size": file.size,
            "pointerSize": length,
        }
        xet_hash = call.hub.objects.xet_hash(file.sha256)
        entry |= {"xetHash": xet_hash} if xet_hash else {}
    return entry


def tree(call: Call, repo: str, rev: str, rest: str | None = None) -> Answer:
    commit = readable(call, repo).find(unquote(rev))
    under = unquote(rest).strip("/") + "/" if rest else ""
    recursive = call.query.get("recursive", "").lower() in ("1", "true")
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(commit.files.items()):
        if not path.startswith(under):
            continue
        folders = path[len(under) :].split("/")[:-1]
        for depth in range(1, (len(folders) if recursive else min(len(folders), 1)) + 1):
            name = under + "/".join(folders[:depth])
            entries[name] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
        if recursive or not folders:
            entries[path] = _entry(call, path, file)
    if under and not entries:
        raise RefusalError(404, "EntryNotFound", f"{under} does not exist on {rev!r}")
    return _page(call, list(entries.values()), 50 if call.query.get("expand") == "True" else 1000)


def _page(call: Call, items: list[Any], size: int) -> Answer:
    """Cut a list into pages, the next of which is named by a Link header."""
    size = min(int(call.query.get("limit") or size), size)
    start = int(call.query.get("cursor") or 0)
    answer = Answer(document=items[start : start + size])
    if start + size < len(items):
        further = urlencode({**call.query, "cursor": start + size})
        answer.headers["Link"] = f'<{call.base}{call.path}?{further}>; rel="next"'
    return answer


def paths_info(call: Call, repo: str, rev: str) -> Answer:
    commit = readable(call, repo).find(unquote(rev))
    if "json" in (call.headers.get("content-type") or ""):
        paths = call.json["paths"]
    else:
        paths = parse_qs(call.body.decode()).get("paths", [])
    known = [(path, commit.files[path]) for path in paths if path in commit.files]
    return Answer(document=[_entry(call, path, file) for path, file in known])


def refs(call: Call, repo: str) -> Answer:
    found = visible(call, repo)
    document: dict[str, list[Any]] = {
        "branches": [],
        "tags": [],
        "converts": [],
        "pullRequests": [],
    }
    kinds = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
    for ref, oid in sorted(found.refs.items()):
        head, kind = next((head, kind) for head, kind in kinds.items() if ref.startswith(head))
        name = ref if kind == "pullRequests" else ref.removeprefix(head)
        document[kind].append({"name": name, "ref": ref, "targetCommit": oid})
    return Answer(document=document)


def commits(call: Call, repo: str, rev: str) -> Answer:
    found = readable(call, repo)
    listed = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author}],
            "date": commit.date,
        }
        for commit in found.ancestors(found.find(unquote(rev)).oid)
    ]
    return _page(call, listed, 50)


def resolve(call: Call, repo: str, rev: str, path: str) -> Answer:
    commit = readable(call, repo).find(unquote(rev))
    name = unquote(path)
    headers = {"X-Repo-Commit": commit.oid}
    file = commit.files.get(name)
    if file is None:
        raise RefusalError(404, "EntryNotFound", "Entry not found", **headers)
    if file.sha256 is None:
        content = Content(file.data or b"", file.size)
        return Answer(headers={**headers, "ETag": f'"{file.oid}"'}, content=content, file=name)
    # Another host name, as the real one's CDN: the client follows redirects of HEAD on one host
    # and then misses X-Repo-Commit.
    elsewhere = call.base.replace("127.0.0.1", "localhost")
    headers["Location"] = f"{elsewhere}/_lfs/{file.sha256}?file={quote(name, safe='')}"
    headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    xet_hash = call.hub.objects.xet_hash(file.sha256)
    if xet_hash:
        token = f"{call.base}/api/models/{repo}/xet-read-token/{commit.oid}"
        headers |= {"X-Xet-Hash": xet_hash, "X-Xet-Refresh-Route": token}
    return Answer(302, headers=headers, document=b"", file=name)


def lfs_get(call: Call, sha256: str) -> Answer:
    if not call.hub.objects.has(sha256):
        raise RefusalError(404, "EntryNotFound", "no such object")
    content = Content(call.hub.objects.path(sha256), call.hub.objects.size(sha256))
    name = unquote(call.query.get("file", ""))
    return Answer(headers={"ETag": f'"{sha256}"'}, content=content, file=name)


def elsewhere(call: Call) -> Answer:
    """Stand for a foreign host, to which a client was sent."""
    return Answer(document=b"elsewhere")
