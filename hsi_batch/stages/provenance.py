"""What made a store of scores: as JSON (RO-Crate), and as a paragraph for a paper."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.labels import label_versions
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, groups_of, open_root
from hsi_batch.readers.paths import natural_key
from hsi_batch.stages.moved import archive_of, scores_moved
from hsi_batch.stages.workflow_text import workflows_of
from hsi_batch.wording import counted, some

__all__ = ["Provenance", "provenance"]

_CONTEXT = "https://w3id.org/ro/crate/1.1/context"
#: What the vocabulary of RO-Crate has no words for; it becomes a property with JSON as its value.
_FACTS = "hsi_batch"


@dataclass(frozen=True)
class Provenance:
    """What made some scores.

    Attributes
    ----------
    crate : dict
        RO-Crate 1.1 metadata. What its vocabulary has no words for is in entities ``#...-facts``,
        as JSON.
    paragraph : str
        Methods, in words.
    moved : tuple of str
        Sessions of the archive that are not any more what was fitted on, scored or measured.
    why : tuple of str
        What happened to them, and what to run.
    """

    crate: Mapping[str, Any]
    paragraph: str
    moved: tuple[str, ...] = ()
    why: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.moved:
            return self.paragraph
        return "\n\n".join([self.paragraph, *(why[:1].upper() + why[1:] for why in self.why)])

    def to_dict(self) -> dict[str, Any]:
        """For machines: the RO-Crate, to be kept as ``ro-crate-metadata.json``."""
        return dict(self.crate)


def provenance(store: str | os.PathLike[str]) -> Provenance:
    """Tell what made a store of scores; only metadata are read.

    Parameters
    ----------
    store : path

    Raises
    ------
    hsi_batch.errors.StoreError
        It is no store of scores.
    """
    root = open_root(str(store), SCORES)
    attrs: dict[str, Any] = dict(root.attrs)
    archive = archive_of(attrs)
    groups = groups_of(root)
    names = sorted(groups, key=natural_key)
    sessions = {
        name: archive.session(name) if archive is not None and name in archive else None
        for name in names
    }
    workflows = _workflows(attrs, archive, sessions.values())
    told = {name: _session(groups[name].attrs, session) for name, session in sessions.items()}
    for name, facts in told.items():
        # Of an archive that is not there any more, the maps tell it.
        facts.setdefault("frames", _frames(groups[name]))
    moved = scores_moved(store)
    why = tuple(moved.sentences())
    paragraph = _paragraph(attrs, told)
    news = {"moved": list(moved.sessions), "why": list(why)}
    crate = _crate(store, attrs, told, workflows, paragraph, news)
    return Provenance(crate, paragraph, moved.sessions, why)


def _frames(scored: zarr.Group) -> int:
    return next((array.shape[0] for _, array in scored.arrays() if array.ndim >= 3), 1)


def _session(scored: Any, session: Session | None) -> dict[str, Any]:
    source = dict(scored.get("source") or {})
    found: dict[str, Any] = {
        "source": source.get("path"),
        "sha256": source.get("sha256"),
        "digest": scored.get("session_digest"),
        "background": scored.get("background"),
        "frames_scored": scored.get("frames"),
    }
    if session is not None:
        keys: tuple[str, ...] = (
            "sensor",
            "quantity",
            "units",
            "scale",
            "offset",
            "calibration",
            "annotation",
        )
        keys += ("masks", "flags", "failed_frames", "settings", "reader", "reader_version")
        found |= {key: session.attrs[key] for key in keys if session.attrs.get(key)}
        found["frames"] = session.geometry.frames
        found["labels"] = {str(k): v for k, v in label_versions(session).items()} or None
        found["labels_hold"] = session.label_version or None
    return {key: value for key, value in found.items() if value is not None}


def _crate(
    store: str | os.PathLike[str],
    attrs: Mapping[str, Any],
    told: Mapping[str, Mapping[str, Any]],
    workflows: Sequence[Mapping[str, Any]],
    paragraph: str,
    moved: Mapping[str, Any],
) -> dict[str, Any]:
    fit = attrs.get("pipeline_provenance") or {}
    inputs = [
        {
            "@id": f"#session-{name}",
            "@type": "CreativeWork",
            "name": name,
            "identifier": facts.get("sha256") or facts.get("digest"),
            "url": facts.get("source"),
            "hsi_batch": {k: v for k, v in facts.items() if k not in ("source", "sha256")},
        }
        for name, facts in told.items()
    ]
    software = [
        {"@id": f"#{role}", "@type": "SoftwareApplication", "name": text, "hsi_batch": machine}
        for role, text, machine in (
            ("fitted-with", fit.get("software"), fit.get("environment")),
            ("scored-with", attrs.get("software"), attrs.get("environment")),
        )
        if text
    ]
    pipeline = attrs.get("pipeline") or {}
    instruments = [*software, *workflows]
    graph: list[Mapping[str, Any]] = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": Path(store).name,
            "description": paragraph,
            "dateCreated": attrs.get("scored"),
            "datePublished": attrs.get("scored"),
            "license": "not stated",
            "isBasedOn": [{"@id": one["@id"]} for one in inputs],
            "hsi_batch": moved,
        },
        {
            "@id": "#pipeline",
            "@type": "SoftwareSourceCode",
            "name": (pipeline.get("metadata") or {}).get("name"),
            "hsi_batch": {
                "pipeline": pipeline,
                "fit": fit,
                "precision": attrs.get("precision"),
                "settled": attrs.get("settled"),
                "seeds": _seeds(pipeline),
            },
        },
        {
            "@id": "#scoring",
            "@type": "CreateAction",
            "endTime": attrs.get("scored"),
            "instrument": [{"@id": "#pipeline"}, *({"@id": one["@id"]} for one in instruments)],
            "object": [{"@id": one["@id"]} for one in inputs],
            "result": {"@id": "./"},
        },
        *inputs,
        *instruments,
    ]
    return {"@context": _CONTEXT, "@graph": [part for one in graph for part in _flat(one)]}


def _flat(entity: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """An entity, and what only we know of it as another: in a crate nothing is nested."""
    plain = {key: value for key, value in entity.items() if key != _FACTS and value is not None}
    if entity.get(_FACTS):
        name = f"#{str(entity['@id']).strip('./#') or 'scores'}-facts"
        plain["additionalProperty"] = {"@id": name}
        yield {
            "@id": name,
            "@type": "PropertyValue",
            "name": _FACTS,
            "value": json.dumps(entity[_FACTS]),
        }
    yield plain


def _seeds(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """Seeds of the nodes that draw numbers."""
    return {
        f"{node.get('name')}.{key}": value
        for node in pipeline.get("nodes", ())
        for key, value in (node.get("hparams") or {}).items()
        if "seed" in key or key == "random_state"
    }


def _workflows(
    attrs: Mapping[str, Any], archive: Archive | None, sessions: Iterable[Session | None]
) -> list[dict[str, Any]]:
    """The workflows that the stages ran for, with their text."""
    converted = {} if archive is None else workflows_of(archive.root, filter(None, sessions))
    fit = attrs.get("pipeline_provenance") or {}
    several = len(converted) > 1
    told = {
        **{f"convert-{k}" if several else "convert": one for k, one in converted.items()},
        "fit": fit.get("workflow"),
        "score": attrs.get("workflow"),
    }
    return [
        {
            "@id": f"#workflow-of-{role}",
            "@type": "SoftwareSourceCode",
            "name": Path(one["path"]).name,
            "text": one["text"],
            "hsi_batch": {"path": one["path"], "set": one["set"]},
        }
        for role, one in told.items()
        if one
    ]


def _paragraph(attrs: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]]) -> str:
    fit = attrs.get("pipeline_provenance") or {}
    pipeline = attrs.get("pipeline") or {}
    facts = list(told.values())
    frames = sum(int(one.get("frames", 1)) for one in facts)
    sensors = sorted({str(one["sensor"]) for one in facts if one.get("sensor")})
    text = f"{counted(len(facts), 'recording')} ({counted(frames, 'frame')}"
    text += f"; {some(sensors)}) were scored" if sensors else ") were scored"
    nodes = [
        str(node.get("class_name", "")).rpartition(".")[2] for node in pipeline.get("nodes", ())
    ]
    text += f" with {attrs.get('software', 'hsi_batch')}"
    text += f" by a graph of {', '.join(nodes)}." if nodes else "."
    text += _values(facts, fit)
    if fit:
        pixels = {"valid": "valid", "labelled-normal": "labelled background"}.get(
            str(fit.get("pixels")), f"the {fit.get('pixels')}"
        )
        by = fit.get("background")
        text += (
            f" It was fitted to {fit.get('pixel_count', 'unknown')} pixels ({pixels}) of"
            f" {counted(int(fit.get('frames', 0)), 'frame')}"
            + (f", with one background per {by}" if by else "")
            + f", in {counted(int(fit.get('passes', 0)), 'pass')} over the pixels."
        )
    for name, words in (attrs.get("settled") or {}).items():
        text += f" {name}: {words}."
    environment = attrs.get("environment") or {}
    if environment.get("cpu"):
        text += f" Scores were computed on {environment['cpu']} with {environment.get('blas')}."
    return text


def _values(facts: Sequence[Mapping[str, Any]], fit: Mapping[str, Any]) -> str:
    text = ""
    calibrated = [one["calibration"] for one in facts if one.get("calibration")]
    if calibrated:
        text += (
            f" Counts of {len(calibrated)} of {len(facts)} recordings were converted to reflectance"
            f" as {calibrated[0]['formula']}, with means of the references by column."
        )
    flags: Counter[str] = Counter()
    for one in facts:
        flags.update({str(k): int(v) for k, v in (one.get("flags") or {}).items()})
    if flags:
        named = ", ".join(f"{count} {flag}" for flag, count in sorted(flags.items()))
        text += f" Flagged pixels were left out ({named})."
    values = fit.get("values") or {}
    if values.get("channels"):
        text += f" Channels {values['channels']} (counted from 0) were used."
    return text
