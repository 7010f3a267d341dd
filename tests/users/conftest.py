"""The commands."""

from commands import cluster_file_fixture, hsi_fixture  # noqa: F401
