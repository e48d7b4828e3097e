"""Who asks the local Hub, who may see what, and repositories as a whole."""

from __future__ import annotations

from hub_calls import Answer, Call
from hub_repos import RefusalError, Repo


def visible(call: Call, name: str) -> Repo:
    """Find a repository that the caller may know of."""
    if name not in call.hub.repos and name in call.hub.moved:
        there = call.log.path.replace(name, call.hub.moved[name], 1)
        raise RefusalError(307, "Moved", "", Location=there)
    repo = call.hub.repo(name)
    user = call.user
    if repo.private and user is None:
        raise RefusalError(401, "RepoNotFound", "Invalid username or password.")
    if repo.private and user != repo.owner and user not in repo.readers:
        raise RefusalError(404, "RepoNotFound", "Repository not found")
    return repo


def readable(call: Call, name: str) -> Repo:
    """Find a repository whose files the caller may have."""
    repo = visible(call, name)
    user = call.user
    if repo.gated and user not in repo.readers:
        said = f"Access to model {repo.id} is restricted."
        raise RefusalError(401 if user is None else 403, "GatedRepo", said)
    return repo


def owned(call: Call, name: str) -> tuple[str, Repo]:
    """Find a repository that the caller may change; return who that is, too."""
    user, repo = call.writer(), visible(call, name)
    if user != repo.owner:
        raise RefusalError(403, "Forbidden", f"You don't have the rights to change {repo.id}")
    return user, repo


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
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    call.hub.create(name, owner=user, private=private)
    return Answer(document=document)


def move(call: Call) -> Answer:
    owned(call, call.json["fromRepo"])
    call.hub.rename(call.json["fromRepo"], call.json["toRepo"])
    return Answer()


def settings(call: Call, repo: str) -> Answer:
    (_, found), asked = owned(call, repo), call.json
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
