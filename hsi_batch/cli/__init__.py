"""The command line: ``hsi-batch COMMAND``."""

from hsi_batch.cli.main import main

__all__ = ["main"]
