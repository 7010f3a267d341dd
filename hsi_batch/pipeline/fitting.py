"""Planning a statistical fit and turning statistics into fitted nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import DataError, PlanError
from hsi_batch.nodes import Node, PortRef, Scope
from hsi_batch.nodes.gaussian import single_thread
from hsi_batch.pipeline.buffers import set_buffers
from hsi_batch.pipeline.evaluate import Evaluator
from hsi_batch.pipeline.fold import CUBE, fold, need_of, root_of
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.passes import marks_of
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.precision import choose
from hsi_batch.pipeline.program import compile_program, frame_nodes
from hsi_batch.pipeline.quadratic import QuadraticMap
from hsi_batch.pipeline.schedule import Job, schedule
from hsi_batch.pipeline.stream import is_streamed
from hsi_batch.statistics import Measure, Moments
from hsi_batch.wording import counted

__all__ = ["FitPlan", "Fitting", "PlannedNode", "PlannedStream", "plan_fit"]


@dataclass(frozen=True)
class PlannedNode:
    """How one node gets one of its statistics.

    Attributes
    ----------
    name : str
    need : Need
        The statistic it comes down to.
    via : tuple of str
        Affine nodes the statistic is carried through without reading.
    reading : int
        The pass that takes it; 0 if stored statistics give it.
    last : int
        The pass after which the node is fitted at the latest.
    """

    name: str
    need: Need
    via: tuple[str, ...]
    reading: int
    last: int


class PlannedStream(NamedTuple):
    """A node that is given the frames one after the other, in a pass of its own.

    Attributes
    ----------
    name : str
    reading : int
        The pass.
    """

    name: str
    reading: int


@dataclass(frozen=True)
class FitPlan:
    """What a fit will read.

    Attributes
    ----------
    nodes : tuple of PlannedNode
        In the order in which they are fitted; a node that needs several statistics is there more
        than once.
    streams : tuple of PlannedStream
    """

    nodes: tuple[PlannedNode, ...]
    streams: tuple[PlannedStream, ...] = ()

    @property
    def passes(self) -> int:
        """Readings of the pixels, at most."""
        last = [node.last for node in self.nodes] + [stream.reading for stream in self.streams]
        return max(last, default=0)

    def __str__(self) -> str:
        if not self.nodes and not self.streams:
            return "nothing to fit"
        repeats = any(node.last > max(node.reading, 1) for node in self.nodes)
        lines = [f"{'up to ' * repeats}{counted(self.passes, 'pass')} over the pixels"]
        for node in self.nodes:
            where = f"pass {node.reading}" if node.reading else "stored statistics"
            way = f", carried through {', '.join(node.via)}" if node.via else ""
            lines.append(f"  {node.name}: {node.need} from {where}{way}")
        lines.extend(
            f"  {name}: an ordered stream of frames on one worker, pass {reading}"
            for name, reading in self.streams
        )
        return "\n".join(lines)


def statistical_nodes(pipeline: Pipeline) -> list[str]:
    """Names of the nodes a statistical fit sets, in order."""
    return [n for n in pipeline.order() if pipeline.nodes[n].requires_initial_fit]


def plan_fit(pipeline: Pipeline, stored: Iterable[str | Measure] = ()) -> FitPlan:
    """Find the fewest passes that fit a pipeline.

    Parameters
    ----------
    pipeline : Pipeline
    stored : iterable of str or Measure
        Kinds of statistics of the cube that the archive holds for the pixels in question.

    Raises
    ------
    hsi_batch.errors.PlanError
        The graph holds a node of sequence scope, which needs its frames in order.
    hsi_batch.errors.PipelineError
        The graph has no data node, or an input that nothing feeds.
    """
    pipeline.verify()
    for name, scope in pipeline.scopes():
        if scope is Scope.SEQUENCE:
            raise PlanError(
                f"{name} ({type(pipeline.nodes[name]).__name__}) keeps state from frame to frame"
                " (scope sequence), so its frames cannot be shared out among workers.",
                hint="Freeze it, or remove it from the pipeline.",
            )
    # What is stored counts other pixels than those that the graph marks as valid.
    held: frozenset[str | Measure] = frozenset() if _marks(pipeline) else frozenset(stored)
    asked: dict[str, list[tuple[Need, tuple[str, ...]]]] = {}
    jobs: list[Job] = []
    for name in statistical_nodes(pipeline):
        node = pipeline.nodes[name]
        if is_streamed(node):
            jobs.append(Job(name, (frozenset(pipeline.ancestors(name)),), alone=True))
            continue
        node.begin_fit()
        asked[name] = _needs(pipeline, name)
        waits = [
            None if _is_held(need, held) else frozenset(_before(pipeline, need))
            for need, _ in asked[name]
        ]
        jobs.append(Job(name, tuple(waits), node.most_passes - 1))
    passes = schedule(jobs)
    return FitPlan(
        tuple(
            PlannedNode(name, need, via, reading, passes[name][1])
            for name, needs in asked.items()
            for (need, via), reading in zip(needs, passes[name][0], strict=True)
        ),
        tuple(PlannedStream(job.name, passes[job.name][1]) for job in jobs if job.alone),
    )


def _marks(pipeline: Pipeline) -> bool:
    """Whether the graph judges pixels for its own fit."""
    marks = marks_of(pipeline)
    for ref in marks:
        behind = [n for n in statistical_nodes(pipeline) if n in pipeline.ancestors(ref.node)]
        if behind:
            raise PlanError(
                f"{ref} marks the pixels that are fitted on, but it comes after {behind[0]}, which"
                " is fitted itself.",
                hint=f"Connect {ref.node} to the data node.",
            )
    return bool(marks)


def _needs(pipeline: Pipeline, name: str) -> list[tuple[Need, tuple[str, ...]]]:
    """What a node asks for now, and the affine nodes that carry it."""
    found = []
    for request in pipeline.nodes[name].requests():
        root, via = root_of(pipeline, need_of(pipeline, name, request), request.kind)
        mask = None
        if request.mask is not None:
            mask = need_of(pipeline, name, request._replace(port=request.mask))
            if pipeline.nodes[mask.node].is_source:
                raise PlanError(
                    f"{name}.{request.mask} restricts the fit to {mask}, which comes with the"
                    " batch; it cannot be had from an archive.",
                    hint="Choose the pixels of the fit instead (--pixels mask:NAME).",
                )
        found.append((Need(root, request.kind, mask), via))
    return found


def _is_held(need: Need, held: Collection[str | Measure]) -> bool:
    return need.root == CUBE and need.mask is None and need.kind in held


def _before(pipeline: Pipeline, need: Need) -> set[str]:
    """Nodes that must be fitted before a statistic can be taken; the cube waits for nothing."""
    nodes = {port.node for port in need.ports if port != CUBE}
    return nodes.union(*(pipeline.ancestors(name) for name in nodes))


class Fitting:
    """A fit in progress: says what it needs next and takes statistics as they come.

    Parameters
    ----------
    pipeline : Pipeline
        Its statistical nodes are refitted, whether they were fitted before or not.
    plan : FitPlan
    sample : callable, optional
        Gives stored pixels ``(n, C)`` on which the precision of scores is measured, or None.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        plan: FitPlan,
        sample: Callable[[], NDArray[Any] | None] = lambda: None,
    ) -> None:
        self.pipeline = pipeline
        self.plan = plan
        self._sample = sample
        self._found: dict[Need, Any] = {}
        self._stored = {node.need for node in plan.nodes if node.reading == 0}
        #: What each node that is not fitted yet asks for, in order.
        self._open: dict[str, list[tuple[Need, tuple[str, ...]]]] = {}
        for node in plan.nodes:
            self._open.setdefault(node.name, []).append((node.need, node.via))
        self._streams = {stream.name for stream in plan.streams}
        for name in (*self._open, *self._streams):
            pipeline.nodes[name].mark_fitted(False)

    @property
    def done(self) -> bool:
        """Whether every node is fitted."""
        return not self._open and not self._streams

    def stream(self) -> str | None:
        """A node that can be given its stream of frames by now; it goes before other passes."""
        unfitted = self._open.keys() | self._streams
        order = (name for name in self.pipeline.order() if name in self._streams)
        return next((n for n in order if not self.pipeline.ancestors(n) & unfitted), None)

    def settle(self, name: str, weights: Mapping[str, Any]) -> None:
        """Take what a node that was given a stream holds after it: its ``state_dict``."""
        node = self.pipeline.nodes[name]
        set_buffers(node, weights, None)
        node.mark_fitted(True)
        self._streams.discard(name)

    def stored(self) -> tuple[Need, ...]:
        """Distinct statistics that the archive holds."""
        return tuple(dict.fromkeys(n.need for n in self.plan.nodes if n.need in self._stored))

    def needs(self) -> tuple[Need, ...]:
        """Distinct statistics that the next pass takes: all that can be taken by now."""
        wanted = (need for asked in self._open.values() for need, _ in asked)
        return tuple(
            need
            for need in dict.fromkeys(wanted)
            if need not in self._found
            and need not in self._stored
            and not _before(self.pipeline, need) & (self._open.keys() | self._streams)
        )

    def supply(self, found: Mapping[Need, Any]) -> None:
        """Take statistics and fit every node that can be fitted from what is known."""
        self._found.update(found)
        for name in list(self._open):
            node = self.pipeline.nodes[name]
            while self._can_be_fitted(name):
                with single_thread():
                    self._fit(node, self._open[name])
                if not node.unsettled:
                    break
                node.mark_fitted(False)
                # A node that came to rest may ask for what it was given before.
                self._open[name] = _needs(self.pipeline, name)
            else:
                continue
            del self._open[name]
            if node.QUADRATIC is not None:
                with single_thread():
                    self._choose_precision(name)

    def _can_be_fitted(self, name: str) -> bool:
        asked = self._open[name]
        waiting = any(via in self._open for _, through in asked for via in through)
        return not waiting and all(need in self._found for need, _ in asked)

    def _fit(self, node: Node, asked: Sequence[tuple[Need, tuple[str, ...]]]) -> None:
        statistics = []
        for request, (need, _) in zip(node.requests(), asked, strict=True):
            statistic = self._found[need]
            port = need_of(self.pipeline, node.name, request)
            way = fold(self.pipeline, port, stop=need.root)
            if way.map is not None:
                if way.map.monomial is None and way.map.matrix.any(axis=0).all():
                    _check_range(node, statistic)
                statistic = getattr(way.map, str(request.kind))(statistic)
            _check_range(node, statistic)
            statistics.append(statistic)
        node.fit(*statistics)

    def _choose_precision(self, name: str) -> None:
        node = self.pipeline.nodes[name]
        assert node.QUADRATIC is not None
        writer = self.pipeline.writer(PortRef(name, node.QUADRATIC[0]))
        assert writer is not None
        folded = fold(self.pipeline, writer)
        score = QuadraticMap.fold(node.quadratic(), folded.map, "float64")
        sample = None if frame_nodes(self.pipeline, (folded.root,)) else self._sample()
        if sample is not None and folded.root != CUBE:
            program = compile_program(
                self.pipeline, (folded.root,), precision=self.pipeline.precision
            )
            if program.halo or program.by_column:
                sample = None
            else:
                stored = sample[None]
                evaluator = Evaluator(program, lambda a, b: stored[a:b], 1, len(sample))
                sample = evaluator.leaf(0)[folded.root].reshape(len(sample), -1)
        self.pipeline.precision[name] = choose(score, sample)


def _check_range(node: Node, statistic: object) -> None:
    if isinstance(statistic, Moments) and not statistic.finite:
        raise DataError(
            f"{node.name}: the values are so large that sums of their squares exceed the range of"
            f" float64 ({np.finfo(np.float64).max:.1e}), so they have no covariance.",
            hint="Convert the recordings in smaller units (values up to about 1e150 can be"
            " squared), or give the value that stands for missing pixels with --nodata.",
        )


def valid_sample(sample: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """The rows of a sample that are valid."""
    return sample if valid is None else sample[valid]
