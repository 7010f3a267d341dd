"""The plan of a conversion: which sources are new, changed, done or broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.storage import DEFAULT_PRESET
from hsi_batch.readers.cropped import Crop
from hsi_batch.readers.protocol import SourceInfo
from hsi_batch.stages.convert_sums import CLASS_LIMIT
from hsi_batch.stages.convert_work import ConvertItem, SessionJob, ShardItem, shard_items
from hsi_batch.stages.run import Failure

if TYPE_CHECKING:
    from hsi_batch.stages.convert_positions import SessionPositions
    from hsi_batch.stages.convert_references import SessionReferences

__all__ = ["ConvertOptions", "ConvertPlan", "PlannedSession", "Status"]

#: Bytes that a frame may take while it is converted, in frames, where the reader holds frames.
FRAMES_HELD = 4
BLOCKS_HELD = 3
#: Copies of the moments of columns in a worker: parts of the tree, and one that is made.
COLUMNS_HELD = 6

Status = Literal["new", "resume", "done", "changed", "replace", "retry"]


@dataclass(frozen=True)
class ConvertOptions:
    """Settings of a conversion that decide its result.

    Attributes
    ----------
    mode : str, optional
        Processing mode of the vendor's SDK.
    annotations : str
        ``sibling`` (labels beside each recording), ``none``, or one file for all.
    nodata, saturation : float, optional
        Win over what the sources state.
    block_lines : int or "frame", optional
        Height of the blocks.
    preset : str
        How the blocks are stored, see :mod:`hsi_batch.archive.storage`.
    white, dark : str
        ``sibling`` (references that lie beside a scan), ``none``, or ``FILE[:FRAME]``.
    panel : str, optional
        Reflectance of the white panel: a number, or a file with its spectrum.
    crop : str, optional
        ``T,B,L,R``: lines and columns that are cut off.
    quantity : str, optional
        What the numbers of the sources are, where they do not say it, or say it wrongly.
    roi : str, optional
        Columns, lines or polygon outside of which pixels are flagged.
    dead_columns : str, optional
        Columns that are flagged.
    igm, gps : str
        Positions of pixels and of lines: ``sibling`` (files that lie beside a scan), ``none``, or
        one file.
    wavelength_map : str, optional
        Wavelengths of every column.
    """

    mode: str | None = None
    annotations: str = "sibling"
    nodata: float | None = None
    saturation: float | None = None
    block_lines: int | str | None = None
    preset: str = DEFAULT_PRESET
    white: str = "sibling"
    dark: str = "sibling"
    panel: str | None = None
    crop: str | None = None
    quantity: str | None = None
    roi: str | None = None
    dead_columns: str | None = None
    igm: str = "sibling"
    gps: str = "sibling"
    wavelength_map: str | None = None


@dataclass
class PlannedSession:
    """A source and what will be done with it.

    Attributes
    ----------
    name, path : str
    status : {"new", "resume", "done", "changed", "replace", "retry"}
        ``changed``: the source differs from what was converted, and replacing was not asked for.
    signature : dict
        Path, size and modification time of each file of the source.
    digest : str
        Of the source and the settings.
    info : SourceInfo, optional
        None for sources that need nothing.
    geometry : Geometry, optional
    annotation : str, optional
    classes : mapping, optional
    todo : list of BlockKey
        Blocks to convert.
    earlier : tuple of Failure
        Blocks that failed in earlier runs and are left alone.
    touched : bool
        The files have other modification times than when they were converted, but the same bytes.
    why : str
        What changed.
    shard : (int, int), optional
        Frames, and blocks of each, that are one file.
    references : optional
        What the scan is calibrated with.
    raw : SourceInfo, optional
        What a scan that is calibrated holds as recorded.
    positions : optional
        Where its pixels are.
    """

    name: str
    path: str
    status: Status
    signature: dict[str, Any]
    digest: str = ""
    info: SourceInfo | None = None
    geometry: Geometry | None = None
    annotation: str | None = None
    classes: Mapping[int, str] | None = None
    todo: list[BlockKey] = field(default_factory=list)
    earlier: tuple[Failure, ...] = ()
    touched: bool = False
    why: str = ""
    shard: tuple[int, int] | None = None
    references: SessionReferences | None = None
    raw: SourceInfo | None = None
    positions: SessionPositions | None = None

    def job(self, archive: str, options: ConvertOptions) -> SessionJob:
        """What a worker must know."""
        assert self.info is not None
        assert self.geometry is not None
        info, raw = self.info, self.raw or self.info
        good = None if info.good_band is None else tuple(bool(b) for b in info.good_band)
        return SessionJob(
            archive=archive,
            name=self.name,
            path=self.path,
            mode=options.mode,
            digest=self.digest,
            geometry=self.geometry,
            access=info.access,
            nodata=raw.nodata,
            saturation=raw.saturation,
            used=good,
            annotation=self.annotation,
            classes=self.classes is not None and len(self.classes) <= CLASS_LIMIT,
            crop=None if options.crop is None else Crop.parse(options.crop),
            roi=options.roi,
            dead_columns=options.dead_columns,
            recorded=None if self.raw is None else raw.dtype.name,
            retry=self.status == "retry",
        )

    def items(self, job: SessionJob) -> list[ConvertItem] | list[ShardItem]:
        """Blocks to do, grouped by what must be read together, or written."""
        items = self._read_together(job)
        return items if self.shard is None else shard_items(items, self.shard)

    def _read_together(self, job: SessionJob) -> list[ConvertItem]:
        by_frame: dict[int, list[tuple[int, int]]] = {}
        for key in sorted(self.todo):
            by_frame.setdefault(key.frame, []).append((key.start, key.stop))
        if job.access == "lines":
            return [
                ConvertItem(job, frame, (span,))
                for frame, spans in by_frame.items()
                for span in spans
            ]
        return [ConvertItem(job, frame, tuple(spans)) for frame, spans in by_frame.items()]


@dataclass
class ConvertPlan:
    """What a conversion will do.

    Attributes
    ----------
    archive : str
    options : ConvertOptions
    sessions : list of PlannedSession
    broken : list of (path, reason)
        Sources that cannot be opened.
    skipped : list of (path, reason)
        Files that are no recordings.
    tasks : int
        Batches of blocks that workers will get.
    """

    archive: str
    options: ConvertOptions
    sessions: list[PlannedSession]
    broken: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    tasks: int = 0

    @property
    def todo(self) -> list[PlannedSession]:
        """Sessions with blocks to convert, or a conversion to finish."""
        return [s for s in self.sessions if s.status not in ("done", "changed")]

    @property
    def blocks(self) -> int:
        """Blocks to convert."""
        return sum(len(s.todo) for s in self.sessions)

    @property
    def bytes(self) -> int:
        """Bytes of pixels to convert."""
        return sum(s.geometry.bytes_of(key) for s in self.sessions if s.geometry for key in s.todo)

    @property
    def worker_bytes(self) -> int:
        """Memory that a worker needs above its base."""
        needs = [0]
        for s in self.todo:
            if s.info is None or s.geometry is None or not s.todo:
                continue
            held = FRAMES_HELD * s.geometry.frame_bytes if s.info.access == "frame" else 0
            columns = COLUMNS_HELD * s.geometry.column_bytes if s.geometry.keeps_columns else 0
            needs.append(max(held, BLOCKS_HELD * s.geometry.block_bytes) + columns)
        return max(needs)

    def counts(self) -> dict[str, int]:
        """Sessions by status."""
        found: dict[str, int] = {}
        for session in self.sessions:
            found[session.status] = found.get(session.status, 0) + 1
        if self.broken:
            found["broken"] = len(self.broken)
        if self.skipped:
            found["skipped"] = len(self.skipped)
        return found

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "archive": self.archive,
            "counts": self.counts(),
            "blocks": self.blocks,
            "tasks": self.tasks,
            "bytes": self.bytes,
            "worker_bytes": self.worker_bytes,
            "sessions": [
                {"session": s.name, "source": s.path, "status": s.status, "blocks": len(s.todo)}
                for s in self.sessions
            ],
            "broken": [list(pair) for pair in self.broken],
            "skipped": [list(pair) for pair in self.skipped],
        }
