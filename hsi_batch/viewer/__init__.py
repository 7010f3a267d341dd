"""A small browser of archive and scores, on this machine only."""

from hsi_batch.viewer.content import Content
from hsi_batch.viewer.server import Viewer, view

__all__ = ["Content", "Viewer", "view"]
