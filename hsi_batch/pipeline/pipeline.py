"""The pipeline: a graph with weights, files and lazy application."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from hsi_batch.documents import Document, read_yaml
from hsi_batch.errors import HsiBatchWarning, PipelineError
from hsi_batch.files import write_atomically
from hsi_batch.nodes import PortRef
from hsi_batch.nodes.trust import from_the_driver, plugins_allowed
from hsi_batch.pipeline.build import build
from hsi_batch.pipeline.config import PipelineMetadata
from hsi_batch.pipeline.fitted_graph import FittedGraph
from hsi_batch.pipeline.groups import one_background
from hsi_batch.pipeline.reference import fit_tags
from hsi_batch.pipeline.vouching import check_pair, names_weights, vouched
from hsi_batch.pipeline.weights import dump_weights, load_weights
from hsi_batch.pipeline.written import (
    Dialect,
    arguments,
    class_path,
    for_cuvis_ai,
    plugins_of,
    refuse_what_is_not_in,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CuvisPipeline", "Pipeline"]

#: Ten times as fast, where libyaml is there: a thousand backgrounds are packed one by one.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Pipeline(FittedGraph):
    """A graph of nodes with its fitted state, which it shares with files and applies lazily.

    Its attributes are those of :class:`.FittedGraph`.

    Parameters
    ----------
    name : str
        Name of the pipeline.

    Examples
    --------
    >>> from hsi_batch.nodes import CU3SDataNode, RXGlobal
    >>> pipeline = Pipeline("demo")
    >>> data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    >>> pipeline.connect((data.outputs.cube, rx.data))
    >>> pipeline.nodes["rx"] is rx, pipeline.fitted
    (True, False)
    """

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], *, plugins: Iterable[str] = ()) -> Self:
        """Read a pipeline file; weights beside it (same stem, ``.pt``) are loaded if they exist.

        Parameters
        ----------
        path : path
            A pipeline, bare or fitted.
        plugins : iterable of str
            Packages whose node classes the file may import; what it lists itself is not enough.

        Raises
        ------
        hsi_batch.errors.ConfigError
            All mistakes of the file at once, with lines.
        """
        return cls.load_from_file(path, plugins=plugins)

    @classmethod
    def load_from_file(
        cls,
        config_path: str | os.PathLike[str],
        weights_path: str | os.PathLike[str] | None = None,
        device: str | None = None,
        *,
        plugins: Iterable[str] = (),
    ) -> Self:
        """Read a pipeline file and its weights.

        Parameters
        ----------
        config_path : path
            The YAML.
        weights_path : path, optional
            The ``.pt``; by default the file of the same stem, if it exists.
        device : str, optional
            Torch device for the buffers.
        plugins : iterable of str
            As for :meth:`from_yaml`.
        """
        with plugins_allowed(plugins):
            pipeline = cls.from_document(read_yaml(config_path, collect=True))
        beside = Path(config_path).with_suffix(".pt")
        weights = Path(weights_path or beside)
        if weights_path is not None or weights.exists():
            pipeline.load_weights(weights, config_path if weights == beside else None)
        elif names_weights(config_path):
            warnings.warn(
                f"{config_path}: the weights that this file was written with ({weights.name}) are"
                " not beside it; its nodes are as new.",
                HsiBatchWarning,
                stacklevel=3,
            )
        return pipeline if device is None else pipeline.to(device)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Build the pipeline that a parsed file describes, without weights."""
        pipeline = cls()
        config = build(document, pipeline)
        if config.metadata is not None:
            pipeline.metadata = config.metadata
        pipeline.metadata.name = pipeline.name
        return pipeline

    def serialize(self, dialect: Dialect = "hsi-batch") -> dict[str, Any]:
        """The contents of the YAML: nodes, connections and metadata as plain values.

        Parameters
        ----------
        dialect : {"hsi-batch", "cuvis-ai"}
            Ours, or what cuvis-ai 0.19.3 reads; see :meth:`save_to_file`.
        """
        refuse_what_is_not_in(dialect, self)
        if dialect == "cuvis-ai":
            return for_cuvis_ai(self)
        classes = {name: class_path(node) for name, node in self.nodes.items()}
        plugins = plugins_of(classes.values(), self.plugins)
        return {
            **({"plugins": plugins} if plugins else {}),
            "nodes": [
                {
                    "name": name,
                    "class_name": classes[name],
                    "hparams": arguments(node),
                }
                for name, node in self.nodes.items()
            ],
            "connections": [
                {
                    "source": f"{edge.source.node}.outputs.{edge.source.port}",
                    "target": f"{edge.target.node}.inputs.{edge.target.port}",
                }
                for edge in self.edges
            ],
            "metadata": self.metadata.model_dump(),
        }

    def save(self, path: str | os.PathLike[str], dialect: Dialect = "hsi-batch") -> Path:
        """Write ``path`` (YAML) and the weights beside it (``.pt``); returns the YAML's path.

        ``dialect="cuvis-ai"`` writes what cuvis-ai 0.19.3 loads; see :meth:`save_to_file`.
        """
        return self.save_to_file(path, dialect=dialect)

    def save_to_file(
        self,
        path: str | os.PathLike[str],
        metadata: PipelineMetadata | Mapping[str, Any] | None = None,
        dialect: Dialect = "hsi-batch",
    ) -> Path:
        """Write the YAML and the weights beside it.

        A fitted pipeline is saved with the number of channels it was fitted on. Weights are written
        before the YAML, both whole or not at all. The weights are the same in both dialects:
        cuvis-ai reads the buffers and passes over our own part of the file.

        Parameters
        ----------
        path : path
            The YAML to write; its weights go beside it, as ``.pt``.
        metadata : PipelineMetadata or mapping, optional
            Wins over what the pipeline has.
        dialect : {"hsi-batch", "cuvis-ai"}
            Ours, or what ``CuvisPipeline.load_pipeline`` of cuvis-ai 0.19.3 accepts: full class
            paths, only arguments that it knows (a warning names the others), its port table.

        Raises
        ------
        hsi_batch.errors.PipelineError
            In the dialect of cuvis-ai: nodes, ports or arguments that it does not have.
        """
        target = Path(path)
        if target.suffix.lower() not in (".yaml", ".yml"):
            target = target.with_name(target.name + ".yaml")
        if metadata is not None:
            given = (
                metadata if isinstance(metadata, PipelineMetadata) else PipelineMetadata(**metadata)
            )
            self.metadata = given
        if dialect == "cuvis-ai" and self.groups is not None:
            one_background(self.groups.by, self.groups.fallback)
        self.metadata.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.metadata.tags = fit_tags(self.metadata.tags, self.provenance if self.fitted else {})
        if self.fitted:
            for node in self.nodes.values():
                if node.CHANNEL_ARGUMENT is not None:
                    node.hparams[node.CHANNEL_ARGUMENT] = getattr(node, node.CHANNEL_ARGUMENT)
        content = self.serialize(dialect)
        text, weights = vouched(
            yaml.safe_dump(content, sort_keys=False, width=100),
            target.stem,
            lambda digest: dump_weights(self, content["metadata"], digest),
        )
        write_atomically(target.with_suffix(".pt"), weights)
        write_atomically(target, text)
        return target

    def load_weights(
        self, path: str | os.PathLike[str], beside: str | os.PathLike[str] | None = None
    ) -> None:
        """Set buffers and fitted state from a ``.pt`` file of this pipeline.

        Parameters
        ----------
        path : path
            The ``.pt``.
        beside : path, optional
            The YAML that was written with it; both must vouch for each other then.

        Raises
        ------
        hsi_batch.errors.ConfigError
            Weights that are damaged, of another pipeline, or not those of the YAML.
        """
        digest = load_weights(self, path)
        if beside is not None:
            check_pair(beside, path, digest)

    def to_bytes(self) -> tuple[str, bytes]:
        """YAML text and weights, for a worker."""
        content = self.serialize()
        text: str = yaml.dump(content, Dumper=_DUMPER, sort_keys=False)
        return text, dump_weights(self, content["metadata"])

    @classmethod
    def from_bytes(cls, text: str, weights: bytes) -> Self:
        """Inverse of :meth:`to_bytes`."""
        with warnings.catch_warnings(), from_the_driver():
            warnings.simplefilter("ignore", UserWarning)
            pipeline = cls.from_document(read_yaml("pipeline", text=text))
            load_weights(pipeline, weights)
        return pipeline

    def apply(
        self,
        cube: xr.DataArray,
        outputs: str | Sequence[str] = "scores",
        *,
        valid: xr.DataArray | None = None,
        group: str | None = None,
    ) -> xr.DataArray | xr.Dataset:
        """Apply the fitted pipeline lazily; see :func:`hsi_batch.pipeline.lazy.apply`."""
        from hsi_batch.pipeline.lazy import apply

        return apply(self, cube, outputs, valid=valid, group=group)

    def forward(self, *arguments: Any, **options: Any) -> dict[PortRef, Any]:
        """Run the graph on a batch in memory; see :meth:`.Graph.forward`.

        Raises
        ------
        hsi_batch.errors.PipelineError
            The pipeline holds several backgrounds, and a batch does not say of which it is.
        """
        if self.groups is not None:
            raise PipelineError(
                f"the pipeline {self.name!r} holds one background per {self.groups.by}; a batch"
                " does not say of which it is.",
                hint="Take one: pipeline.for_group(name).forward(batch=...).",
            )
        return super().forward(*arguments, **options)

    def __repr__(self) -> str:
        text = super().__repr__()
        said = [str(self.groups)] if self.groups is not None else []
        said += [t for t in fit_tags((), self.provenance) if t.startswith("fitted-on: ")]
        return "\n  ".join([text, *said])

    def _repr_html_(self) -> str:
        from hsi_batch.pipeline.card import pipeline_card

        return pipeline_card(self)


class CuvisPipeline(Pipeline):
    """A pipeline under the name of the cuvis-ai family, and as lenient as its files are.

    A declared number of channels that disagrees with the data is corrected with a warning, where a
    :class:`Pipeline` made in Python refuses it.

    Parameters
    ----------
    name : str
        Of the pipeline, as in its metadata.
    lenient : bool
        False refuses what a :class:`Pipeline` refuses.

    Examples
    --------
    >>> from hsi_batch.nodes import MinMaxNormalizer
    >>> pipeline = CuvisPipeline("scaled")
    >>> pipeline.add_node(MinMaxNormalizer(name="scaling")).name, list(pipeline.nodes)
    ('scaling', ['scaling'])
    """

    def __init__(self, name: str = "Pipeline", *, lenient: bool = True) -> None:
        super().__init__(name, lenient=lenient)
