"""The routes of the Hub's HTTP API that its Python client calls (huggingface_hub 2.4.0), for models.

To add one: a function of the call and of what its pattern names, and a line in ROUTES.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import hub_access
import hub_read
import hub_write
from hub_calls import Answer, Call
from hub_repos import RefusalError

Handler = Callable[..., Answer]
_API: Final = r"/api/models/(?P<repo>[^/]+/[^/]+)"
_SHA: Final = r"(?P<sha256>[0-9a-f]{64})"

#: Method, name, pattern, function; the first that fits is taken.
ROUTES: Final[list[tuple[str, str, str, Handler]]] = [
    ("GET", "whoami", "/api/whoami-v2", hub_access.whoami),
    ("POST", "create", "/api/repos/create", hub_access.create),
    ("POST", "move", "/api/repos/move", hub_access.move),
    ("POST", "validate-yaml", "/api/validate-yaml", hub_access.validate_yaml),
    (
        "GET",
        "leaderboard",
        "/api/datasets/(?P<dataset>[^/]+/[^/]+)/leaderboard",
        hub_access.leaderboard,
    ),
    ("PUT", "settings", f"{_API}/settings", hub_access.settings),
    ("GET", "info", f"{_API}(?:/revision/(?P<rev>[^/]+))?", hub_read.info),
    ("GET", "tree", f"{_API}/tree/(?P<rev>[^/]+)(?:/(?P<rest>.*))?", hub_read.tree),
    ("POST", "paths-info", f"{_API}/paths-info/(?P<rev>[^/]+)", hub_read.paths_info),
    ("GET", "refs", f"{_API}/refs", hub_read.refs),
    ("GET", "commits", f"{_API}/commits/(?P<rev>[^/]+)", hub_read.commits),
    (
        "GET HEAD",
        "resolve",
        "/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)",
        hub_read.resolve,
    ),
    ("GET HEAD", "lfs-get", f"/_lfs/{_SHA}", hub_read.lfs_get),
    ("GET HEAD", "elsewhere", "/_elsewhere/.*", hub_read.elsewhere),
    ("POST", "preupload", f"{_API}/preupload/(?P<rev>[^/]+)", hub_write.preupload),
    (
        "POST",
        "lfs-batch",
        r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch",
        hub_write.lfs_batch,
    ),
    ("PUT", "lfs-put", f"/_lfs/{_SHA}", hub_write.lfs_put),
    ("POST", "lfs-verify", f"/_lfs/{_SHA}/verify", hub_write.lfs_verify),
    (
        "GET",
        "xet-token",
        f"{_API}/xet-(?P<kind>read|write)-token(?:/(?P<rev>[^/]+))?",
        hub_write.xet_token,
    ),
    ("POST", "commit", f"{_API}/commit/(?P<rev>[^/]+)", hub_write.commit),
    ("POST DELETE", "branch", f"{_API}/branch/(?P<name>[^/]+)", hub_write.branch),
    ("POST DELETE", "tag", f"{_API}/tag/(?P<rev>[^/]+)", hub_write.tag),
    ("POST", "squash", f"{_API}/super-squash/(?P<name>[^/]+)", hub_write.squash),
    ("POST", "propose", f"{_API}/discussions", hub_write.propose),
    ("GET", "discussion", rf"{_API}/discussions/(?P<number>\d+)", hub_write.discussion),
    ("POST", "merge", rf"{_API}/discussions/(?P<number>\d+)/merge", hub_write.merge),
    ("POST", "status", rf"{_API}/discussions/(?P<number>\d+)/status", hub_write.status),
    ("POST", "comment", rf"{_API}/discussions/(?P<number>\d+)/comment", hub_write.comment),
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
