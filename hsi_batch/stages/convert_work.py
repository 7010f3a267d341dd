"""What is sent to a worker that converts, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.readers.cropped import Crop
from hsi_batch.stages.run import TaskReport

__all__ = [
    "ConvertItem",
    "ConvertReport",
    "HashItem",
    "SessionJob",
    "ShardItem",
    "item_keys",
    "shard_items",
]


@dataclass(frozen=True)
class SessionJob:
    """What a worker must know of a session.

    Attributes
    ----------
    archive : str
        Folder of the archive.
    name : str
        Of the session.
    path, mode : str
        The source.
    digest : str
        Of source and settings; goes into the records.
    geometry : Geometry
    access : str
        As the reader states it.
    nodata, saturation : float, optional
    used : tuple of bool, optional
        Channels that decide whether a pixel is valid.
    annotation : str, optional
        File of labels.
    classes : bool
        Statistics of each label class are kept.
    crop : Crop, optional
        What is cut off frames and labels.
    roi, dead_columns : str, optional
        Pixels outside, and columns, that are flagged.
    recorded : str, optional
        Type of the counts of a scan that is calibrated.
    retry : bool
        The block was flagged as failed before.
    run : str
        Unique to the run: what workers keep open of an earlier one may be of other arrays.
    """

    archive: str
    name: str
    path: str
    mode: str | None
    digest: str
    geometry: Geometry
    access: str
    nodata: float | None = None
    saturation: float | None = None
    used: tuple[bool, ...] | None = None
    annotation: str | None = None
    classes: bool = False
    crop: Crop | None = None
    roi: str | None = None
    dead_columns: str | None = None
    recorded: str | None = None
    retry: bool = False
    run: str = ""


@dataclass(frozen=True)
class ConvertItem:
    """Blocks of one frame that one worker converts one after the other."""

    job: SessionJob
    frame: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ShardItem:
    """Blocks that share a shard, which one task writes."""

    items: tuple[ConvertItem, ...]

    @property
    def job(self) -> SessionJob:
        """Of the session that they are of."""
        return self.items[0].job


def shard_items(items: Iterable[ConvertItem], shard: tuple[int, int]) -> list[ShardItem]:
    """Gather items of a session by the shards that their blocks are in; in order.

    An item whose blocks are in several shards has all of these to itself.

    Parameters
    ----------
    items : iterable of ConvertItem
    shard : (int, int)
        Frames, and blocks of each, that a shard holds.
    """
    found: dict[tuple[int, int], list[ConvertItem]] = {}
    for item in items:
        at = item.job.geometry.shard_index(shard, item.frame, item.ranges[0][0])
        found.setdefault(at, []).append(item)
    return [ShardItem(tuple(group)) for group in found.values()]


@dataclass(frozen=True)
class HashItem:
    """A file whose SHA-256 is taken."""

    session: str
    path: str


@dataclass
class ConvertReport(TaskReport):
    """What a task sends back; ``hashes`` holds SHA-256 by session and file."""

    hashes: dict[str, dict[str, str]] = field(default_factory=dict)


def item_keys(item: ConvertItem | ShardItem | HashItem) -> list[BlockKey]:
    """Blocks of an item."""
    if isinstance(item, HashItem):
        return []
    if isinstance(item, ShardItem):
        return [key for member in item.items for key in item_keys(member)]
    return [BlockKey(item.job.name, item.frame, a, b) for a, b in item.ranges]
