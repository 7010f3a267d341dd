"""Tables of the report: columns of numbers, and of words by their number, as compact JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hsi_batch.readers.paths import natural_key

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Column", "Listing", "report_tables", "summary_by_session", "tables_json"]

#: Bytes of all tables together; what is more than that is left out, from the end.
BUDGET = 12_000_000

_FRAMES = {
    "frame": "frame",
    "score_max": "highest score",
    "max_y": "line",
    "max_x": "sample",
    "score_p999": "99.9 %",
    "score_p50": "median",
    "score_mean": "mean",
    "valid": "valid pixels",
    "flagged": "flagged",
    "anomalous": "labelled",
    "auc": "AUC",
}
_SESSIONS = {
    "frames": "frames",
    "failed": "without scores",
    "score_max": "highest score",
    "score_mean": "mean",
    "valid_share": "valid, %",
    "flagged": "flagged",
    "flagged_share": "flagged, %",
    "anomalous": "labelled",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name : str
        As people read it.
    values : list
        Numbers, None where there is none; numbers of words where ``words`` is given.
    words : str, optional
        The list of words that the numbers mean.
    """

    name: str
    values: list[Any]
    words: str | None = None


@dataclass(frozen=True)
class Listing:
    """A table of the page.

    Attributes
    ----------
    key : str
        Its place in the page.
    columns : list of Column
    sort : int
        The column by which the rows are sorted, descending; -1 for none.
    total : int
        Rows that there are; the columns may have fewer.
    links : dict
        Anchors in the page, by row.
    """

    key: str
    columns: list[Column]
    sort: int
    total: int
    links: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.columns[0].values)

    def head(self, words: Mapping[str, Sequence[str]], count: int) -> list[list[str]]:
        """The first rows as text, for readers without scripts."""
        return [
            [_cell(c.values[row], words.get(c.words or "")) for c in self.columns]
            for row in range(min(count, len(self)))
        ]

    def cut(self, count: int) -> Listing:
        """The same with the first rows only."""
        columns = [Column(c.name, c.values[:count], c.words) for c in self.columns]
        return Listing(self.key, columns, self.sort, self.total, self.links)

    def to_dict(self) -> dict[str, Any]:
        """As the page reads it."""
        columns = [{k: v for k, v in vars(c).items() if v is not None} for c in self.columns]
        links = {row: anchor for row, anchor in self.links.items() if row < len(self)}
        return {"columns": columns, "sort": self.sort, "total": self.total, "links": links}


def report_tables(
    table: pd.DataFrame,
    failures: Sequence[tuple[str, int, str]],
    links: Mapping[tuple[str, int], str],
) -> tuple[dict[str, list[str]], list[Listing]]:
    """Frames, sessions and failures.

    Parameters
    ----------
    table : pandas.DataFrame
        A row per frame, as evaluations have it.
    failures : sequence of (session, frame, reason)
    links : dict
        Where in the page a frame is shown.

    Returns
    -------
    words : dict of list of str
        ``sessions`` in order, and ``reasons``.
    listings : list of Listing
    """
    names = set(table["session"]) if len(table) else set()
    sessions = sorted(names | {name for name, _, _ in failures}, key=natural_key)
    reasons = sorted({reason for _, _, reason in failures})
    words = {"sessions": sessions, "reasons": reasons}
    number = {name: i for i, name in enumerate(sessions)}
    found = []
    if len(table):
        ordered = _by_score(table)
        places = zip(ordered["session"], ordered["frame"], strict=True)
        anchors = {row: links[at] for row, at in enumerate(places) if at in links}
        found.append(_listing("frames", ordered, _FRAMES, number, anchors))
        summary = _by_score(summary_by_session(table, failures))
        found.append(_listing("sessions", summary, _SESSIONS, number, {}))
    if failures:
        reason = {text: i for i, text in enumerate(reasons)}
        ordered_failures = sorted(failures, key=lambda entry: (number[entry[0]], entry[1]))
        columns = [
            Column("session", [number[name] for name, _, _ in ordered_failures], "sessions"),
            Column("frame", [frame for _, frame, _ in ordered_failures]),
            Column("reason", [reason[text] for _, _, text in ordered_failures], "reasons"),
        ]
        found.append(Listing("failures", columns, -1, len(failures), {}))
    return words, found


def tables_json(
    words: Mapping[str, Sequence[str]], listings: Sequence[Listing], budget: int = BUDGET
) -> tuple[str, list[Listing]]:
    """JSON of the tables, and what of them is in it.

    Where it would be longer than the budget, every table keeps its first rows, as many as fit.
    """
    kept = list(listings)
    while True:
        used, renumbered = _used_words(words, kept)
        content = {"words": used, "tables": {one.key: one.to_dict() for one in renumbered}}
        text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        if len(text) <= budget or all(len(one) <= 1 for one in kept):
            return text, kept
        share = 0.95 * budget / len(text)
        kept = [one.cut(max(1, int(len(one) * share))) for one in kept]


def _used_words(
    words: Mapping[str, Sequence[str]], listings: Sequence[Listing]
) -> tuple[dict[str, list[str]], list[Listing]]:
    """Words that occur, in their order, and the tables with their new numbers."""
    columns = [column for one in listings for column in one.columns]
    held = {
        key: sorted({value for c in columns if c.words == key for value in c.values})
        for key in words
    }
    number = {key: {old: new for new, old in enumerate(olds)} for key, olds in held.items()}

    def renumbered(column: Column) -> Column:
        if column.words is None:
            return column
        places = number[column.words]
        return Column(column.name, [places[value] for value in column.values], column.words)

    tables = [
        Listing(one.key, list(map(renumbered, one.columns)), one.sort, one.total, one.links)
        for one in listings
    ]
    return {key: [words[key][old] for old in olds] for key, olds in held.items()}, tables


def summary_by_session(
    table: pd.DataFrame, failures: Sequence[tuple[str, int, str]] = ()
) -> pd.DataFrame:
    """A row per session of an evaluation's rows: sums, the highest score, means over pixels.

    Returns
    -------
    pandas.DataFrame
        ``session``, ``frames``, ``failed``, ``pixels``, ``valid``, ``valid_share`` (%), and where
        frames have them ``score_max``, ``score_mean``, ``flagged``, ``flagged_share`` (%),
        ``labelled``, ``anomalous``, ``precision``, ``recall``.
    """
    import pandas as pd

    groups = table.groupby("session", sort=False)
    found = pd.DataFrame({"frames": groups.size()})
    failed = pd.Series([name for name, _, _ in failures], dtype=object).value_counts()
    found["failed"] = failed.reindex(found.index).fillna(0).astype(int)
    summed = [
        *("pixels", "valid", "flagged", "labelled", "anomalous"),
        *("true_positive", "false_positive", "false_negative"),
    ]
    for name in (n for n in summed if n in table):
        found[name] = groups[name].sum(min_count=1)
    found["valid_share"] = 100 * found["valid"] / found["pixels"]
    if "score_max" in table:
        numbers = table[["score_max", "score_mean"]].astype(float)
        found["score_max"] = numbers["score_max"].groupby(table["session"], sort=False).max()
        weight = table["valid"].where(numbers["score_mean"].notna(), 0).astype(float)
        with np.errstate(invalid="ignore"):
            total = (numbers["score_mean"].fillna(0) * weight).groupby(table["session"]).sum()
            weights = weight.groupby(table["session"]).sum()
            found["score_mean"] = (total / weights.where(weights > 0)).reindex(found.index)
    if "flagged" in found:
        found["flagged_share"] = 100 * found["flagged"] / found["valid"].where(found["valid"] > 0)
    if "true_positive" in found:
        hits = found["true_positive"]
        said, true = hits + found["false_positive"], hits + found["false_negative"]
        found["precision"] = hits / said.where(said > 0)
        found["recall"] = hits / true.where(true > 0)
    return found.drop(columns=summed[5:], errors="ignore").reset_index()


def _by_score(table: pd.DataFrame) -> pd.DataFrame:
    """Highest scores first; what has none keeps its order, at the end."""
    if "score_max" not in table:
        return table
    return table.assign(score_max=table["score_max"].astype(float)).sort_values(
        "score_max", ascending=False, kind="stable"
    )


def _listing(
    key: str,
    table: pd.DataFrame,
    shown: Mapping[str, str],
    number: Mapping[str, int],
    links: Mapping[int, str],
) -> Listing:
    held = [name for name in shown if name in table]
    columns = [Column("session", [number[name] for name in table["session"]], "sessions")]
    columns += [Column(shown[name], _numbers(table[name])) for name in held]
    sort = 1 + held.index("score_max") if "score_max" in held else -1
    return Listing(key, columns, sort, len(table), links)


def _numbers(column: pd.Series[Any]) -> list[Any]:
    """Whole numbers as they are, others to six digits; infinite ones as words."""
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    inside = values[np.isfinite(values)]
    whole = bool((inside == np.rint(inside)).all() and (np.abs(inside) < 2**53).all())
    return [_number(value, whole=whole) for value in values.tolist()]


def _number(value: float, *, whole: bool) -> Any:
    if not np.isfinite(value):
        return None if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return int(value) if whole else float(f"{value:.6g}")


def _cell(value: Any, words: Sequence[str] | None) -> str:
    if words is not None:
        return str(words[value])
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
