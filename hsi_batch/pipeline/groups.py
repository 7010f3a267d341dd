"""One fitted state per background: per session, per sensor, or per value of an attribute."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.errors import (
    ConfigError,
    HsiBatchWarning,
    NotFittedError,
    PipelineError,
    did_you_mean,
)
from hsi_batch.pipeline.buffers import set_buffers
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.reference import Reference
from hsi_batch.wording import counted, some

if TYPE_CHECKING:
    from hsi_batch.pipeline.fitted_graph import FittedGraph

__all__ = [
    "ARCHIVE",
    "POOLED",
    "GroupState",
    "Groups",
    "attributes",
    "check_background",
    "group_of",
    "one_background",
]

G = TypeVar("G", bound="FittedGraph")

#: What people type for one background of everything.
ARCHIVE = "archive"
#: Stands for that background where groups are named; no group has an empty name.
POOLED = ""
_ATTRIBUTE = "attr:"
_OF_ALL = ("digest", "sources", "inputs", "left_out", "groups", "fallback")
#: Columns of the catalog that have another name among the attributes.
_COLUMNS = {"mode": "processing_mode"}


def check_background(background: str, fallback: str | None = None) -> None:
    """Refuse what names no background.

    Raises
    ------
    hsi_batch.errors.ConfigError
        An unknown word, ``attr:`` without a name, or a fallback without groups.
    """
    named = background.removeprefix(_ATTRIBUTE)
    known = background in (ARCHIVE, "session", "sensor")
    if not known and (named == background or not named.strip()):
        raise ConfigError(
            f"background {background!r} is not one of archive, session, sensor, attr:NAME."
            f"{did_you_mean(background, (ARCHIVE, 'session', 'sensor'))}",
            hint="Write for example attr:day for the attribute `day` of the sessions.",
        )
    if fallback is not None and background == ARCHIVE:
        raise ConfigError(
            f"a fallback ({fallback!r}) stands in for backgrounds that the fit has not seen; with"
            " background 'archive' there is only one.",
            hint="Leave the fallback out, or name a background: session, sensor or attr:NAME.",
        )
    if fallback is not None and not fallback.strip():
        raise ConfigError("the fallback is empty.", hint="Write archive, or the name of a group.")


def one_background(background: str, fallback: str | None) -> None:
    """Refuse, or warn, where backgrounds are to be written for cuvis-ai, which knows only one.

    Raises
    ------
    hsi_batch.errors.PipelineError
        There is none of all pixels.
    """
    if background == ARCHIVE:
        return
    if fallback != ARCHIVE:
        raise PipelineError(
            f"cuvis-ai knows one background, and this pipeline has one per {background}.",
            hint="Fit it with --fallback archive, which it then uses for everything, or save the"
            " pipeline of one group: pipeline.for_group(name).save(path, 'cuvis-ai').",
        )
    warnings.warn(
        f"cuvis-ai knows one background: there, that of all pixels serves for every {background}.",
        HsiBatchWarning,
        stacklevel=3,
    )


def _plain(value: Any) -> str | None:
    """The text of a single value; None for nothing, and for what is no single value."""
    if isinstance(value, (str, int, float)) and value == value:  # noqa: PLR0124
        return str(value) or None
    return None


def group_of(background: str, session: str, attrs: Mapping[str, Any]) -> str | None:
    """The group that a session belongs to; None if it lacks the attribute.

    An attribute is that of the session's group in the archive, also by its name in the catalog;
    ``a.b`` is the entry ``b`` of the attribute ``a``.

    Examples
    --------
    >>> group_of("attr:metadata.day", "s1", {"metadata": {"day": 3}})
    '3'
    """
    if background == "session":
        return session
    name = background.removeprefix(_ATTRIBUTE)
    value: Any = attrs.get(name, attrs.get(_COLUMNS.get(name, name)))
    if value is None and "." in name:
        value = attrs
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return _plain(value)


def attributes(attrs: Mapping[str, Any]) -> list[str]:
    """Names of the attributes that can tell groups apart, those of the source's metadata too."""
    found = [key for key, value in attrs.items() if _plain(value) is not None]
    inner = attrs.get("metadata")
    if isinstance(inner, Mapping):
        found += [f"metadata.{name}" for name, value in inner.items() if _plain(value) is not None]
    return found


@dataclass(frozen=True)
class GroupState:
    """What a fit sets, of one group.

    Attributes
    ----------
    buffers : mapping
        ``{node: {name: array}}``, as ``state_dict`` holds them.
    state : mapping
        The same of the float64 state.
    digest : mapping
        Of the buffers that a state belongs to, by node.
    hparams : mapping
        Arguments that the fit set, by node.
    precision : mapping
        By node.
    reference : Reference, optional
    provenance : mapping
        ``session_names``, ``sessions``, ``frames``, ``pixel_count``.
    """

    buffers: Mapping[str, Mapping[str, NDArray[Any]]]
    state: Mapping[str, Mapping[str, NDArray[Any]]]
    digest: Mapping[str, str]
    hparams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    precision: Mapping[str, Precision] = field(default_factory=dict)
    reference: Reference | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, pipeline: FittedGraph, nodes: Iterable[str], unfitted: FittedGraph) -> Self:
        """What a fit of ``nodes`` has set in a pipeline that was ``unfitted`` before."""
        buffers, state, digest, hparams = {}, {}, {}, {}
        for name in nodes:
            node = pipeline.nodes[name]
            buffers[name] = {k: v.detach().cpu().numpy() for k, v in node.state_dict().items()}
            exact = node.exact_state()
            if exact is not None:
                state[name] = dict(exact)
                digest[name] = node.buffer_digest()
            before = unfitted.nodes[name].hparams
            # Those of the fit are kept even where an earlier one gave the same: that of all pixels
            # may have given another.
            changed = {
                k: v
                for k, v in node.hparams.items()
                if k in node.FITTED_ARGUMENTS or not _same(v, before.get(k))
            }
            if changed:
                hparams[name] = changed
        return cls(
            buffers,
            state,
            digest,
            hparams,
            dict(pipeline.precision),
            pipeline.reference,
            dict(pipeline.provenance),
        )

    def put_into(self, pipeline: FittedGraph) -> None:
        """Make a pipeline one that was fitted to the group."""
        for name, buffers in self.buffers.items():
            node = pipeline.nodes.get(name)
            if node is None:
                raise ConfigError(
                    f"the weights are of another pipeline: the node {name!r} is not in"
                    f" {pipeline.name!r}.",
                    hint="Load the weights that were saved with this YAML.",
                )
            node.hparams.update(self.hparams.get(name, {}))
            set_buffers(node, {k: torch.from_numpy(np.array(v)) for k, v in buffers.items()})
            node.mark_fitted(True)
            node.state = {}
            if name in self.state and self.digest.get(name) == node.buffer_digest():
                node.restore_state(self.state[name])
        pipeline.precision = dict(self.precision)
        pipeline.reference = self.reference


def _same(a: Any, b: Any) -> bool:
    return a is b or bool(np.array_equal(a, b)) if type(a) is type(b) else False


@dataclass(frozen=True)
class Groups:
    """The backgrounds of a pipeline.

    Attributes
    ----------
    by : str
        ``session``, ``sensor`` or ``attr:NAME``.
    states : mapping
        State of each group, by its name.
    fallback : str, optional
        What a session of another group gets: ``archive``, the state of all pixels, which the nodes
        of the pipeline then hold; or the name of a group. None: that is an error.
    """

    by: str
    states: Mapping[str, GroupState]
    fallback: str | None = None

    def __deepcopy__(self, memo: object) -> Self:
        # Nothing in here is changed, and it may be large.
        return self

    def __str__(self) -> str:
        base = "" if self.fallback is None else f", fallback {self.fallback}"
        return f"{counted(len(self.states), 'background')}, one per {self.by}{base}"

    @property
    def nodes(self) -> frozenset[str]:
        """Names of the nodes whose state differs from group to group."""
        return frozenset().union(*(state.buffers for state in list(self.states.values())[:1]))

    def find(self, group: str) -> str | None:
        """The group whose state serves: its own, the fallback (``""`` for all), or None."""
        if group in self.states:
            return group
        return POOLED if self.fallback == ARCHIVE else self.fallback

    def unseen(self, who: str, groups: Iterable[str]) -> ConfigError:
        """The error for groups that have no state, and sessions that are of them."""
        named = sorted(set(groups))
        near = did_you_mean(named[0], self.states) if len(named) == 1 else ""
        return ConfigError(
            f"{who}: the pipeline was fitted with one background per {self.by}, and has none for"
            f" {some(named)}; it has {some(list(self.states))}.{near}",
            hint="Fit it on these sessions too, or name what stands in for an unknown background"
            " as it is fitted: --fallback archive (all pixels of the fit), or a group.",
        )

    def take(self, pipeline: G, group: str) -> G:
        """A pipeline of its own with the state of a group; ``""`` is that of all pixels."""
        # What names the whole fit stays behind.
        short = {k: v for k, v in pipeline.provenance.items() if k not in _OF_ALL}
        made = copy.deepcopy(pipeline, {id(pipeline.provenance): short})
        made.groups = None
        if group == POOLED:
            if not made.fitted:
                raise NotFittedError(
                    f"the pipeline {pipeline.name!r} holds one background per {self.by}, and none"
                    " of all pixels.",
                    hint="Name a group, or fit it with the fallback 'archive'.",
                )
            return made
        if group not in self.states:
            raise PipelineError(
                f"the pipeline {pipeline.name!r} has no background {group!r}."
                f"{did_you_mean(group, self.states)}",
                hint=f"It has {some(list(self.states))}.",
            )
        state = self.states[group]
        state.put_into(made)
        made.provenance = {**made.provenance, **state.provenance, "group": group}
        return made
