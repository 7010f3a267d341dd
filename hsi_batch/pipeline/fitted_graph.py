"""A graph with what a fit left: the state of its nodes, backgrounds, precision, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from torch import nn

from hsi_batch.errors import ConfigError, PipelineError, did_you_mean
from hsi_batch.nodes import Node
from hsi_batch.pipeline.config import PipelineMetadata
from hsi_batch.pipeline.graph import Graph
from hsi_batch.pipeline.groups import POOLED, Groups, group_of
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.reference import Reference

__all__ = ["FittedGraph"]


class FittedGraph(Graph):
    """A graph of nodes and the state that a fit gives them.

    Parameters
    ----------
    name : str

    Attributes
    ----------
    precision : dict
        Arithmetic of each quadratic score, chosen by the fit.
    provenance : dict
        What the pipeline was fitted on, when and with which software.
    reference : Reference, optional
        Count, mean and covariance of the pixels of the fit, as recorded; None if the fit did not
        have them.
    groups : Groups, optional
        One state per background, if it was fitted so; :meth:`for_group` gives the pipeline of one.
        The nodes themselves then hold the state of all pixels, if the fallback is ``archive``, and
        are not fitted otherwise.
    """

    def __init__(self, name: str = "Pipeline", *, lenient: bool = False) -> None:
        super().__init__(name, lenient=lenient)
        self.metadata = PipelineMetadata(name=name)
        self.precision: dict[str, Precision] = {}
        self.provenance: dict[str, Any] = {}
        self.reference: Reference | None = None
        self.groups: Groups | None = None

    @property
    def fitted(self) -> bool:
        """Whether every node is ready to run, if need be with the state of a group."""
        grouped = frozenset() if self.groups is None else self.groups.nodes
        return all(node.fitted or name in grouped for name, node in self.nodes.items())

    def for_group(self, group: str) -> Self:
        """The pipeline with the state of one background; it holds no others.

        Raises
        ------
        hsi_batch.errors.PipelineError
            There is no such group, or there are none.
        """
        return self._need_groups().take(self, group)

    def pooled(self) -> Self:
        """The pipeline with the state of all pixels of a fit with the fallback ``archive``."""
        return self._need_groups().take(self, POOLED)

    def for_session(self, session: str, attrs: Mapping[str, Any] | None = None) -> Self:
        """The pipeline with the state that a session is scored with.

        Parameters
        ----------
        session : str
            Its name.
        attrs : mapping, optional
            Attributes of its group in the archive.

        Raises
        ------
        hsi_batch.errors.ConfigError
            It lacks the attribute, or its background is not known and no fallback was named.
        """
        groups = self._need_groups()
        group = group_of(groups.by, session, attrs or {})
        if group is None:
            raise ConfigError(
                f"the pipeline has one background per {groups.by}, which the session {session} does"
                " not state.",
                hint="Name the group: pipeline.for_group(name).",
            )
        found = groups.find(group)
        if found is None:
            raise groups.unseen(f"session {session}", [group])
        return groups.take(self, found)

    def _need_groups(self) -> Groups:
        if self.groups is None:
            raise PipelineError(
                f"the pipeline {self.name!r} has one background for everything.",
                hint="Fit it with a background per session, sensor or attr:NAME to have more.",
            )
        return self.groups

    def in_words(self) -> dict[str, str]:
        """What the fit has settled that people want to read, by node: thresholds.

        Of several backgrounds, that of the first.
        """
        if self.groups is not None and self.groups.states:
            first, *others = self.groups.states
            which = f" (background {first}; each of {len(others)} more has its own)"
            words = self.for_group(first).in_words()
            return {name: text + which * bool(others) for name, text in words.items()}
        said = {name: node.in_words() for name, node in self.nodes.items()}
        return {name: text for name, text in said.items() if text}

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters; those of nodes that are not frozen have ``requires_grad``."""
        for node in self.nodes.values():
            yield from node.parameters()

    def unfreeze_nodes_by_name(self, names: Iterable[str]) -> None:
        """Let a gradient stage train these nodes.

        Raises
        ------
        hsi_batch.errors.PipelineError
            A name that no node has; then none is changed.
        """
        for node in self._named(names):
            node.unfreeze()

    def freeze_nodes_by_name(self, names: Iterable[str]) -> None:
        """Undo :meth:`unfreeze_nodes_by_name`."""
        for node in self._named(names):
            node.freeze()

    def _named(self, names: Iterable[str]) -> list[Node]:
        wanted = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in wanted if name not in self.nodes]
        if unknown:
            raise PipelineError(
                f"the pipeline has no node {unknown[0]!r}.{did_you_mean(unknown[0], self.nodes)}",
                hint=f"It has {', '.join(self.nodes) or 'none'}.",
            )
        return [self.nodes[name] for name in wanted]

    def to(self, device: str) -> Self:
        """Move all parameters and buffers to a torch device."""
        for node in self.nodes.values():
            node.to(device)
        return self
