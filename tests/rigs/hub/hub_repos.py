"""What the local Hub holds: repositories with commits, refs and pull requests, and who may see them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hub_objects import Objects

#: What the Hub's .gitattributes sends to large-file storage; the client is told per file.
_LARGE = (".safetensors", ".bin", ".gguf", ".pt", ".onnx", ".npz")
_LARGE_FROM = 10_000_000
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

Change = bytes | Path | None


class RefusalError(Exception):
    """An answer other than success.

    Attributes:
        status: of HTTP.
        code: the client picks its exception by this (X-Error-Code).
    """

    def __init__(self, status: int, code: str, message: str = "", **headers: str) -> None:
        super().__init__(message or code)
        self.status = status
        self.code = code
        self.message = message or code
        self.headers = headers


@dataclass(frozen=True)
class Stored:
    """A file of a commit.

    Attributes:
        oid: git's blob SHA-1: of the content, or of the pointer where the content is large.
        size: bytes of the content.
        data: the content of a regular file.
        sha256: names the object of a large file.
    """

    oid: str
    size: int
    data: bytes | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    oid: str
    number: int
    parents: tuple[str, ...]
    files: Mapping[str, Stored]
    title: str
    message: str
    author: str

    @property
    def date(self) -> str:
        """When, in the Hub's writing; a second apart, so that order can be read from it."""
        when = _EPOCH + timedelta(seconds=self.number)
        return when.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass
class PullRequest:
    """A proposed change, whose commits are at refs/pr/<number>."""

    number: int
    title: str
    author: str
    base: str
    status: str = "open"
    merged: str | None = None

    @property
    def ref(self) -> str:
        """Return the name under which its commits are found."""
        return f"refs/pr/{self.number}"


@dataclass
class Repo:
    """A repository of a model.

    Attributes:
        owner: who may write; anybody may propose.
        gated: whether its files are for readers only.
        readers: to whom it was opened.
        refs: full name -> commit.
    """

    id: str
    owner: str = "acme"
    private: bool = False
    gated: str | bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, PullRequest] = field(default_factory=dict)

    def find(self, revision: str) -> Commit:
        """Resolve a branch, tag, ref or commit, abbreviated down to seven digits."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.commits[self.refs[name]]
        if len(revision) >= 7:
            found = [oid for oid in self.commits if oid.startswith(revision)]
            if len(found) == 1:
                return self.commits[found[0]]
        raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def ref_name(self, revision: str) -> str:
        """Return the ref that a commit to this revision would move."""
        return revision if revision.startswith("refs/") else f"refs/heads/{revision}"

    def ancestors(self, oid: str) -> list[Commit]:
        """Return a commit and all before it, newest first."""
        seen: dict[str, Commit] = {}
        waiting = [oid]
        while waiting:
            commit = self.commits[waiting.pop()]
            if commit.oid not in seen:
                seen[commit.oid] = commit
                waiting.extend(commit.parents)
        return sorted(seen.values(), key=lambda commit: -commit.number)

    def base_of(self, ours: str, theirs: str) -> Commit:
        """Return the newest commit that both come from."""
        known = {commit.oid for commit in self.ancestors(ours)}
        return next(commit for commit in self.ancestors(theirs) if commit.oid in known)


class Hub:
    """All repositories, behind one lock.

    Attributes:
        tokens: token -> (user, "read" or "write").
        moved: old name -> new name of renamed repositories.
        leaderboards: dataset -> its rows, as `/api/datasets/<id>/leaderboard` gives them.
        listeners: told of every moved ref: (repo, ref, old commit or None, new commit).
    """

    def __init__(self, folder: Path) -> None:
        self.objects = Objects(folder)
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, tuple[str, str]] = {}
        self.moved: dict[str, str] = {}
        self.leaderboards: dict[str, list[dict[str, Any]]] = {}
        self.listeners: list[Callable[[Repo, str, str | None, str], None]] = []
        self.lock = threading.RLock()
        self._commits = 0

    def create(self, repo_id: str, *, owner: str = "acme", private: bool = False) -> Repo:
        """Make an empty repository."""
        with self.lock:
            if repo_id in self.repos:
                raise RefusalError(409, "Conflict", "You already created this model repo")
            repo = self.repos[repo_id] = Repo(repo_id, owner, private=private)
            self.moved.pop(repo_id, None)
            self.record(repo, {}, (), "refs/heads/main", "initial commit")
            return repo

    def rename(self, old: str, new: str) -> None:
        """Rename a repository; its old name leads to the new one until someone takes it."""
        with self.lock:
            repo = self.repos[new] = self.repos.pop(old)
            repo.id = new
            self.moved[old] = new

    def repo(self, repo_id: str) -> Repo:
        """Find a repository."""
        if repo_id not in self.repos:
            raise RefusalError(404, "RepoNotFound", "Repository not found")
        return self.repos[repo_id]

    def record(
        self,
        repo: Repo,
        files: Mapping[str, Stored],
        parents: tuple[str, ...],
        ref: str,
        title: str,
        *,
        message: str = "",
        author: str = "acme",
    ) -> Commit:
        """Make a commit and move a ref to it."""
        with self.lock:
            self._commits += 1
            named = sorted((path, file.oid) for path, file in files.items())
            told = json.dumps([repo.id, named, parents, title, message, self._commits])
            oid = hashlib.sha1(told.encode()).hexdigest()  # noqa: S324
            commit = Commit(oid, self._commits, parents, dict(files), title, message, author)
            repo.commits[oid] = commit
            old = repo.refs.get(ref)
            repo.refs[ref] = oid
        for listener in self.listeners:
            listener(repo, ref, old, oid)
        return commit

    def put(
        self,
        repo_id: str,
        changes: Mapping[str, Change],
        *,
        revision: str = "main",
        title: str = "put",
    ) -> str:
        """Commit contents (bytes, a file on disk, or None to delete) without HTTP; return the commit.

        Makes the repository or the branch where it isn't there.
        """
        with self.lock:
            repo = self.repos.get(repo_id) or self.create(repo_id)
            ref = repo.ref_name(revision)
            tip = repo.refs.get(ref) or repo.refs["refs/heads/main"]
            files = dict(repo.commits[tip].files)
            for path, content in changes.items():
                if content is None:
                    files.pop(path, None)
                else:
                    files[path] = self.store(path, content)
            return self.record(repo, files, (tip,), ref, title).oid

    def force_push(
        self, repo_id: str, contents: Mapping[str, Change], *, revision: str = "main"
    ) -> str:
        """Put a branch on a new commit without a past; the old commits are gone, as after a collection."""
        with self.lock:
            repo = self.repo(repo_id)
            files = {path: self.store(path, c) for path, c in contents.items() if c is not None}
            commit = self.record(repo, files, (), repo.ref_name(revision), "force-pushed")
            kept = {c.oid for tip in repo.refs.values() for c in repo.ancestors(tip)}
            repo.commits = {oid: c for oid, c in repo.commits.items() if oid in kept}
            return commit.oid

    def merge(self, repo: Repo, pull: PullRequest, author: str) -> Commit:
        """Merge a pull request as git would: from the common ancestor, file by file."""
        with self.lock:
            if pull.status not in ("open", "draft"):
                raise RefusalError(409, "Conflict", f"Pull request is {pull.status}")
            ours, theirs = repo.find(pull.base), repo.find(pull.ref)
            base = repo.base_of(ours.oid, theirs.oid)
            files, conflicts = three_way(base.files, ours.files, theirs.files)
            if conflicts:
                raise RefusalError(409, "Conflict", f"Conflicts in {', '.join(conflicts)}")
            ref, title = repo.ref_name(pull.base), f"{pull.title} (#{pull.number})"
            commit = self.record(repo, files, (ours.oid, theirs.oid), ref, title, author=author)
            pull.status, pull.merged = "merged", commit.oid
            return commit

    def store(self, path: str, content: bytes | Path) -> Stored:
        """Store a content as the Hub would: large files as objects, others in git."""
        if isinstance(content, Path):
            if is_large(path, content.stat().st_size):
                return large_file(self.objects.adopt(content), content.stat().st_size)
            content = content.read_bytes()
        if not is_large(path, len(content)):
            return regular_file(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects.take([content], sha256)
        return large_file(sha256, len(content))

    def content(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        """Return what a file holds, for tests to look at."""
        file = self.repo(repo_id).find(revision).files[path]
        if file.sha256 is None:
            return file.data or b""
        assert self.objects.has(file.sha256)
        return self.objects.path(file.sha256).read_bytes()


def is_large(path: str, size: int) -> bool:
    """Say whether a file goes to large-file storage."""
    return size > 0 and (size > _LARGE_FROM or path.endswith(_LARGE))


def regular_file(data: bytes) -> Stored:
    """Return a file that git keeps itself."""
    return Stored(blob_oid(data), len(data), data=data)


def large_file(sha256: str, size: int) -> Stored:
    """Return a file of which git keeps a pointer."""
    return Stored(blob_oid(pointer(sha256, size)), size, sha256=sha256)


def blob_oid(data: bytes) -> str:
    """Return git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


def pointer(sha256: str, size: int) -> bytes:
    """Return what git keeps of a large file (git-lfs, docs/spec.md)."""
    head = "version https://git-lfs.github.com/spec/v1"
    return f"{head}\noid sha256:{sha256}\nsize {size}\n".encode()


def three_way(
    base: Mapping[str, Stored], ours: Mapping[str, Stored], theirs: Mapping[str, Stored]
) -> tuple[dict[str, Stored], list[str]]:
    """Merge two states that come from one; return files and paths that both changed differently."""
    files, conflicts = {}, []
    for path in _all(base, ours, theirs):
        was, mine, other = base.get(path), ours.get(path), theirs.get(path)
        if mine not in (was, other) and other != was:
            conflicts.append(path)
        kept = mine if other == was else other
        if kept is not None:
            files[path] = kept
    return files, conflicts


def _all(*states: Iterable[str]) -> list[str]:
    return sorted({path for state in states for path in state})
