"""Fits that begin with a sample of the pixels and improve in steps over all of them."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, ClassVar

from hsi_batch.errors import DataWarning
from hsi_batch.nodes.node import Node
from hsi_batch.nodes.terms import Request, Scope
from hsi_batch.statistics.measure import Measure
from hsi_batch.statistics.sample import SampleMeasure, SpectraSample

__all__ = ["SAMPLE", "SteppedNode", "sample_request"]

#: Sample where ``max_fit_pixels`` is 0, which in cuvis-ai means all pixels.
SAMPLE = 20_000


def sample_request(node: Node) -> Request:
    """Different spectra of the cube, as the arguments of a node say; where its mask is above 0."""
    size = int(node.hparams["max_fit_pixels"]) or SAMPLE
    measure = SampleMeasure(size, int(node.hparams["fit_seed"]))
    return Request("cube", measure, "mask" if "mask" in node.connected else None)


class SteppedNode(Node):
    """Base of nodes that are fitted in one pass for a sample and one for each exact step.

    Arguments are ``max_fit_pixels`` and ``fit_seed`` of the sample, and ``max_passes``, the steps
    at most. What a step goes on from is of the subclass's own kind.
    """

    #: What does not come to rest, in words.
    MOVING: ClassVar[str] = ""

    def __init__(self, name: str | None = None, **hparams: Any) -> None:
        super().__init__(name, **hparams)
        #: Where a fit in progress is, and how many steps it had.
        self._open: tuple[Any, int] | None = None

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    @property
    def most_passes(self) -> int:
        """The sample, and the steps."""
        return 1 + int(self.hparams["max_passes"])

    def begin_fit(self) -> None:
        """Start again from a sample."""
        self._open = None

    @property
    def unsettled(self) -> bool:
        """Until the fit rests."""
        return self._open is not None

    def requests(self) -> tuple[Request, ...]:
        """A sample, then what a step is made from."""
        request = sample_request(self)
        if self._open is not None:
            request = request._replace(kind=self._measure(self._open[0]))
        return (request,)

    def fit(self, statistic: Any) -> None:
        """Start from a sample, or take a step."""
        if isinstance(statistic, SpectraSample):
            place, steps, rests = self._start(statistic), 0, False
        else:
            assert self._open is not None
            place, steps = self._open
            place, rests = self._step(statistic, place)
            steps += 1
        self._open = None if rests or steps >= int(self.hparams["max_passes"]) else (place, steps)
        if self._open is not None:
            return
        if steps and not rests:
            warnings.warn(
                f"{self.name}: {self.MOVING} after {steps} passes over all pixels; raise"
                " max_passes, or tol.",
                DataWarning,
                stacklevel=2,
            )
        self._settle(place, statistic)

    @abstractmethod
    def _start(self, sample: SpectraSample) -> Any:
        """Where the steps go on from."""

    @abstractmethod
    def _measure(self, place: Any) -> Measure:
        """The statistic of a step."""

    @abstractmethod
    def _step(self, statistic: Any, place: Any) -> tuple[Any, bool]:
        """Where a step leads, and whether it moved nothing."""

    @abstractmethod
    def _settle(self, place: Any, statistic: Any) -> None:
        """Keep what was found; the statistic is the last one."""
