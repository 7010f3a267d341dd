"""Data modules: which frames of which recordings a pipeline is fitted, validated and tested on."""

from hsi_batch.data.archive import ArchiveDataModule
from hsi_batch.data.batches import Batches
from hsi_batch.data.cache import cache_folder
from hsi_batch.data.config import DataConfig
from hsi_batch.data.module import DataModule
from hsi_batch.data.recordings import MultiCu3sDataModule, SingleCu3sDataModule
from hsi_batch.data.splits import DataSplitConfig

__all__ = [
    "ArchiveDataModule",
    "Batches",
    "DataConfig",
    "DataModule",
    "DataSplitConfig",
    "MultiCu3sDataModule",
    "SingleCu3sDataModule",
    "cache_folder",
]
