"""What a Hub's refusal means, and what helps."""

from __future__ import annotations

from parentage.manifest.errors import HubError, HubGatedError, HubNotFoundError, HubTokenError
from parentage.verify.sources.place import HubPlace
from parentage.verify.sources.web import Answer, Web


def refused(web: Web, answer: Answer, place: HubPlace, name: str = "") -> HubError:
    """Return the error that a refusal is, by its status and the code that the Hub gives it."""
    code = answer.headers.get("x-error-code", "")
    said = web.scrubbed(answer.headers.get("x-error-message", ""))
    where, found = (
        f"{place}: {name}" if name else str(place),
        f"HTTP {answer.status} {said}".strip(),
    )
    if code == "GatedRepo":
        return HubGatedError(
            "the owner of this repository must let you in first",
            where=where,
            found=found,
            hint=f"ask for access on the page of {place.repo}, then: hf auth login",
        )
    if code == "RevisionNotFound":
        return HubNotFoundError(
            "no such revision",
            where=where,
            found=found,
            hint=f"hf repos branch --help; hf repos tag list {place.repo}",
        )
    if code == "EntryNotFound":
        return HubNotFoundError("no such file at this commit", where=where, found=found)
    if answer.status in {401, 403} and web.has_token:
        return HubTokenError(
            "the Hub refuses your token: expired, revoked, or not allowed to read this",
            where=where,
            found=found,
            hint="hf auth login, with a token that may read it (hf auth whoami says whose it is)",
        )
    if code == "RepoNotFound" or answer.status in {401, 403, 404}:
        hint = (
            "check the name" if web.has_token else "check the name; if it is private: hf auth login"
        )
        return HubNotFoundError(
            "no such repository, or a private one", where=where, found=found, hint=hint
        )
    return HubError("the Hub refuses", where=where, found=found)
