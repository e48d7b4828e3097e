"""What is written to a Hub: the one module that meets huggingface_hub to write.

Large files are uploaded first, which publishes nothing; then one commit makes one pull request. Never
`upload_folder`, which becomes several commits, and never a card by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from parentage.attest.waiting import OverdueError, within
from parentage.manifest.errors import (
    FileSetError,
    HubAnswerError,
    HubError,
    HubMovedError,
    HubNotFoundError,
    HubTokenError,
    HubUnreachableError,
    MissingExtraError,
    UsageError,
)
from parentage.verify.sources.hub import check_online, endpoint
from parentage.verify.sources.place import HubPlace
from parentage.verify.sources.web import scrubbed

T = TypeVar("T")
#: The client's own limits (huggingface_hub 2.4, `create_commit`).
MAX_FILES: Final = 25_000
MAX_REGULAR: Final = 1_000_000_000
#: Seconds for a call that moves no large file, and bytes a second below which an upload is given up.
WRITING: Final = 600.0
_SLOWEST: Final = 50_000


class Proposed(msgspec.Struct, frozen=True):
    """A pull request.

    Attributes:
        number: as people see it.
        commit: its tip, 40 hex digits.
    """

    number: int
    commit: str

    @property
    def revision(self) -> str:
        """Where its files are read."""
        return f"refs/pr/{self.number}"


class Prepared(msgspec.Struct, frozen=True):
    """Files that were uploaded and are in no commit yet.

    Attributes:
        operations: the client's.
        parent: commit that they were compared with.
    """

    operations: Sequence[Any]
    parent: str


class Writer:
    """A repository of a Hub, to be written to; the token stays with the client."""

    def __init__(self, place: HubPlace, *, answer: float = WRITING) -> None:
        """Take the client.

        Raises:
            MissingExtraError: huggingface_hub is not installed.
            HubOfflineError: HF_HUB_OFFLINE is set.
        """
        check_online(str(place))
        try:
            from huggingface_hub import HfApi
        except ModuleNotFoundError as error:
            if error.name != "huggingface_hub":
                raise
            raise MissingExtraError(
                "writing to a Hub needs huggingface_hub, which is not installed",
                hint="pip install 'parentage[hub]'",
            ) from error
        self._place, self._repo, self._answer = place, place.repo, answer
        self._api = HfApi(endpoint=endpoint(), library_name="parentage")

    def create(self, *, private: bool) -> None:
        """Make the repository.

        Raises:
            HubError: a subclass names what is in the way.
        """
        self._call(
            "make the repository",
            lambda: self._api.create_repo(self._repo, private=private, exist_ok=True),
        )

    def proposals(self) -> list[Proposed]:
        """Return pull requests, the newest first, whatever became of them."""
        refs = self._call(
            "list pull requests",
            lambda: self._api.list_repo_refs(self._repo, include_pull_requests=True),
        )
        found = []
        for ref in refs.pull_requests or []:
            number = ref.ref.removeprefix("refs/pr/")
            if number.isdecimal() and len(number) < 10:
                found.append(Proposed(int(number), str(ref.target_commit)))
        return sorted(found, key=lambda one: -one.number)

    def is_open(self, proposed: Proposed) -> bool:
        """Say whether a pull request waits to be merged."""
        details = self._call(
            "read the pull request",
            lambda: self._api.get_discussion_details(self._repo, proposed.number),
        )
        return details.status in {"open", "draft"}

    def builds_on(self, proposed: Proposed, commit: str) -> bool:
        """Say whether a commit is among a pull request's own and those before them."""
        commits = self._call(
            "read the pull request's commits",
            lambda: self._api.list_repo_commits(self._repo, revision=proposed.revision),
        )
        return any(one.commit_id == commit for one in commits)

    def upload(self, files: Mapping[str, Path], signed: Mapping[str, str], parent: str) -> Prepared:
        """Upload what is large; nothing is published by this.

        Args:
            files: on disk, by the names that they get.
            signed: SHA-256 that each must have.
            parent: commit that the pull request will be made from.

        Raises:
            FileSetError: a file is not what was verified.
            UsageError: more than one commit takes.
            HubError: a subclass names what is in the way.
        """
        from huggingface_hub import CommitOperationAdd

        if len(files) > MAX_FILES:
            raise UsageError(
                "more files than one commit takes", expected=str(MAX_FILES), found=str(len(files))
            )
        before = {name: _state(path) for name, path in files.items()}
        operations = []
        for name, path in files.items():
            operation = CommitOperationAdd(name, str(path))
            found = operation.upload_info.sha256.hex()
            if found != signed[name]:
                raise FileSetError(
                    "file changed since it was verified; nothing was published",
                    where=name,
                    expected=f"sha256 {signed[name]}",
                    found=f"sha256 {found}",
                )
            operations.append(operation)
        size = sum(operation.upload_info.size for operation in operations)
        self._call(
            "upload",
            lambda: self._api.preupload_lfs_files(
                self._repo, operations, create_pr=True, free_memory=False
            ),
            seconds=self._answer + size / _SLOWEST,
        )
        self._check_modes(operations)
        for name, path in files.items():
            # What went over the wire was read after it was hashed.
            if _state(path) != before[name]:
                raise FileSetError(
                    "file changed while it was uploaded; nothing was published", where=name
                )
        return Prepared(operations, parent)

    def _check_modes(self, operations: Sequence[Any]) -> None:
        """Refuse what the Hub would not take whole, before it is asked to."""
        ignored = [one.path_in_repo for one in operations if one._should_ignore]  # noqa: SLF001
        if ignored:
            raise UsageError(
                "the repository's .gitignore leaves out a file of the release",
                where=ignored[0],
                hint="change .gitignore in the repository first; nothing was published",
            )
        regular = [one for one in operations if one._upload_mode == "regular"]  # noqa: SLF001
        size = sum(one.upload_info.size for one in regular)
        if size > MAX_REGULAR:
            raise UsageError(
                "more bytes of regular files than one commit takes; nothing was published",
                expected=f"at most {MAX_REGULAR:,} bytes outside of LFS",
                found=f"{size:,} bytes in {len(regular)} files",
                hint="let the Hub keep them in LFS: a .gitattributes in the repository",
            )

    def propose(
        self, prepared: Prepared, deleted: Sequence[str], title: str, description: str
    ) -> Proposed:
        """Make one commit, as a pull request against main.

        Raises:
            HubMovedError: main is not at the parent any more.
            HubError: a subclass names what is in the way; a pull request may have been made.
        """
        from huggingface_hub import CommitOperationDelete

        gone = [CommitOperationDelete(name, is_folder=False) for name in deleted]
        info = self._call(
            "commit",
            lambda: self._api.create_commit(
                self._repo,
                [*prepared.operations, *gone],
                commit_message=title,
                commit_description=description,
                create_pr=True,
                parent_commit=prepared.parent,
            ),
        )
        if info.pr_num is None:
            raise HubAnswerError("the Hub made no pull request", where=str(self._place))
        return Proposed(int(info.pr_num), str(info.oid))

    def merge(self, proposed: Proposed) -> None:
        """Merge a pull request.

        Raises:
            HubMovedError: it conflicts with what main has become.
            HubError: a subclass names what is in the way; it may have been merged.
        """
        self._call("merge", lambda: self._api.merge_pull_request(self._repo, proposed.number))

    def _call(self, what: str, call: Callable[[], T], *, seconds: float | None = None) -> T:
        with self._named(what):
            try:
                return within(seconds or self._answer, call, name=what)
            except OverdueError as error:
                raise HubUnreachableError(
                    f"the Hub did not {what} in time", where=str(self._place)
                ) from error

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """Give the client's errors names of ours, without the tokens that they may repeat."""
        from huggingface_hub.errors import HfHubHTTPError

        transport: type[BaseException] = next(
            base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"
        )
        try:
            yield
        except HfHubHTTPError as error:
            raise self._refused(what, error) from error
        except (transport, OSError) as error:
            raise HubUnreachableError(
                f"could not {what}", where=str(self._place), found=scrubbed(str(error))
            ) from error
        # hf-xet's, and what the client finds wrong before it asks.
        except (RuntimeError, ValueError) as error:
            raise HubError(
                f"could not {what}", where=str(self._place), found=scrubbed(str(error))
            ) from error

    def _refused(self, what: str, error: Any) -> HubError:  # noqa: ANN401  (huggingface_hub's)
        status = int(error.response.status_code)
        said = scrubbed(error.server_message or "")
        where, found = str(self._place), f"HTTP {status} {said}".strip()
        if status in {401, 403}:
            return HubTokenError(
                f"the Hub refuses to {what}: no token, or one that may not write here",
                where=where,
                found=found,
                hint="hf auth login, with a token that may write (hf auth whoami says whose it is)",
            )
        if status == 404:
            return HubNotFoundError(
                "no such repository, or a private one", where=where, found=found, hint="--create"
            )
        if status in {409, 412}:
            return HubMovedError(
                "somebody else changed the repository meanwhile",
                where=where,
                found=found,
                hint="look at what changed, then run the same command again",
            )
        if status == 429 or status >= 500:
            return HubUnreachableError("the Hub is busy or broken", where=where, found=found)
        return HubError(f"the Hub refuses to {what}", where=where, found=found)


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes with a file; its ctime can't be set back."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
