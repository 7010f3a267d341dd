"""Stores in Icechunk repositories: what a run writes becomes a version at its end, or not at all.

A run writes on a branch of its own. Workers write on forks of its last commit, and give back what
they changed (names of chunks, not their bytes) with the report of each task; the coordinator merges
that, and commits from time to time. At the end the main branch is moved to the last commit, and a
tag ``v1``, ``v2``, ... is set. A run that is killed leaves the branch; the next one goes on there.
"""

from __future__ import annotations

import pickle
import time
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import icechunk
import zarr
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from hsi_batch.errors import ConfigError, StoreError, did_you_mean
from hsi_batch.places.credentials import aws_settings
from hsi_batch.places.place import Place, place
from hsi_batch.places.repository_store import RepositoryStore, errors_of
from hsi_batch.places.url import VERSIONED, WORKING, split_version

__all__ = ["Transaction", "changes_at", "reopened", "versioned_store", "versions_of"]

_MAIN, _RUN = "main", "hsi-batch-run"
#: What is written first as a repository is made: the empty snapshot, whose name is always this.
_FIRST = "snapshots/1CECHNKREP0F1RSTCMT0"
#: Seconds between commits of a run.
_COMMIT = 30.0


#: Sessions of runs in this process, and forks of this worker, by the URL of the run.
_sessions: dict[str, icechunk.Session] = {}
_forks: dict[str, icechunk.ForkSession] = {}


def versioned_store(url: str) -> Store:
    """The store of a version: of the newest one, of one that is named, or of what a run writes.

    A repository that is not there is an empty store that cannot be written to.
    """
    body, version = split_version(url)
    if version.startswith(WORKING):
        if url in _sessions:
            return RepositoryStore(_sessions[url].store, body)
        if url not in _forks:
            _one_thread(body)
            # Those of runs that are over serve nobody.
            _forks.clear()
            with errors_of(body):
                _forks[url] = repository(body).writable_session(_RUN).fork()
        return RepositoryStore(_forks[url].store, body)
    if not exists(body):
        return MemoryStore(read_only=True)
    found = repository(body)
    if not version:
        with errors_of(body):
            return RepositoryStore(found.readonly_session(_MAIN).store, body)
    try:
        if version in found.list_tags():
            return RepositoryStore(found.readonly_session(tag=version).store, body)
        return RepositoryStore(found.readonly_session(snapshot_id=version).store, body)
    except (icechunk.IcechunkError, ValueError):
        with errors_of(body):
            names = sorted(found.list_tags())
        raise StoreError(
            f"there is no version {version!r}.{did_you_mean(version, names)}",
            path=body,
            hint=f"There are {', '.join(names) or 'none'}; identifiers of snapshots do as well.",
        ) from None


def _one_thread(body: str) -> None:
    """Refuse workers with several threads: what two tasks change could not be told apart."""
    from distributed import get_worker

    try:
        threads = get_worker().state.nthreads
    except ValueError:
        return
    if threads > 1:
        raise ConfigError(
            f"this worker has {threads} threads; one is needed to write to a transactional store.",
            path=body,
            hint="Start workers with one thread each.",
        )


def _storage(body: str) -> icechunk.Storage:
    parts = urlsplit(body.removeprefix(VERSIONED))
    if parts.scheme in ("file", "local"):
        return icechunk.local_filesystem_storage(parts.path)
    if parts.scheme == "s3":
        settings = aws_settings()
        endpoint = settings.get("endpoint")
        return icechunk.s3_storage(
            bucket=parts.netloc,
            prefix=parts.path.strip("/"),
            region=settings["region"],
            endpoint_url=endpoint,
            allow_http=str(endpoint).startswith("http://"),
            force_path_style=endpoint is not None,
            from_env=True,
        )
    raise ConfigError(
        f"transactional stores cannot lie on {parts.scheme}://.",
        path=body,
        hint="Write icechunk+file:///path or icechunk+s3://bucket/prefix.",
    )


def exists(body: str) -> bool:
    """Whether there is a repository."""
    if body.startswith(f"{VERSIONED}file:") and not _folder(body).is_dir():
        return False
    with errors_of(body):
        return bool(icechunk.Repository.exists(_storage(body)))


def _folder(body: str) -> Path:
    return Path(urlsplit(body.removeprefix(VERSIONED)).path)


def _clear(body: str) -> None:
    """Remove what a run left that was killed while it made the repository.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Something else is in this place.
    """
    below = place(body.removeprefix(VERSIONED))
    if isinstance(below, Path):
        held = {file.relative_to(below).as_posix(): file for file in below.rglob("*")}
        found: dict[str, Place] = {name: file for name, file in held.items() if file.is_file()}
    else:
        found = {str(file.relative_to(below)): file for file in below.files()}
    if not all(name.startswith(_FIRST) for name in found):
        raise ConfigError(
            "there is something here that is no repository; a new one needs an empty place.",
            path=body,
            hint="Check the URL, or choose another place.",
        )
    for file in found.values():
        file.unlink(missing_ok=True)


@lru_cache(maxsize=64)
def repository(body: str) -> icechunk.Repository:
    """The repository of a URL."""
    # Its warning about files on disk: one process commits at a time, under our lock.
    icechunk.set_logs_filter("error")
    with errors_of(body):
        return icechunk.Repository.open(_storage(body))


def versions_of(url: str) -> dict[str, tuple[str, str]]:
    """Published versions, oldest first: tag, and identifier and message of its snapshot."""
    body, _ = split_version(url)
    if not exists(body):
        return {}
    found = repository(body)
    with errors_of(body):
        tags = {tag: found.lookup_tag(tag) for tag in found.list_tags() if _number(tag)}
        return {
            tag: (tags[tag], found.lookup_snapshot(tags[tag]).message)
            for tag in sorted(tags, key=_number)
        }


def _number(tag: str) -> int:
    return int(tag[1:]) if tag[:1] == "v" and tag[1:].isdecimal() else 0


def changes_at(url: str) -> bytes | None:
    """On a worker: what it changed since the last call, to be sent to the coordinator."""
    fork = _forks.get(url)
    if fork is None or not fork.has_uncommitted_changes:
        return None
    raw = pickle.dumps(fork)
    fork.discard_changes()
    return raw


class Transaction:
    """A run on a repository, in the process of the coordinator.

    Parameters
    ----------
    url : str
        Of the repository; made if it is not there.
    purpose : str
        The message of the version.
    """

    def __init__(self, url: str, purpose: str) -> None:
        self.body, version = split_version(url)
        if version:
            raise ConfigError(
                "a version cannot be written to; it stays as it is.",
                path=url,
                hint=f"Write to {self.body}.",
            )
        self.purpose = purpose
        #: Of what this run writes.
        self.url = f"{self.body}@{WORKING}{uuid.uuid4().hex[:8]}"
        self._changed = time.monotonic()

    def __enter__(self) -> Self:
        icechunk.set_logs_filter("error")
        with errors_of(self.body):
            self._prepare()
            self._begin()
        return self

    def _prepare(self) -> None:
        if not exists(self.body):
            if self.body.startswith(f"{VERSIONED}file:"):
                _folder(self.body).mkdir(parents=True, exist_ok=True)
            _clear(self.body)
            icechunk.Repository.create(_storage(self.body))
        self._repository = repository(self.body)
        tip = self._repository.lookup_branch(_MAIN)
        if _RUN in self._repository.list_branches():
            held = {snapshot.id for snapshot in self._repository.ancestry(branch=_RUN)}
            if tip not in held:
                # Somebody else published since; that wins.
                self._repository.reset_branch(_RUN, tip)
        else:
            self._repository.create_branch(_RUN, tip)

    def _begin(self) -> None:
        self._session = _sessions[self.url] = self._repository.writable_session(_RUN)
        self._changed = time.monotonic()

    def commit(self) -> str:
        """Keep what was done so far, for workers and for a run that follows a killed one.

        Groups that were opened before cannot be written to any more.

        Returns
        -------
        str
            URL of that state.
        """
        if self._session.has_uncommitted_changes:
            with errors_of(self.body):
                self._session.commit(self.purpose)
                self._begin()
        return f"{self.body}@{self._session.snapshot_id}"

    def merge(self, changes: bytes | None) -> None:
        """Take what a worker changed."""
        if changes is not None:
            # Of our own worker, over the connection that tasks and their results travel on.
            with errors_of(self.body):
                self._session.merge(pickle.loads(changes))  # noqa: S301
        if time.monotonic() - self._changed > _COMMIT:
            self.commit()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.commit()
            if kind is None:
                with errors_of(self.body):
                    self._publish()
        finally:
            _sessions.pop(self.url, None)

    def _publish(self) -> None:
        before = self._repository.lookup_branch(_MAIN)
        after = self._repository.lookup_branch(_RUN)
        if after != before:
            self._repository.reset_branch(_MAIN, after, from_snapshot_id=before)
            self._repository.delete_branch(_RUN)
            number = 1 + max(map(_number, self._repository.list_tags()), default=0)
            self._repository.create_tag(f"v{number}", after)
        else:
            self._repository.delete_branch(_RUN)


def reopened(url: str) -> zarr.Group:
    """The root as the run goes on after a commit."""
    return zarr.open_group(versioned_store(url), mode="r+", zarr_format=3, use_consolidated=False)
