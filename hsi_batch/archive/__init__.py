"""The Zarr store: layout, sessions, selections, and the run state beside it."""

from hsi_batch.archive.archive import Archive, open_archive
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.session import Session

__all__ = ["Archive", "BlockKey", "Geometry", "Session", "open_archive"]
