"""Statistics of small blocks on their way to a row that covers many of them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from hsi_batch.archive.store import state_folder
from hsi_batch.files import read_npz, write_atomically
from hsi_batch.places import Place
from hsi_batch.statistics import Bundle, Extrema, FloatMoments, Forest, IntegerMoments
from hsi_batch.statistics.columns import ColumnMoments

__all__ = ["load_partial", "partials_of", "save_partial"]

#: What the parts of a damaged file raise.
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError)

_TYPES: dict[str, Any] = {
    "IntegerMoments": IntegerMoments,
    "FloatMoments": FloatMoments,
    "Extrema": Extrema,
    "ColumnMoments": ColumnMoments,
}


def partials_of(archive: str | Place, session: str) -> Place:
    """Folder of the partial statistics of a session."""
    return state_folder(archive) / "partials" / session


def save_partial(path: Place, bundle: Mapping[str, Forest[Any]]) -> None:
    """Write the forests of a bundle, whole or not at all."""
    index: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for name, forest in bundle.items():
        for (place, level), part in forest.parts.items():
            number = len(index)
            index.append({"name": name, "path": place, "level": level, "type": type(part).__name__})
            for key, value in part.to_arrays().items():
                arrays[f"{number}.{key}"] = value
    buffer = io.BytesIO()
    np.savez(buffer, index=np.array(json.dumps(index)), **arrays)
    write_atomically(path, buffer.getvalue())


def load_partial(path: Place) -> Bundle | None:
    """Read what :func:`save_partial` wrote; None if it is missing or damaged."""
    forests: dict[str, Forest[Any]] = {}
    try:
        file = read_npz(path)
        for number, entry in enumerate(json.loads(str(file["index"]))):
            prefix = f"{number}."
            arrays = {
                key.removeprefix(prefix): value
                for key, value in file.items()
                if key.startswith(prefix)
            }
            part = _TYPES[entry["type"]].from_arrays(arrays)
            place = tuple((int(i), int(n)) for i, n in entry["path"])
            forest = forests.setdefault(entry["name"], Forest())
            forests[entry["name"]] = forest.merge(Forest.of(place, part, int(entry["level"])))
    except _DAMAGED:
        return None
    return Bundle(forests)
