"""What made a store of scores: as JSON (RO-Crate), and as a paragraph for a paper."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, groups_of, open_root
from hsi_batch.errors import HsiBatchError
from hsi_batch.readers.paths import natural_key
from hsi_batch.wording import counted, some

__all__ = ["Provenance", "moved_on", "provenance"]

_CONTEXT = "https://w3id.org/ro/crate/1.1/context"


@dataclass(frozen=True)
class Provenance:
    """What made some scores.

    Attributes
    ----------
    crate : dict
        RO-Crate 1.1 metadata.
    paragraph : str
        Methods, in words.
    moved : tuple of str
        Sessions of the archive that are not any more what was scored.
    """

    crate: Mapping[str, Any]
    paragraph: str
    moved: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.moved:
            return self.paragraph
        return (
            f"{self.paragraph}\n\nThe archive has moved on: {some(list(self.moved))} changed since"
            " they were scored. Score them again before you publish."
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**self.crate, "paragraph": self.paragraph, "moved": list(self.moved)}


def moved_on(store: str | os.PathLike[str]) -> tuple[str, ...]:
    """Sessions whose archive holds something else now than what was scored, or is gone.

    Nothing is said where the archive itself is not there.
    """
    root = open_root(str(store), SCORES)
    archive = _archive(dict(root.attrs))
    if archive is None:
        return ()
    found = []
    for name, group in groups_of(root).items():
        then = group.attrs.get("session_digest")
        now = archive.session(name).attrs.get("digest") if name in archive else None
        if then is not None and then != now:
            found.append(name)
    return tuple(sorted(found, key=natural_key))


def _archive(attrs: Mapping[str, Any]) -> Archive | None:
    place = attrs.get("archive")
    if not place or not Path(str(place)).is_dir():
        return None
    try:
        return Archive(str(place))
    except HsiBatchError:
        return None


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
    archive = _archive(attrs)
    names = sorted(groups_of(root), key=natural_key)
    sessions = {
        name: archive.session(name) if archive is not None and name in archive else None
        for name in names
    }
    told = {name: _session(root[name].attrs, session) for name, session in sessions.items()}
    return Provenance(_crate(store, attrs, told), _paragraph(attrs, told), moved_on(store))


def _session(scored: Any, session: Session | None) -> dict[str, Any]:
    source = dict(scored.get("source") or {})
    found: dict[str, Any] = {
        "source": source.get("path"),
        "sha256": source.get("sha256"),
        "digest": scored.get("session_digest"),
        "background": scored.get("background"),
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
    return {key: value for key, value in found.items() if value is not None}


def _crate(
    store: str | os.PathLike[str], attrs: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    fit = attrs.get("pipeline_provenance") or {}
    inputs = [
        {
            "@id": f"#session-{name}",
            "@type": "Dataset",
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
    graph = [
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
            "dateCreated": attrs.get("scored"),
            "hasPart": [{"@id": one["@id"]} for one in inputs],
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
            },
        },
        {
            "@id": "#scoring",
            "@type": "CreateAction",
            "endTime": attrs.get("scored"),
            "instrument": [{"@id": "#pipeline"}, *({"@id": one["@id"]} for one in software)],
            "object": [{"@id": one["@id"]} for one in inputs],
            "result": {"@id": "./"},
        },
        *inputs,
        *software,
    ]
    return {"@context": _CONTEXT, "@graph": graph}


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
