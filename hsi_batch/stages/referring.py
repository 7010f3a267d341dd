"""What refers to sessions that are about to be converted again: scores, added labels, masks."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.labels import label_versions
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, groups_of, holds_scores, open_root, state_folder
from hsi_batch.errors import ConfigError, HsiBatchError
from hsi_batch.files import digest_of, remove_unfinished, write_atomically
from hsi_batch.places import is_url
from hsi_batch.stages.convert_plan import ConvertPlan
from hsi_batch.wording import some

__all__ = ["added_to", "confirm_replacing", "damaged_notes", "remember_scores", "scores_of"]

#: Folder of the run state of an archive, with a file per store of scores.
_FOLDER = "scores"


def remember_scores(archive: Archive, store: str) -> None:
    """Note beside an archive where scores of it are; not where nothing can be written."""
    state = archive.state
    if not isinstance(state, Path) or is_url(store):
        return
    file = state / _FOLDER / _name(store)
    with contextlib.suppress(OSError, HsiBatchError):
        # Whoever writes this note holds the lock of these scores.
        remove_unfinished(file.parent, file.name)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, _content(store))


def damaged_notes(archive: str | os.PathLike[str]) -> list[Path]:
    """Notes of scores that are not as they were written; their names are digests of what they say.

    Examples
    --------
    >>> damaged_notes("archive.zarr")
    []
    """
    return [] if is_url(archive) else [file for file, store in _notes(archive) if store is None]


def _name(store: str) -> str:
    return f"{digest_of(store.encode())[:16]}.json"


def _content(store: str) -> str:
    return json.dumps({"scores": store})


def _notes(archive: str | os.PathLike[str]) -> Iterator[tuple[Path, str | None]]:
    """Files of the notes, and the store that each names; None if it is damaged."""
    state = state_folder(os.fspath(archive))
    assert isinstance(state, Path)
    for file in sorted((state / _FOLDER).glob("*.json")):
        store = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            raw = file.read_text(encoding="utf-8")
            said = str(json.loads(raw)["scores"])
            store = said if (file.name, raw) == (_name(said), _content(said)) else None
        yield file, store


def scores_of(archive: str | os.PathLike[str]) -> list[str]:
    """Stores of scores of an archive: those noted beside it, and those that lie beside it.

    Stores that were moved or removed since are left out.
    """
    if is_url(archive):
        return []
    path = Path(archive).absolute()
    found = dict.fromkeys(store for _, store in _notes(path) if store is not None)
    if path.parent.is_dir():
        found |= dict.fromkeys(str(p) for p in sorted(path.parent.glob("*.zarr")) if p != path)
    return [store for store in found if holds_scores(store) and _made_of(store, path)]


def _made_of(store: str, archive: Path) -> bool:
    with contextlib.suppress(OSError, HsiBatchError):
        return Path(str(open_root(store, SCORES).attrs.get("archive"))) == archive
    return False


def added_to(session: Session) -> list[str]:
    """What was added to a session after its conversion, and is lost if that is done again."""
    versions = [n for n, e in label_versions(session).items() if e.get("by") != "convert"]
    added = [f"labels of version {', '.join(map(str, versions))}"] if versions else []
    return added + [f"mask {mask}" for mask in session.masks]


def confirm_replacing(
    plan: ConvertPlan,
    confirm: Callable[[str], bool],
    rescored: str | os.PathLike[str] | None = None,
) -> None:
    """Ask before sessions are converted again that something refers to.

    Scores in ``rescored`` are not asked about.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The answer was no; nothing was changed.
    """
    question = _question(plan, rescored)
    if question is not None and not confirm(question):
        raise ConfigError(
            "nothing was converted, for the question was not answered with yes.",
            hint="Answer with y, or give --yes.",
        )


def _question(plan: ConvertPlan, rescored: str | os.PathLike[str] | None) -> str | None:
    replaced: dict[str, Session] = {}
    for planned in plan.todo:
        if planned.status == "replace":
            with contextlib.suppress(HsiBatchError):
                session = Session.open(plan.archive, planned.name)
                if session.complete:
                    replaced[planned.name] = session
    if not replaced:
        return None
    told = []
    own = None if rescored is None or is_url(rescored) else str(Path(rescored).absolute())
    for store in scores_of(plan.archive):
        if store == own:
            continue
        groups = groups_of(open_root(store, SCORES))
        names = [name for name in replaced if name in groups and _differs(plan, name, groups[name])]
        if names:
            told.append(f"{some(names)} {'is' if len(names) == 1 else 'are'} scored in {store}")
    for name, session in replaced.items():
        added = added_to(session)
        if added:
            told.append(f"{name} loses what was added to it ({', '.join(added)})")
    return f"these sessions will be converted again: {'; '.join(told)}." if told else None


def _differs(plan: ConvertPlan, name: str, group: Any) -> bool:
    """Whether the scores of a session will not be those of what it becomes."""
    planned = next(p for p in plan.todo if p.name == name)
    return bool(group.attrs.get("session_digest") != planned.digest)
