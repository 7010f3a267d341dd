"""Fixtures that many tests share."""

from simulated_cuvis.plugin import library_fixture, simulated_cuvis_fixture  # noqa: F401
