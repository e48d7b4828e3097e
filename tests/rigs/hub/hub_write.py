"""How the local Hub is written to: uploads, commits, refs, pull requests."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import unquote

from hub_access import owned, readable, visible
from hub_calls import Answer, Call
from hub_repos import PullRequest, RefusalError, Repo, Stored, is_large, large_file, regular_file


def preupload(call: Call, repo: str, rev: str) -> Answer:
    call.writer()
    known = visible(call, repo).find(unquote(rev)).files
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
    visible(call, repo)
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
    readable(call, repo)
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
    if call.query.get("create_pr") or unquote(rev).startswith("refs/pr/"):
        user, found = call.writer(), visible(call, repo)
    else:
        user, found = owned(call, repo)
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
    (_, found), ref = owned(call, repo), f"refs/heads/{unquote(name)}"
    if call.method == "DELETE":
        found.refs.pop(ref, None)
        return Answer()
    if ref in found.refs:
        raise RefusalError(409, "Conflict", "Reference already exists")
    found.refs[ref] = found.find(call.json.get("startingPoint") or "main").oid
    return Answer()


def tag(call: Call, repo: str, rev: str) -> Answer:
    _, found = owned(call, repo)
    if call.method == "DELETE":
        found.refs.pop(f"refs/tags/{unquote(rev)}", None)
        return Answer()
    ref = f"refs/tags/{call.json['tag']}"
    if ref in found.refs:
        raise RefusalError(409, "Conflict", "Tag already exists")
    found.refs[ref] = found.find(unquote(rev)).oid
    return Answer()


def squash(call: Call, repo: str, name: str) -> Answer:
    user, found = owned(call, repo)
    tip = found.find(unquote(name))
    title = call.json.get("message") or "Super-squash branch"
    call.hub.record(found, tip.files, (), f"refs/heads/{unquote(name)}", title, author=user)
    return Answer()


def _propose(repo: Repo, title: str, user: str, base: str, status: str = "open") -> PullRequest:
    pull = PullRequest(len(repo.pulls) + 1, title, user, base, status)
    repo.pulls[pull.number] = pull
    return pull


def propose(call: Call, repo: str) -> Answer:
    user, found, asked = call.writer(), visible(call, repo), call.json
    if not asked.get("pullRequest"):
        raise RefusalError(
            400, "BadRequest", "the local Hub knows discussions of pull requests only"
        )
    pull = _propose(found, asked["title"], user, "main", "draft")
    found.refs[pull.ref] = found.refs["refs/heads/main"]
    return Answer(document={"num": pull.number})


def discussion(call: Call, repo: str, number: str) -> Answer:
    found = visible(call, repo)
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
    user, found = owned(call, repo)
    call.hub.merge(found, _pull(found, number), user)
    return Answer()


def status(call: Call, repo: str, number: str) -> Answer:
    call.writer()
    pull, asked = _pull(visible(call, repo), number), call.json
    pull.status = asked["status"]
    event = {"id": "0", "type": "status-change", "author": {"name": pull.author}}
    event |= {"createdAt": "2026-01-01T00:00:00.000Z", "data": {"status": pull.status}}
    return Answer(document={"newStatus": event})


def comment(call: Call, repo: str, number: str) -> Answer:
    user = call.writer()
    _pull(visible(call, repo), number)
    latest = {"raw": call.json["comment"], "html": "", "updatedAt": "2026-01-01T00:00:00.000Z"}
    event = {"id": "0", "type": "comment", "author": {"name": user}}
    event |= {"createdAt": "2026-01-01T00:00:00.000Z"}
    event["data"] = {
        "edited": False,
        "hidden": False,
        "latest": {**latest, "author": {"name": user}},
    }
    return Answer(document={"newMessage": event})
