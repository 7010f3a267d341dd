"""Nodes of other kinds than the library's."""

from graph_helpers import extra_nodes  # noqa: F401
