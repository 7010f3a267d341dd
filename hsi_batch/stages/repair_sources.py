"""Converting or scoring parts of a store again, from what they were made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import zarr
from distributed import Client

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.chunk_layout import chunk_tail
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.records import Records
from hsi_batch.archive.seals import chunk_files
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, open_root, state_folder
from hsi_batch.engine.events import Observer
from hsi_batch.errors import HsiBatchError, StorageError
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.places import place
from hsi_batch.stages.convert import convert
from hsi_batch.stages.convert_plan import ConvertOptions
from hsi_batch.stages.convert_scan import unchanged
from hsi_batch.stages.convert_sources import present_files, recorded
from hsi_batch.stages.evaluation import forget_evaluation
from hsi_batch.stages.referring import added_to
from hsi_batch.stages.score import score
from hsi_batch.stages.score_plan import DEFAULT_OUTPUTS, plan_score
from hsi_batch.stages.verify import geometry_of, maps_of

__all__ = ["Redone", "redo_scores", "redo_sessions"]

TakeOut = Callable[[Iterable[str]], None]
Parts = Mapping[str, Sequence[BlockKey]]


@dataclass
class Redone:
    """What was done again, and what cannot be."""

    actions: list[str] = field(default_factory=list)
    hopeless: list[str] = field(default_factory=list)
    blocks: int = 0


def redo_sessions(
    path: str,
    parts: Parts,
    whole: Sequence[str],
    take_out: TakeOut,
    *,
    dry_run: bool,
    client: Client | None,
    observer: Observer | None,
) -> Redone:
    """Convert blocks, or all, of sessions of an archive again from their sources.

    Parameters
    ----------
    path : str
    parts : mapping
        Damaged blocks by session.
    whole : sequence of str
        Sessions of which all is redone.
    take_out : callable
        Removes the damaged blocks of sessions.
    dry_run, client, observer
        As for :func:`.repair`.
    """
    done = Redone()
    groups: dict[tuple[ConvertOptions, bool], list[tuple[str, str]]] = {}
    for name in sorted({*parts, *whole}):
        try:
            session = Session.open(path, name)
            source = str(session.attrs["source"]["path"])
            options = ConvertOptions(**session.attrs["settings"])
        except StorageError:
            raise
        except (HsiBatchError, KeyError, TypeError):
            done.hopeless.append(f"{name}: it does not say what it was converted from")
            continue
        problem = _changed(session, source, options)
        if problem is not None:
            done.hopeless.append(f"{name}: {problem}")
            continue
        # One that was not finished goes on, unless nothing is left of it.
        again = name in whole and (session.complete or not _begun(path, name))
        blocks = f"{len(parts.get(name, ()))} blocks" if name in parts else "what is missing"
        what = "all" if again else blocks
        lost = added_to(session) if again else []
        told = f"; lost is what was added to it ({', '.join(lost)}): add it again" if lost else ""
        done.actions.append(f"convert {what} of {name} again from {source}{told}")
        groups.setdefault((options, again), []).append((name, source))
    if dry_run:
        return done
    for (options, again), found in groups.items():
        if not again:
            take_out([name for name, _ in found])
        result = convert(
            [source for _, source in found],
            path,
            force=again,
            client=client,
            observer=observer,
            **asdict(options),
        )
        done.blocks += result.blocks
        done.hopeless += [f"{source}: {why}" for source, why in result.broken]
        done.hopeless += [f"{failure.key}: {failure.reason}" for failure in result.failures]
    return done


def _begun(path: str, name: str) -> bool:
    return any(True for _ in chunk_files(place(path) / name / "cube"))


def _changed(session: Session, source: str, options: ConvertOptions) -> str | None:
    """Why a session cannot be converted again as it was."""
    gone = [file for file in recorded(session) if not Path(file).exists()]
    if gone:
        return f"its source {gone[0]} is gone; put it back, or remove the session"
    if not present_files([session]):
        return f"its source {source} changed since; convert it with --replace"
    if not unchanged(session, source, options):
        return f"labels were added beside {source} since; convert it with --replace"
    return None


def redo_scores(
    path: str,
    parts: Parts,
    whole: Sequence[str],
    take_out: TakeOut,
    *,
    archive: str | None,
    pipeline: str | None,
    measure: bool,
    dry_run: bool,
    client: Client | None,
    observer: Observer | None,
) -> Redone:
    """Score blocks, or all, of sessions again.

    Parameters
    ----------
    path, parts, whole, take_out
        As for :func:`redo_sessions`.
    archive, pipeline : str, optional
        Where the store says nothing, or says what is not there any more.
    measure : bool
        Summaries and metrics are made again, too.
    dry_run, client, observer
        As for :func:`.repair`.
    """
    done = Redone()
    root = open_root(path, SCORES)
    attrs = dict(root.attrs)
    measure = measure or "pipeline" not in attrs
    if not (parts or whole or measure):
        return done
    held: Any = archive or attrs.get("archive")
    fitted: Any = pipeline or attrs.get("pipeline_file")
    for given, option in ((held, "--archive"), (fitted, "--pipeline")):
        if given is None or not place(given).exists():
            what = f"{given} is gone" if given else "the store does not say what it was made of"
            done.hopeless.append(f"{what}: name it with {option}")
    if done.hopeless:
        return done
    names = [*parts, *whole] or list(_sessions(root))
    selections = {name: _frames(path, root, name) for name in names}
    selected = [term for terms in selections.values() for term in terms]
    outputs: Any = attrs.get("outputs") or _outputs(root)
    model, source = Pipeline.from_yaml(fitted), Archive(held)
    plan = plan_score(model, source, path, frames=selected or None, outputs=outputs)
    done.hopeless += [
        f"{planned.name}: it was scored with another pipeline, or of other data, than {fitted} and"
        f" {held}"
        for planned in plan.sessions
        if planned.status in ("redo", "new") and planned.name in _sessions(root)
    ]
    if done.hopeless:
        return done
    amount = {**dict.fromkeys(whole, "all"), **{n: f"{len(k)} blocks" for n, k in parts.items()}}
    done.actions += [f"score {how} of {name} again with {fitted}" for name, how in amount.items()]
    if dry_run:
        return done
    take_out(parts)
    forget_evaluation(path)
    arguments: dict[str, Any] = {"outputs": outputs, "client": client, "observer": observer}
    again = [term for name in whole for term in selections[name]]
    rest = [term for name in names if name not in whole for term in selections[name]]
    for frames, force in ((again, True), (rest, False)):
        if frames:
            result = score(model, source, path, frames=frames, force=force, **arguments)
            done.blocks += result.blocks
            done.hopeless += [f"{f.key}: {f.reason}" for f in result.failures]
    return done


def _sessions(root: zarr.Group) -> dict[str, zarr.Group]:
    return {name: group for name, group in root.groups() if group.attrs.get("digest")}


def _outputs(root: zarr.Group) -> list[str] | None:
    """Names of the stored maps."""
    first = next(iter(_sessions(root).values()), None)
    # In the order in which a run asks for them by default.
    rank = {name: i for i, name in enumerate(DEFAULT_OUTPUTS)}
    return None if first is None else sorted(maps_of(first), key=lambda n: (rank.get(n, 9), n))


def _frames(path: str, root: zarr.Group, name: str) -> list[str]:
    """What was scored of a session, as selectors: from the records, or from what is stored."""
    group = _sessions(root).get(name)
    maps = {} if group is None else maps_of(group)
    if group is None or not maps:
        return [name]
    geometry = geometry_of(maps)
    lines: dict[int, tuple[int, int]] = {}
    records = Records(state_folder(path) / "records" / "score").load()
    spans = {
        key: record.lines
        for key, record in records.items()
        if key.session == name and record.digest == group.attrs.get("digest")
    }
    for key in geometry.keys(name):
        stored = any(
            chunk_tail(
                array, (key.frame, key.start // geometry.lines, *(0 for _ in array.shape[2:]))
            )
            for array in maps.values()
        )
        if key in spans or stored:
            first, last = spans.get(key, (key.start, key.stop))
            top, bottom = lines.get(key.frame, (first, last))
            lines[key.frame] = (min(top, first), max(bottom, last))
    height = geometry.shape[0]
    if len(lines) == geometry.frames and set(lines.values()) == {(0, height)}:
        return [name]
    return [f"{name}[{frame}][y={top}:{bottom}]" for frame, (top, bottom) in lines.items()]
