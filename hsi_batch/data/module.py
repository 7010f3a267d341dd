"""The base of the data modules."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Selection
from hsi_batch.data.batches import Batches
from hsi_batch.data.splits import DataSplitConfig, resolve_splits
from hsi_batch.errors import ConfigError, DataWarning

if TYPE_CHECKING:
    from hsi_batch.stages.convert import ConvertResult

__all__ = ["DataModule", "Split"]

#: What frames are for.
Split = Literal["train", "val", "test", "predict"]
#: Names that the stages of a run have elsewhere.
_STAGES: Mapping[str | None, tuple[Split, ...]] = {
    "fit": ("train",),
    "train": ("train",),
    "validate": ("val",),
    "val": ("val",),
    "test": ("test",),
    "predict": ("predict",),
    None: ("predict",),
}


class DataModule(ABC):
    """Frames of an archive, divided into train, val and test.

    If none of the three is given, each is everything. If any is given, one that is not given is
    empty. ``predict`` is everything.

    Parameters
    ----------
    train, val, test : str or sequence of str, optional
        Selections of frames.
    splits : DataSplitConfig or mapping, optional
        The same by the selectors of the cuvis-ai family, instead of ``train``, ``val``, ``test``.
    batch_size : int
        Frames per batch, for those who loop over batches. Fits and scores go by blocks.
    num_workers : int
        Threads that read the batches of a training; 2 where it is 0.

    Raises
    ------
    hsi_batch.errors.ConfigError
        ``splits`` and selections are given, or ``batch_size`` is below 1.

    Examples
    --------
    >>> from hsi_batch.data import ArchiveDataModule
    >>> module = ArchiveDataModule("archive.zarr", train="scene_000", val="scene_001")
    >>> [batch["stem"] for batch in module.train_dataloader()]
    [['scene_000']]
    """

    def __init__(
        self,
        train: str | Sequence[str] | None = None,
        val: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        *,
        splits: DataSplitConfig | Mapping[str, Any] | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        self._given: dict[str, str | Sequence[str] | None] = {
            "train": train,
            "val": val,
            "test": test,
        }
        self.splits = None if splits is None else DataSplitConfig.of(splits)
        if self.splits is not None and any(v is not None for v in self._given.values()):
            raise ConfigError("`splits` and lists of frames are given; give one of them.")
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size} must be at least 1.")
        self.batch_size = int(batch_size)
        self.num_workers = num_workers

    @abstractmethod
    def _open(self) -> Archive:
        """The archive, made if needed."""

    @cached_property
    def archive(self) -> Archive:
        """The archive; recordings are converted on first use."""
        return self._open()

    def conversion(self) -> ConvertResult | None:
        """What is to be converted before the frames are known, planned; None if nothing is."""
        return None

    def setup(self, stage: str | None = None) -> None:
        """Convert recordings that were not converted yet, and check the frames of a stage.

        Parameters
        ----------
        stage : {"fit", "validate", "test", "predict"}, optional
            What batches are wanted for.
        """
        if stage not in _STAGES:
            known = ", ".join(str(name) for name in _STAGES if name)
            raise ConfigError(f"stage {stage!r} is not one of {known}.")
        for split in _STAGES[stage]:
            self.selection(split)

    # -- frames --------------------------------------------------------------------------------

    @property
    def undivided(self) -> bool:
        """Whether train, val and test are all the same frames, because nothing was said."""
        return self.splits is None and all(v is None for v in self._given.values())

    def frames(self, split: Split) -> str | Sequence[str] | None:
        """The selection of a split as the stages take it; None for everything.

        Raises
        ------
        hsi_batch.errors.ConfigError
            The split is empty.
        """
        if split == "predict":
            return self._everything()
        if self.undivided:
            return self._everything()
        chosen: str | Sequence[str] | None
        if self.splits is not None:
            chosen = self._resolved[split]
        else:
            terms = self._given[split]
            chosen = None if terms is None else self._terms(terms)
        if not chosen:
            raise ConfigError(
                f"the data module has no frames for {split}.",
                hint=f"Give it some ({self._argument(split)}=...).",
            )
        return chosen

    def has(self, split: Split) -> bool:
        """Whether a split has frames."""
        if split == "predict" or self.undivided:
            return True
        chosen = self._resolved[split] if self.splits is not None else self._given[split]
        return bool(chosen)

    def selection(self, split: Split) -> Selection:
        """The frames of a split."""
        found = self.archive.select(self.frames(split))
        self._warn_of_failed(found)
        return found

    def _everything(self) -> str | Sequence[str] | None:
        return None

    def _terms(self, terms: str | Sequence[str]) -> str | Sequence[str]:
        return terms

    def _argument(self, split: str) -> str:
        return split

    @cached_property
    def _resolved(self) -> Mapping[str, list[str]]:
        assert self.splits is not None
        return resolve_splits(self.splits, self.archive, self.archive.select(self._everything()))

    @cached_property
    def _warned(self) -> set[str]:
        return set()

    def _warn_of_failed(self, selection: Selection) -> None:
        for name in selection.sessions:
            failed = self.archive.session(name).failed_frames
            if failed and name not in self._warned:
                self._warned.add(name)
                first = min(failed)
                warnings.warn(
                    f"frames {sorted(failed)} of session {name} could not be converted and are"
                    f" left out; frame {first}: {failed[first]}",
                    DataWarning,
                    stacklevel=4,
                )

    # -- batches -------------------------------------------------------------------------------

    def train_dataloader(self) -> Batches:
        """Batches of the train frames."""
        return self._batches("train")

    def val_dataloader(self) -> Batches:
        """Batches of the val frames."""
        return self._batches("val")

    def test_dataloader(self) -> Batches:
        """Batches of the test frames."""
        return self._batches("test")

    def predict_dataloader(self) -> Batches:
        """Batches of all frames."""
        return self._batches("predict")

    def _batches(self, split: Split) -> Batches:
        return Batches(self.archive, self.selection(split), self.batch_size)
