"""The routes of the Hub's HTTP API that its Python client calls (huggingface_hub 2.4.0), for models.

To add one: a function of the call and of what its pattern names, and a line in ROUTES.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

import yaml
from hub_calls import Answer, Call, Content
from hub_repos import (
    Commit,
    PullRequest,
    RefusalError,
    Repo,
    Stored,
    is_large,
    large_file,
    pointer,
    regular_file,
)

_FRONT = re.compile(rb"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


def _repo(call: Call, name: str) -> Repo:
    """Find a repository that the caller may know of."""
    if name not in call.hub.repos and name in call.hub.moved:
        there = call.log.path.replace(name, call.hub.moved[name], 1)
        raise RefusalError(307, "Moved", "", Location=there)
    repo = call.hub.repo(name)
    user = call.user
    if repo.private and user is None:
        raise RefusalError(401, "RepoNotFound", "Invalid username or password.")
    if repo.private and user != repo.id.split("/", maxsplit=1)[0] and user not in repo.readers:
        raise RefusalError(404, "RepoNotFound", "Repository not found")
    return repo


def _open(call: Call, name: str) -> Repo:
    """Find a repository whose files the caller may have."""
    repo = _repo(call, name)
    user = call.user
    if repo.gated and user not in repo.readers:
        said = f"Access to model {repo.id} is restricted."
        raise RefusalError(401 if user is None else 403, "GatedRepo", said)
    return repo


# Accounts and repositories


def whoami(call: Call) -> Answer:
    user = call.user
    if user is None:
        raise RefusalError(401, "Unauthorized", "Invalid username or password.")
    access = {"displayName": "test", "role": call.hub.tokens[_token(call)][1]}
    auth = {"type": "access_token", "accessToken": access}
    return Answer(document={"type": "user", "name": user, "orgs": [], "auth": auth})


def _token(call: Call) -> str:
    token: str = call.headers["authorization"].removeprefix("Bearer ")
    return token


def create(call: Call) -> Answer:
    user, asked = call.writer(), call.json
    name = f"{asked.get('organization') or user}/{asked['name']}"
    document = {"url": f"{call.base}/{name}", "name": name}
    if name in call.hub.repos:
        said = "You already created this model repo"
        return Answer(409, {**document, "error": said}, {"X-Error-Message": said})
    call.hub.create(
        name, private=asked.get("visibility") == "private" or bool(asked.get("private"))
    )
    return Answer(document=document)


def move(call: Call) -> Answer:
    call.writer()
    call.hub.rename(call.json["fromRepo"], call.json["toRepo"])
    return Answer()


def settings(call: Call, repo: str) -> Answer:
    call.writer()
    found, asked = _repo(call, repo), call.json
    found.gated = asked.get("gated", found.gated)
    if "visibility" in asked or "private" in asked:
        found.private = asked.get("visibility") == "private" or bool(asked.get("private"))
    return Answer(document=asked)


def validate_yaml(call: Call) -> Answer:
    return Answer(document={"errors": [], "warnings": []})


def leaderboard(call: Call, dataset: str) -> Answer:
    rows = call.hub.leaderboards.get(dataset)
    if rows is None:
        raise RefusalError(404, "RepoNotFound", "Repository not found")
    return Answer(document=rows)


# Reading


def info(call: Call, repo: str, rev: str | None = None) -> Answer:
    found = _repo(call, repo)
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
    return card if isinstance(card, dict) else None


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
    commit = _open(call, repo).find(unquote(rev))
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
    from urllib.parse import parse_qs

    commit = _open(call, repo).find(unquote(rev))
    if "json" in (call.headers.get("content-type") or ""):
        paths = call.json["paths"]
    else:
        paths = parse_qs(call.body.decode()).get("paths", [])
    known = [(path, commit.files[path]) for path in paths if path in commit.files]
    return Answer(document=[_entry(call, path, file) for path, file in known])


def refs(call: Call, repo: str) -> Answer:
    found = _repo(call, repo)
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
    found = _open(call, repo)
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
    commit = _open(call, repo).find(unquote(rev))
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


# Writing


def preupload(call: Call, repo: str, rev: str) -> Answer:
    call.writer()
    known = _repo(call, repo).find(unquote(rev)).files
    listed = [
        {
            "path": asked["path"],
            "uploadMode": "lfs" if is_large(asked["path"], asked["size"]) else "regular",
            "shouldIgnore": False,
            "oid": _identity(known.get(asked["path"])),
        }
        for asked in call.json["files"]
    ]
    return Answer(document={"files": listed})


def _identity(file: Stored | None) -> str | None:
    return (file.sha256 or file.oid) if file else None


def lfs_batch(call: Call, repo: str) -> Answer:
    call.writer()
    _repo(call, repo)
    listed = []
    for asked in call.json["objects"]:
        entry = {"oid": asked["oid"], "size": asked["size"]}
        if not call.hub.objects.has(asked["oid"]):
            href = f"{call.base}/_lfs/{asked['oid']}"
            verify = {"href": f"{href}/verify", "header": {}}
            entry["actions"] = {"upload": {"href": href, "header": {}}, "verify": verify}
        listed.append(entry)
    return Answer(
        document={"transfer": "basic", "objects": listed},
        headers={"Content-Type": "application/vnd.git-lfs+json"},
    )


def lfs_put(call: Call, sha256: str) -> Answer:
    if not call.hub.objects.take(call.pieces(), sha256):
        raise RefusalError(400, "BadRequest", "sha256 of the content is another")
    return Answer(document=b"")


def lfs_verify(call: Call, sha256: str) -> Answer:
    if not call.hub.objects.has(sha256):
        raise RefusalError(404, "EntryNotFound", "no such object")
    return Answer()


def xet_token(call: Call, repo: str, kind: str, rev: str | None = None) -> Answer:
    _open(call, repo)
    if kind == "write":
        call.writer()
    url = call.hub.objects.xet_url
    if not url:
        raise RefusalError(404, "NotFound", "Xet is not enabled")
    expires = int(time.time()) + 3600
    told = {
        "X-Xet-Cas-Url": url,
        "X-Xet-Access-Token": "xet",
        "X-Xet-Token-Expiration": str(expires),
    }
    return Answer(document={"casUrl": url, "accessToken": "xet", "exp": expires}, headers=told)


def commit(call: Call, repo: str, rev: str) -> Answer:
    user, found = call.writer(), _repo(call, repo)
    lines = [json.loads(line) for line in call.body.splitlines()]
    head, changes = lines[0]["value"], lines[1:]
    with call.hub.lock:
        tip = found.find(unquote(rev))
        expected = head.get("parentCommit")
        if expected and not tip.oid.startswith(expected):
            said = "A commit has happened since. Please refresh and try again."
            raise RefusalError(412, "PreconditionFailed", said)
        files = dict(tip.files)
        for change in changes:
            _apply(call, files, change["key"], change["value"])
        title, message = head["summary"], head.get("description", "")
        ref, pull = found.ref_name(unquote(rev)), None
        if call.query.get("create_pr"):
            pull = _propose(found, title, user, unquote(rev))
            ref = pull.ref
        made = call.hub.record(found, files, (tip.oid,), ref, title, message=message, author=user)
    return Answer(
        document={
            "success": True,
            "commitOid": made.oid,
            "commitUrl": f"{call.base}/{repo}/commit/{made.oid}",
            "pullRequestUrl": f"{call.base}/{repo}/discussions/{pull.number}" if pull else None,
        }
    )


def _apply(call: Call, files: dict[str, Stored], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = regular_file(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if not call.hub.objects.has(value["oid"]):
            raise RefusalError(400, "BadRequest", f"LFS object {value['oid']} was never uploaded")
        files[path] = large_file(value["oid"], call.hub.objects.size(value["oid"]))
    elif key == "deletedFile":
        files.pop(path, None)
    elif key == "deletedFolder":
        for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
            del files[name]
    else:
        raise RefusalError(400, "BadRequest", f"unknown key {key}")


def branch(call: Call, repo: str, name: str) -> Answer:
    call.writer()
    found, ref = _repo(call, repo), f"refs/heads/{unquote(name)}"
    if call.method == "DELETE":
        found.refs.pop(ref, None)
        return Answer()
    if ref in found.refs:
        raise RefusalError(409, "Conflict", "Reference already exists")
    found.refs[ref] = found.find(call.json.get("startingPoint") or "main").oid
    return Answer()


def tag(call: Call, repo: str, rev: str) -> Answer:
    call.writer()
    found = _repo(call, repo)
    if call.method == "DELETE":
        found.refs.pop(f"refs/tags/{unquote(rev)}", None)
        return Answer()
    ref = f"refs/tags/{call.json['tag']}"
    if ref in found.refs:
        raise RefusalError(409, "Conflict", "Tag already exists")
    found.refs[ref] = found.find(unquote(rev)).oid
    return Answer()


def squash(call: Call, repo: str, name: str) -> Answer:
    user, found = call.writer(), _repo(call, repo)
    tip = found.find(unquote(name))
    title = call.json.get("message") or "Super-squash branch"
    call.hub.record(found, tip.files, (), f"refs/heads/{unquote(name)}", title, author=user)
    return Answer()


# Pull requests


def _propose(repo: Repo, title: str, user: str, base: str, status: str = "open") -> PullRequest:
    pull = PullRequest(len(repo.pulls) + 1, title, user, base, status)
    repo.pulls[pull.number] = pull
    return pull


def propose(call: Call, repo: str) -> Answer:
    user, found, asked = call.writer(), _repo(call, repo), call.json
    if not asked.get("pullRequest"):
        raise RefusalError(
            400, "BadRequest", "the local Hub knows discussions of pull requests only"
        )
    pull = _propose(found, asked["title"], user, "main", "draft")
    found.refs[pull.ref] = found.refs["refs/heads/main"]
    return Answer(document={"num": pull.number})


def discussion(call: Call, repo: str, number: str) -> Answer:
    found = _repo(call, repo)
    pull = _pull(found, number)
    return Answer(
        document={
            "num": pull.number,
            "title": pull.title,
            "status": pull.status,
            "author": {"name": pull.author},
            "repo": {"name": found.id, "type": "model"},
            "isPullRequest": True,
            "createdAt": found.find(pull.ref).date,
            "events": [],
            "changes": {"base": found.ref_name(pull.base), "mergeCommitId": pull.merged},
            "filesWithConflicts": [],
            "diff": "",
        }
    )


def _pull(repo: Repo, number: str) -> PullRequest:
    if int(number) not in repo.pulls:
        raise RefusalError(404, "NotFound", "Discussion not found")
    return repo.pulls[int(number)]


def merge(call: Call, repo: str, number: str) -> Answer:
    user, found = call.writer(), _repo(call, repo)
    call.hub.merge(found, _pull(found, number), user)
    return Answer()


def status(call: Call, repo: str, number: str) -> Answer:
    call.writer()
    pull, asked = _pull(_repo(call, repo), number), call.json
    pull.status = asked["status"]
    event = {"id": "0", "type": "status-change", "author": {"name": pull.author}}
    event |= {"createdAt": "2026-01-01T00:00:00.000Z", "data": {"status": pull.status}}
    return Answer(document={"newStatus": event})


def comment(call: Call, repo: str, number: str) -> Answer:
    user = call.writer()
    _pull(_repo(call, repo), number)
    latest = {"raw": call.json["comment"], "html": "", "updatedAt": "2026-01-01T00:00:00.000Z"}
    event = {"id": "0", "type": "comment", "author": {"name": user}}
    event |= {"createdAt": "2026-01-01T00:00:00.000Z"}
    event["data"] = {
        "edited": False,
        "hidden": False,
        "latest": {**latest, "author": {"name": user}},
    }
    return Answer(document={"newMessage": event})


Handler = Callable[..., Answer]
_API: Final = r"/api/models/(?P<repo>[^/]+/[^/]+)"
_SHA: Final = r"(?P<sha256>[0-9a-f]{64})"

#: Method, name, pattern, function; the first that fits is taken.
ROUTES: Final[list[tuple[str, str, str, Handler]]] = [
    ("GET", "whoami", "/api/whoami-v2", whoami),
    ("POST", "create", "/api/repos/create", create),
    ("POST", "move", "/api/repos/move", move),
    ("POST", "validate-yaml", "/api/validate-yaml", validate_yaml),
    ("GET", "leaderboard", "/api/datasets/(?P<dataset>[^/]+/[^/]+)/leaderboard", leaderboard),
    ("PUT", "settings", f"{_API}/settings", settings),
    ("GET", "info", f"{_API}(?:/revision/(?P<rev>[^/]+))?", info),
    ("GET", "tree", f"{_API}/tree/(?P<rev>[^/]+)(?:/(?P<rest>.*))?", tree),
    ("POST", "paths-info", f"{_API}/paths-info/(?P<rev>[^/]+)", paths_info),
    ("GET", "refs", f"{_API}/refs", refs),
    ("GET", "commits", f"{_API}/commits/(?P<rev>[^/]+)", commits),
    ("GET HEAD", "resolve", "/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)", resolve),
    ("GET HEAD", "lfs-get", f"/_lfs/{_SHA}", lfs_get),
    ("GET HEAD", "elsewhere", "/_elsewhere/.*", elsewhere),
    ("POST", "preupload", f"{_API}/preupload/(?P<rev>[^/]+)", preupload),
    ("POST", "lfs-batch", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", "lfs-put", f"/_lfs/{_SHA}", lfs_put),
    ("POST", "lfs-verify", f"/_lfs/{_SHA}/verify", lfs_verify),
    ("GET", "xet-token", f"{_API}/xet-(?P<kind>read|write)-token(?:/(?P<rev>[^/]+))?", xet_token),
    ("POST", "commit", f"{_API}/commit/(?P<rev>[^/]+)", commit),
    ("POST DELETE", "branch", f"{_API}/branch/(?P<name>[^/]+)", branch),
    ("POST DELETE", "tag", f"{_API}/tag/(?P<rev>[^/]+)", tag),
    ("POST", "squash", f"{_API}/super-squash/(?P<name>[^/]+)", squash),
    ("POST", "propose", f"{_API}/discussions", propose),
    ("GET", "discussion", rf"{_API}/discussions/(?P<number>\d+)", discussion),
    ("POST", "merge", rf"{_API}/discussions/(?P<number>\d+)/merge", merge),
    ("POST", "status", rf"{_API}/discussions/(?P<number>\d+)/status", status),
    ("POST", "comment", rf"{_API}/discussions/(?P<number>\d+)/comment", comment),
]


def find_route(call: Call) -> tuple[str, Handler, dict[str, str]]:
    """Return a request's route, and what its pattern names.

    Raises:
        RefusalError: there is none.
    """
    for methods, name, pattern, handler in ROUTES:
        found = re.fullmatch(pattern, call.path)
        if found and call.method in methods.split():
            return name, handler, found.groupdict()
    raise RefusalError(404, "NotFound", f"the local Hub has no {call.method} {call.path}")
