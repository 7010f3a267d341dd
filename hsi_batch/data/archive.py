"""The data module of an archive."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hsi_batch.archive.archive import Archive
from hsi_batch.data.module import DataModule
from hsi_batch.data.splits import DataSplitConfig

__all__ = ["ArchiveDataModule"]


class ArchiveDataModule(DataModule):
    """Frames of an archive that is there.

    Parameters
    ----------
    archive : Archive or path
        Where frames are read from.
    train, val, test : str or sequence of str, optional
        Selections, such as ``"glob:train_*"`` or ``["a[0:10]", "b"]``; see :class:`DataModule` for
        what is left out.
    splits, batch_size, num_workers
        As for :class:`DataModule`.

    Examples
    --------
    >>> module = ArchiveDataModule("archive.zarr", train="glob:lentils_0*", val="lentils_10")
    >>> module.frames("train")
    'glob:lentils_0*'
    """

    def __init__(
        self,
        archive: Archive | str | os.PathLike[str],
        train: str | Sequence[str] | None = None,
        val: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        *,
        splits: DataSplitConfig | Mapping[str, Any] | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            train, val, test, splits=splits, batch_size=batch_size, num_workers=num_workers
        )
        self._place = archive

    def _open(self) -> Archive:
        return self._place if isinstance(self._place, Archive) else Archive(self._place)
