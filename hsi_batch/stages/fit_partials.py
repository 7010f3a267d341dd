"""What a killed fit leaves behind: statistics by portions of the data, and finished passes.

A pass is cut into *portions*: fixed runs of blocks (of frames, where frames are small; of lines of
a frame, where it is long). When all blocks of a portion are read its statistics are merged on a
worker, as far as the fixed tree allows, and written there to a file of its own, under a digest of
all they depend on. A rerun loads the files that agree and reads only what lacks. What is kept is a
forest, so the places of its parts in the tree are those of an undisturbed run, and so are the bits.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Client, Future
from numpy.typing import NDArray

from hsi_batch._version import __version__
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.session import Session
from hsi_batch.engine.carried import submit_carried
from hsi_batch.engine.reduce import TreeReduction
from hsi_batch.files import digest_json
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.places import Place, stamp
from hsi_batch.stages.fit_blocks import FitItem, PassPart, fit_keys, flawed
from hsi_batch.stages.kept_file import read_kept, write_kept
from hsi_batch.stages.run import TaskReport
from hsi_batch.statistics import Bundle

__all__ = [
    "DISK_SHARE",
    "KeptFits",
    "PassGathering",
    "Portion",
    "discard",
    "load_portions",
    "pass_digest",
    "portions_of",
    "session_stamps",
    "tidy",
]

#: A portion covers so many bytes of pixels per byte of its statistics.
_PIXELS_PER_BYTE = 100
#: Parts of the tree that the forest of a run of blocks holds, about.
_PARTS = 4
#: Statistics that come out larger than this share of their pixels are not kept.
DISK_SHARE = 0.05
#: Most portions, hence files, of a pass.
_MOST = 4096
#: Our files, and those that a crash left half written.
_OURS = re.compile(r"\.?([0-9]{4}-[0-9a-f]{24}\.part|[0-9a-f]{24}\.done)(\..+)?")
#: Ending of the folders of run states.
_STATE = ".hsi-batch"


@dataclass(frozen=True)
class Portion:
    """A run of blocks whose statistics are kept together.

    Attributes
    ----------
    number : int
        In the pass.
    digest : str
        Of what the statistics depend on.
    items : tuple of FitItem
    blocks, bytes : int
        Bytes are those of the pixels.
    """

    number: int
    digest: str
    items: tuple[FitItem, ...]
    blocks: int
    bytes: int

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.number:04d}-{self.digest[:24]}.part"


class _File(NamedTuple):
    """A file that a worker is to load."""

    number: int
    path: str
    digest: str


def session_stamps(archive: Place, sessions: Mapping[str, Session]) -> dict[str, str]:
    """What changes when a session is converted, labelled or masked again."""
    stamps = {}
    for name, session in sessions.items():
        stamps[name] = f"{session.attrs.get('digest', '')}-{stamp(archive / name / 'zarr.json')}"
    return stamps


def pass_digest(pipeline: Pipeline, needs: Iterable[Need], pixels: str) -> str:
    """Digest of what the statistics of a pass depend on, beside the data.

    The graph with its arguments, the buffers and exact states as far as they are fitted, what is
    asked, the choice of pixels, and the version of this software.
    """
    content = pipeline.serialize()
    nodes = {
        name: [
            node.buffer_digest(),
            {k: [str(v.dtype), v.shape, v.tobytes().hex()] for k, v in sorted(node.state.items())},
            node.fitted,
        ]
        for name, node in pipeline.nodes.items()
    }
    precision = {name: p.to_dict() for name, p in pipeline.precision.items()}
    asked = [[str(need.root), type(need.kind).__name__, str(need)] for need in needs]
    graph = [content["nodes"], content["connections"], nodes, precision]
    return digest_json([graph, asked, pixels, __version__])


def portions_of(
    items: Sequence[FitItem],
    sizes: Sequence[int],
    digests: Mapping[str, str],
    stamps: Mapping[str, str],
    *,
    statistics: int,
    task_bytes: int,
) -> list[Portion]:
    """Cut a pass into portions, the same ones whatever the workers.

    Parameters
    ----------
    items : sequence of FitItem
        In order.
    sizes : sequence of int
        Bytes of their pixels.
    digests : mapping
        See :func:`pass_digest`; of each background.
    stamps : mapping
        See :func:`session_stamps`.
    statistics : int
        Bytes of one copy of the statistics; a portion is larger, the larger they are.
    task_bytes : int
        Bytes of a task; a portion has at least as many.
    """
    target = max(task_bytes, sum(sizes) // _MOST, _PIXELS_PER_BYTE * _PARTS * statistics)
    portions: list[Portion] = []
    group: list[FitItem] = []
    held = 0
    for index, (item, size) in enumerate(zip(items, sizes, strict=True)):
        group.append(item)
        held += size
        if held >= target or index == len(items) - 1:
            names = sorted({i.session for i in group})
            counting = sorted({name for i in group for name, _ in i.places})
            told = [
                {name: digests[name] for name in counting},
                [[i.session, i.frame, i.ranges, i.places, i.sampled] for i in group],
                {name: stamps[name] for name in names},
            ]
            blocks = sum(len(i.ranges) for i in group)
            number = len(portions)
            portions.append(Portion(number, digest_json(told), tuple(group), blocks, held))
            group, held = [], 0
    return portions


class KeptFits:
    """The folder in which a fit keeps what it has; or none.

    Parameters
    ----------
    folder : path, optional
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._passes: set[str] = set()

    def finished(self, digest: str) -> Any | None:
        """What a pass with this digest found, if it was finished."""
        if self.folder is None:
            return None
        name = f"{digest[:24]}.done"
        content = read_kept(self.folder / name, digest)
        if content is not None:
            self._passes.add(name)
        return content

    def begin(self, portions: Sequence[Portion]) -> list[Portion]:
        """Remove what is neither of this pass nor of finished ones; the portions that are kept."""
        if self.folder is None:
            return []
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        names = {portion.file for portion in portions}
        here = self._files()
        for name in here - names - self._passes:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        return [portion for portion in portions if portion.file in here]

    def finish(self, digest: str, content: Any) -> None:
        """Keep what a pass found instead of its portions."""
        if self.folder is None:
            return
        name = f"{digest[:24]}.done"
        if write_kept(self.folder / name, digest, content):
            self._passes.add(name)
            for other in self._files() - self._passes:
                with contextlib.suppress(OSError):
                    (self.folder / other).unlink()

    def planned(self, portions: Sequence[Portion]) -> tuple[int, int]:
        """Blocks whose statistics are there, and blocks of portions kept for other data."""
        here = self._files()
        kept = sum(p.blocks for p in portions if p.file in here)
        numbers = {name.partition("-")[0] for name in here if name.endswith(".part")}
        redone = sum(
            p.blocks for p in portions if p.file not in here and f"{p.number:04d}" in numbers
        )
        return kept, redone

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return not self._files()

    def _files(self) -> set[str]:
        return set() if self.folder is None else _files_in(self.folder)


def _files_in(folder: Path) -> set[str]:
    """Names of our files; those of others are left alone."""
    if not folder.is_dir():
        return set()
    return {entry.name for entry in folder.iterdir() if _OURS.fullmatch(entry.name)}


def discard(folder: str | os.PathLike[str]) -> None:
    """Remove what a fit kept; the folder too, and the run state it is in, if nothing else is."""
    place = Path(folder)
    for name in _files_in(place):
        with contextlib.suppress(OSError):
            (place / name).unlink()
    tidy(place)


def tidy(folder: str | os.PathLike[str]) -> None:
    """Remove a folder in which nothing is kept, and the run state it is in, if that is empty."""
    place = Path(folder)
    with contextlib.suppress(OSError):
        place.rmdir()
        if place.parent.suffix == _STATE:
            place.parent.rmdir()


class PassGathering:
    """The results of a pass, merged on the workers; by portion, and written there, if kept.

    Parameters
    ----------
    client : distributed.Client
    kept : KeptFits
    portions : sequence of Portion
        All of the pass.
    fan_in, fetched : int
        Results that are merged at once; those at the end that are merged here.
    """

    def __init__(
        self,
        client: Client,
        kept: KeptFits,
        portions: Sequence[Portion],
        fan_in: int,
        fetched: int = 1,
    ) -> None:
        self._client = client
        self._folder = kept.folder
        self._fan_in = fan_in
        self._all = TreeReduction(client, fan_in, fetched)
        self._portion = {id(item): portion for portion in portions for item in portion.items}
        self._waiting = {portion.number: len(portion.items) for portion in portions}
        self._open: dict[int, TreeReduction] = {}
        self._torn: set[int] = set()

    def files(self, portions: Iterable[Portion]) -> list[_File]:
        """What :func:`load_portions` is to be given for portions that are kept."""
        assert self._folder is not None
        return [_File(p.number, str(self._folder / p.file), p.digest) for p in portions]

    def loaded(self, future: Future[PassPart]) -> None:
        """Take what :func:`load_portions` gave."""
        self._all.add(future)

    def portion(self, item: FitItem) -> int:
        """Number of the portion of an item."""
        return self._portion[id(item)].number

    def add(self, items: Sequence[FitItem], future: Future[PassPart] | None) -> None:
        """Take the result of some items of one portion; None if their task was lost."""
        if self._folder is None:
            if future is not None:
                self._all.add(future)
            return
        portion = self._portion[id(items[0])]
        reduction = self._open.setdefault(portion.number, TreeReduction(self._client, self._fan_in))
        if future is None:
            self._torn.add(portion.number)
        else:
            reduction.add(future)
        self._waiting[portion.number] -= len(items)
        if self._waiting[portion.number] == 0:
            self._close(portion, self._open.pop(portion.number))

    def _close(self, portion: Portion, reduction: TreeReduction) -> None:
        whole = reduction.merged()
        if whole is None:
            return
        if portion.number not in self._torn:
            assert self._folder is not None
            file = str(self._folder / portion.file)
            most = portion.bytes * DISK_SHARE
            # Before tasks that wait: what is done counts from here on.
            whole = submit_carried(
                self._client, _keep, whole, file, portion.digest, most, priority=10
            )
        self._all.add(whole)

    def result(self) -> PassPart | None:
        """Everything, merged; None if there was nothing."""
        part: PassPart | None = self._all.result()
        return part


def _keep(part: PassPart, file: str, digest: str, most: float) -> PassPart:
    """Write the statistics of a portion, if all of it could be read; hand them on."""
    if not part.report.failures:
        content = {
            "bundle": {group: dict(found) for group, found in part.bundle.items()},
            "sample": {astuple(key): spectra for key, spectra in part.sample.items()},
            "done": [part.report.done, part.report.done_bytes],
        }
        write_kept(Path(file), digest, content, most)
    return part


def load_portions(files: Sequence[_File], _key: str) -> PassPart:
    """Read kept statistics; numbers of those that cannot be trusted are in ``damaged``."""
    whole = PassPart()
    for number, path, digest in files:
        content = read_kept(Path(path), digest)
        if content is None:
            whole = whole.merge(PassPart(damaged=(number,)))
            continue
        done, size = content["done"]
        part = PassPart(
            Bundle({group: Bundle(found) for group, found in content["bundle"].items()}),
            TaskReport(done, size),
            sample_of(content["sample"]),
        )
        whole = whole.merge(part)
    return flawed(whole)


def sample_of(stored: Mapping[tuple[Any, ...], NDArray[Any]]) -> dict[BlockKey, NDArray[Any]]:
    """Spectra by block, from what was kept."""
    return {BlockKey(*key): spectra for key, spectra in stored.items()}


def blocks_of(items: Iterable[FitItem]) -> list[BlockKey]:
    """Blocks of several items."""
    return [key for item in items for key in fit_keys(item)]
