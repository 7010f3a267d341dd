"""Planning a statistical fit and turning statistics into fitted nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import PlanError
from hsi_batch.nodes import PortRef, Scope
from hsi_batch.nodes.gaussian import single_thread
from hsi_batch.pipeline.evaluate import Evaluator
from hsi_batch.pipeline.fold import CUBE, fold, need_of, root_of
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.precision import choose
from hsi_batch.pipeline.program import compile_program, frame_nodes
from hsi_batch.pipeline.quadratic import QuadraticMap
from hsi_batch.wording import counted

__all__ = ["FitPlan", "Fitting", "PlannedNode", "plan_fit"]


@dataclass(frozen=True)
class PlannedNode:
    """How one node is fitted.

    Attributes
    ----------
    name : str
    need : Need
        The statistic it comes down to.
    via : tuple of str
        Affine nodes the statistic is carried through without reading.
    reading : int
        The pass that takes it; 0 if stored statistics give it.
    """

    name: str
    need: Need
    via: tuple[str, ...]
    reading: int


@dataclass(frozen=True)
class FitPlan:
    """What a fit will read.

    Attributes
    ----------
    nodes : tuple of PlannedNode
        In the order in which they are fitted.
    """

    nodes: tuple[PlannedNode, ...]

    @property
    def passes(self) -> int:
        """Readings of the pixels."""
        return max((node.reading for node in self.nodes), default=0)

    def __str__(self) -> str:
        if not self.nodes:
            return "nothing to fit"
        lines = [f"{counted(self.passes, 'pass')} over the pixels"]
        for node in self.nodes:
            where = f"pass {node.reading}" if node.reading else "stored statistics"
            way = f", carried through {', '.join(node.via)}" if node.via else ""
            lines.append(f"  {node.name}: {node.need} from {where}{way}")
        return "\n".join(lines)


def statistical_nodes(pipeline: Pipeline) -> list[str]:
    """Names of the nodes a statistical fit sets, in order."""
    return [n for n in pipeline.order() if pipeline.nodes[n].requires_initial_fit]


def plan_fit(pipeline: Pipeline, stored: Iterable[str] = ()) -> FitPlan:
    """Find the fewest passes that fit a pipeline.

    Parameters
    ----------
    pipeline : Pipeline
    stored : iterable of str
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
    for name, node in pipeline.nodes.items():
        if not node.fitted and not node.requires_initial_fit:
            raise PlanError(
                f"{name} ({type(node).__name__}) is fitted by a stream of frames only, which no"
                " statistic can stand for.",
                hint="Fit it where it comes from, and load the pipeline with its weights.",
            )
    held = set(stored)
    planned: dict[str, PlannedNode] = {}
    for name in statistical_nodes(pipeline):
        request = pipeline.nodes[name].request()
        assert request is not None
        port = need_of(pipeline, name, request)
        root, via = root_of(pipeline, port, request.kind)
        # Statistics of the cube wait for nothing; others for all fitted nodes before their root.
        before = pipeline.ancestors(root.node) | {root.node} if root != CUBE else set()
        earlier = max((planned[a].reading for a in before if a in planned), default=0)
        reading = 0 if root == CUBE and request.kind in held else earlier + 1
        planned[name] = PlannedNode(name, Need(root, request.kind), via, reading)
    return FitPlan(tuple(planned.values()))


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
        self._open = [node.name for node in plan.nodes]
        for name in self._open:
            pipeline.nodes[name].mark_fitted(False)

    @property
    def done(self) -> bool:
        """Whether every node is fitted."""
        return not self._open

    def needs(self, reading: int) -> tuple[Need, ...]:
        """Distinct statistics that a pass takes (0: the stored ones)."""
        return tuple(dict.fromkeys(n.need for n in self.plan.nodes if n.reading == reading))

    def supply(self, found: Mapping[Need, Any]) -> None:
        """Take statistics and fit every node that can be fitted from what is known."""
        self._found.update(found)
        planned = {node.name: node for node in self.plan.nodes}
        for name in list(self._open):
            node = planned[name]
            waiting = any(via in self._open for via in node.via)
            if node.need in self._found and not waiting:
                with single_thread():
                    self._fit(node)
                self._open.remove(name)

    def _fit(self, planned: PlannedNode) -> None:
        node = self.pipeline.nodes[planned.name]
        request = node.request()
        assert request is not None
        statistic = self._found[planned.need]
        port = need_of(self.pipeline, planned.name, request)
        way = fold(self.pipeline, port, stop=planned.need.root)
        if way.map is not None:
            statistic = getattr(way.map, request.kind)(statistic)
        node.fit(statistic)
        if node.QUADRATIC is not None:
            self._choose_precision(planned.name)

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
            if program.halo:
                sample = None
            else:
                stored = sample[None]
                evaluator = Evaluator(program, lambda a, b: stored[a:b], 1, len(sample))
                sample = evaluator.leaf(0)[folded.root].reshape(len(sample), -1)
        self.pipeline.precision[name] = choose(score, sample)


def valid_sample(sample: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """The rows of a sample that are valid."""
    return sample if valid is None else sample[valid]
