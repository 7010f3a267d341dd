"""Data modules of Cubert recordings."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsi_batch.archive.archive import Archive
from hsi_batch.data.cache import Cached, cached, converted
from hsi_batch.data.ids import FrameIds, frame_numbers
from hsi_batch.data.module import DataModule
from hsi_batch.data.splits import DataSplitConfig
from hsi_batch.errors import ConfigError
from hsi_batch.readers.paths import natural_key
from hsi_batch.stages.convert import ConvertResult

__all__ = ["MultiCu3sDataModule", "SingleCu3sDataModule"]

_SUFFIX = ".cu3s"


class _Recordings(DataModule):
    """Recordings that are converted into a cache archive on first use."""

    def __init__(
        self,
        *,
        annotation_json_path: str | os.PathLike[str] | None,
        processing_mode: str | None,
        cache_dir: str | os.PathLike[str] | None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        annotation = annotation_json_path
        self.annotations = "sibling" if annotation is None else os.fspath(annotation)
        self.processing_mode = "stored" if processing_mode is None else processing_mode
        self.cache_dir = cache_dir
        self.session_names: tuple[str, ...] = ()

    @abstractmethod
    def _sources(self) -> tuple[list[Path], Path]:
        """The recordings, and the place that was named."""

    def _cache(self) -> Cached:
        sources, place = self._sources()
        # Only the SDK of these files has processing modes.
        sdk = all(source.suffix.lower() == _SUFFIX for source in sources)
        return cached(
            sources,
            place,
            mode=self.processing_mode if sdk else None,
            annotations=self.annotations,
            folder=self.cache_dir,
        )

    def conversion(self) -> ConvertResult | None:
        """What is to be converted before the frames are known; planned, not done."""
        planned = self._cache().plan()
        return planned if planned.plan is not None and planned.plan.todo else None

    def _open(self) -> Archive:
        found = converted(self._cache())
        self.session_names = tuple(sorted(found.sessions.values(), key=natural_key))
        return found.archive

    def _everything(self) -> Sequence[str]:
        # The cache may hold recordings that are no longer in the folder.
        self.archive  # noqa: B018
        return self.session_names


class SingleCu3sDataModule(_Recordings):
    """Frames of one recording.

    The recording is converted into a cache archive when its frames are first asked for, and again
    only if it, its annotation or the processing mode changed; see
    :func:`hsi_batch.data.cache_folder` for the place.

    Parameters
    ----------
    cu3s_file_path : path, optional
        The ``.cu3s`` file; any other recording that can be converted serves as well.
    annotation_json_path : path, optional
        COCO labels; those beside the recording by default.
    train_ids, val_ids, test_ids : sequence of int or str, optional
        Frames by number, or ranges ``"5-9"`` and ``"10-20:2"`` with both ends; see
        :class:`DataModule` for what is left out.
    batch_size, num_workers, splits
        As for :class:`DataModule`.
    processing_mode : str, optional
        Processing mode of the vendor's SDK; None takes cubes as they are stored in the file.
    data_dir : path, optional
        A folder that holds one ``.cu3s`` file, instead of ``cu3s_file_path``.
    cache_dir : path, optional
        Folder of the cache archive.

    Examples
    --------
    >>> module = SingleCu3sDataModule("lentils.cu3s", train_ids=[0, "2-4"])
    >>> module.train_ids
    (0, 2, 3, 4)
    """

    def __init__(
        self,
        cu3s_file_path: str | os.PathLike[str] | None = None,
        annotation_json_path: str | os.PathLike[str] | None = None,
        train_ids: FrameIds | None = None,
        val_ids: FrameIds | None = None,
        test_ids: FrameIds | None = None,
        batch_size: int = 1,
        processing_mode: str | None = "Reflectance",
        *,
        data_dir: str | os.PathLike[str] | None = None,
        num_workers: int = 0,
        splits: DataSplitConfig | Mapping[str, Any] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if (cu3s_file_path is None) == (data_dir is None):
            raise ConfigError("give cu3s_file_path, or the data_dir of one recording.")
        self.train_ids = frame_numbers(train_ids, "train_ids")
        self.val_ids = frame_numbers(val_ids, "val_ids")
        self.test_ids = frame_numbers(test_ids, "test_ids")
        super().__init__(
            train=_texts(self.train_ids),
            val=_texts(self.val_ids),
            test=_texts(self.test_ids),
            splits=splits,
            batch_size=batch_size,
            num_workers=num_workers,
            annotation_json_path=annotation_json_path,
            processing_mode=processing_mode,
            cache_dir=cache_dir,
        )
        self._path = Path(cu3s_file_path or data_dir or ".")
        self._is_folder = cu3s_file_path is None

    def _sources(self) -> tuple[list[Path], Path]:
        if not self._is_folder:
            return [self._path], self._path
        found = _recordings_in(self._path, recursive=False)
        if len(found) != 1:
            raise ConfigError(
                f"the folder holds {len(found)} {_SUFFIX} files"
                f" ({', '.join(p.name for p in found[:5])}); one was expected.",
                path=str(self._path),
                hint="Name one with cu3s_file_path, or take all of them (MultiCu3sDataModule).",
            )
        return found, found[0]

    def _terms(self, terms: str | Sequence[str]) -> Sequence[str]:
        self.archive  # noqa: B018
        (session,) = self.session_names
        return [f"{session}[{number}]" for number in terms]

    def _argument(self, split: str) -> str:
        return f"{split}_ids"


class MultiCu3sDataModule(_Recordings):
    """Frames of all recordings of a folder.

    Recordings are converted into one cache archive on first use; those that are new or changed
    since are converted when the module is used again. Sessions are named by their path below the
    folder.

    Parameters
    ----------
    directory : path
        Folder of ``.cu3s`` files.
    train, val, test : str or sequence of str, optional
        Selections, such as ``"glob:lentils_0*"``; see :class:`DataModule` for what is left out.
    batch_size, num_workers, splits
        As for :class:`DataModule`.
    processing_mode : str, optional
        Processing mode of the vendor's SDK; None takes cubes as they are stored in the files.
    recursive : bool
        Look into folders of the folder too.
    cache_dir : path, optional
        Folder of the cache archive.

    Examples
    --------
    >>> module = MultiCu3sDataModule("recordings", train="glob:lentils_0*", batch_size=4)
    >>> module.batch_size
    4
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        train: str | Sequence[str] | None = None,
        val: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        batch_size: int = 1,
        processing_mode: str | None = "Reflectance",
        *,
        recursive: bool = False,
        num_workers: int = 0,
        splits: DataSplitConfig | Mapping[str, Any] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            train=train,
            val=val,
            test=test,
            splits=splits,
            batch_size=batch_size,
            num_workers=num_workers,
            annotation_json_path=None,
            processing_mode=processing_mode,
            cache_dir=cache_dir,
        )
        self._path = Path(directory)
        self._recursive = recursive

    def _sources(self) -> tuple[list[Path], Path]:
        found = _recordings_in(self._path, recursive=self._recursive)
        if not found:
            raise ConfigError(
                f"the folder holds no {_SUFFIX} files.",
                path=str(self._path),
                hint="Name another folder, or look below it too (recursive=True).",
            )
        return found, self._path

    def _terms(self, terms: str | Sequence[str]) -> Sequence[str]:
        given = [terms] if isinstance(terms, str) else list(terms)
        gone = [name for name in self.archive if name not in set(self.session_names)]
        return [*given, *(f"!{name}" for name in gone)]


def _texts(numbers: tuple[int, ...] | None) -> list[str] | None:
    return None if numbers is None else [str(number) for number in numbers]


def _recordings_in(folder: Path, *, recursive: bool) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError("there is no such folder.", path=str(folder), hint="Check the path.")
    below = folder.rglob("*") if recursive else folder.iterdir()
    found = [path for path in below if path.suffix.lower() == _SUFFIX and path.is_file()]
    return sorted(found, key=lambda path: natural_key(str(path)))
