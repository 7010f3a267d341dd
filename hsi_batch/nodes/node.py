"""What a node is: a torch module with ports that says what it needs, instead of fetching it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hsi_batch.errors import NotFittedError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.ports import InputPort, OutputPort, Ports, PortSpec, seed_port
from hsi_batch.nodes.terms import ALWAYS, Quadratic, Request, Scope, Stage
from hsi_batch.statistics.affine import Affine

__all__ = ["ALWAYS", "Node", "Quadratic", "Request", "Scope", "Stage", "need_non_negative"]

#: More than any sensor has; squares of it are gigabytes already.
_MOST_CHANNELS = 2**16


class Node(nn.Module):
    """Base of all nodes.

    A subclass declares its ports (``INPUT_SPECS``, ``OUTPUT_SPECS``), its scope and stages, and
    implements ``forward``. Cubes are ``(batch, y, x, channel)`` float32. A statistical node also
    says which statistic of which input it is fitted from (:meth:`request`) and what it makes of it
    (:meth:`fit`); it never loops over data. A node whose output is an affine map of its input per
    pixel names both ports in ``AFFINE`` and gives the map in :meth:`affine`: statistics and scores
    are then folded through it without touching a pixel. A node whose output is a quadratic form of
    its input names both in ``QUADRATIC`` and gives it in :meth:`quadratic`.

    Parameters
    ----------
    name : str, optional
        Name in the graph; the class name by default.
    **hparams
        Constructor arguments, recorded for the YAML.

    Notes
    -----
    Buffers are float32, as the cuvis-ai family stores them. What was fitted is kept beside them in
    float64 (:attr:`state`) and is used as long as the buffers are those it was rounded to: a
    buffer that somebody assigns wins.

    Examples
    --------
    >>> class Doubled(Node):
    ...     INPUT_SPECS = {"cube": PortSpec(torch.float32, (-1, -1, -1, -1))}
    ...     OUTPUT_SPECS = {"cube": PortSpec(torch.float32, (-1, -1, -1, -1))}
    ...     def forward(self, cube):
    ...         return {"cube": 2 * cube}
    >>> node = Doubled(name="twice")
    >>> node.name, node.scope.value, node(cube=torch.ones(1, 1, 1, 1))["cube"].item()
    ('twice', 'frame', 2.0)
    """

    INPUT_SPECS: ClassVar[Mapping[str, PortSpec]] = {}
    OUTPUT_SPECS: ClassVar[Mapping[str, PortSpec]] = {}
    #: Ports ``(input, output)`` between which the node is affine per pixel.
    AFFINE: ClassVar[tuple[str, str] | None] = None
    #: Ports ``(input, output)`` between which the node is a quadratic form per pixel.
    QUADRATIC: ClassVar[tuple[str, str] | None] = None
    #: Buffers that a gradient stage may train.
    TRAINABLE_BUFFERS: ClassVar[tuple[str, ...]] = ()
    #: Outputs that hand out a parameter instead of pixels: port name -> buffer name.
    PARAMETER_PORTS: ClassVar[Mapping[str, str]] = {}
    #: Inputs that only a fit looks at; scoring leaves what feeds them alone.
    FIT_INPUTS: ClassVar[frozenset[str]] = frozenset()
    #: Arguments that a fit writes, beside the buffers.
    FITTED_ARGUMENTS: ClassVar[frozenset[str]] = frozenset()
    #: Output that marks the pixels which fits may count, if the node judges that.
    MARKS_VALID: ClassVar[str | None] = None
    #: Names of the arguments that declare the number of input channels.
    CHANNEL_ARGUMENT: ClassVar[str | None] = None
    stages: ClassVar[frozenset[Stage]] = ALWAYS
    #: Names of the arguments that are paths; in a file they are relative to it.
    PATH_ARGUMENTS: ClassVar[tuple[str, ...]] = ()
    #: A window node that leaves pixels out that are NaN: invalid ones are given to it so.
    SKIPS_INVALID: ClassVar[bool] = False
    #: The batch itself feeds this node; there is one per graph.
    is_source: ClassVar[bool] = False

    def __init__(self, name: str | None = None, **hparams: Any) -> None:
        super().__init__()
        self.name = name or type(self).__name__
        self.hparams: dict[str, Any] = hparams
        _check_channels(self.CHANNEL_ARGUMENT, hparams)
        #: Channel axes of the inputs, set when the graph is resolved.
        self.axes: dict[str, ChannelAxis] = {}
        #: Names of the inputs that a connection feeds, set when the graph is resolved.
        self.connected: frozenset[str] = frozenset()
        self.state: dict[str, NDArray[Any]] = {}
        self._rounded: dict[str, str] = {}
        self._fitted = False
        self._frozen = True

    # -- ports -------------------------------------------------------------------------------

    @property
    def inputs(self) -> Ports:
        """Input ports by name."""
        return Ports(self, InputPort, self.INPUT_SPECS)

    @property
    def outputs(self) -> Ports:
        """Output ports by name."""
        return Ports(self, OutputPort, self.OUTPUT_SPECS)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            is_out = name in self.OUTPUT_SPECS
            # The inputs of a source are fed by the batch, never by a connection.
            is_in = name in self.INPUT_SPECS and not (is_out and self.is_source)
            if is_in and is_out:
                raise AttributeError(
                    f"{type(self).__name__} has an input and an output {name!r}; write"
                    f" node.inputs.{name} or node.outputs.{name}"
                ) from None
            if is_in:
                return self.inputs[name]
            if is_out:
                return self.outputs[name]
            for side in ("outputs", "inputs"):
                meant = seed_port(self, name, side)
                if meant is not None:
                    return getattr(self, side)[meant]
            raise

    def port_buffer(self, port: str) -> Tensor | None:
        """The buffer that an output hands out, if it stands for a parameter."""
        buffer = self.PARAMETER_PORTS.get(port)
        return None if buffer is None else getattr(self, buffer)

    # -- what the planner asks -----------------------------------------------------------------

    @property
    def scope(self) -> Scope:
        """What the node must see at once.

        A pixel if it is declared affine or quadratic, else a frame: a node that says nothing may
        look at anything.
        """
        by_pixel = self.is_source or self.AFFINE is not None or self.QUADRATIC is not None
        return Scope.PIXEL if by_pixel else Scope.FRAME

    @property
    def halo(self) -> int:
        """Lines and columns that a window node needs around a pixel."""
        return 0

    @property
    def by_column(self) -> bool:
        """Whether what it makes of a pixel depends on the column; it is given whole lines."""
        return False

    @property
    def width(self) -> int:
        """Columns that such a node knows; 0 if any number will do."""
        return 0

    @property
    def mixes_channels(self) -> bool:
        """Whether an output channel of the affine map depends on several input channels."""
        return False

    def settle_channels(self, count: int) -> None:
        """Take the number of channels of the data for the argument ``CHANNEL_ARGUMENT``."""
        if self.CHANNEL_ARGUMENT is not None:
            setattr(self, self.CHANNEL_ARGUMENT, count)

    def request(self) -> Request | None:
        """The statistic this node is fitted from; None if it needs no fit."""
        return None

    def requests(self) -> tuple[Request, ...]:
        """All statistics that :meth:`fit` is given, in its order; by default the one or none."""
        request = self.request()
        return () if request is None else (request,)

    def frame_requests(self) -> tuple[Request, ...]:
        """Statistics of one frame that :meth:`frame_fit` is given; by default :meth:`requests`."""
        return self.requests()

    @property
    def most_passes(self) -> int:
        """Passes over the pixels that the fit takes at most, if no statistic is stored."""
        return 1

    @property
    def unsettled(self) -> bool:
        """Whether the fit goes on: :meth:`requests` now names what the next pass takes."""
        return False

    def begin_fit(self) -> None:
        """Forget a fit of several passes that was not finished."""

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """Channel axes of the outputs from those of the inputs; by default of the affine port."""
        if self.AFFINE is not None and self.AFFINE[0] in axes:
            return {self.AFFINE[1]: axes[self.AFFINE[0]]}
        return {}

    def fit(self, *statistics: Any) -> None:
        """Set the state from the statistics that :meth:`requests` asked for."""
        raise TypeError(f"{type(self).__name__} is not fitted from {_kinds(statistics)}")

    def frame_fit(self, *statistics: Any) -> Node:
        """For a frame-scope node with requests: the node that is right for this one frame."""
        raise TypeError(f"{type(self).__name__} has no frame fit from {_kinds(statistics)}")

    def affine(self) -> Affine:
        """The affine map between the ports of ``AFFINE``; needs the fitted state."""
        raise TypeError(f"{type(self).__name__} is not affine")

    def quadratic(self) -> Quadratic:
        """The quadratic form between the ports of ``QUADRATIC``; needs the fitted state."""
        raise TypeError(f"{type(self).__name__} is not quadratic")

    def forward_lines(self, start: int, stop: int, **inputs: Any) -> dict[str, Any]:
        """Outputs of a window-scope node on the lines ``start:stop`` of its inputs.

        The lines around them are there to be looked at; a node whose work per pixel is large
        overrides this to do only what is needed.
        """
        return {
            port: value[:, start:stop] if isinstance(value, Tensor) and value.ndim >= 3 else value
            for port, value in self(**inputs).items()
        }

    # -- fitted state --------------------------------------------------------------------------

    def in_words(self) -> str:
        """What a fit has settled that people want to read; nothing by default."""
        return ""

    @property
    def holder(self) -> nn.Module:
        """The module whose parameters and buffers ``state_dict`` names."""
        return self

    @property
    def requires_initial_fit(self) -> bool:
        """Whether a statistical fit of the archive sets this node."""
        return bool(self.requests()) and not self.fits_each_frame

    @property
    def fits_each_frame(self) -> bool:
        """Whether the statistic asked for is that of each frame; see :meth:`frame_fit`."""
        return self.scope is Scope.FRAME and type(self).frame_fit is not Node.frame_fit

    @property
    def fitted(self) -> bool:
        """Whether the node can run."""
        return self._fitted or not self.requires_initial_fit

    @property
    def _statistically_initialized(self) -> bool:
        return self._fitted

    @_statistically_initialized.setter
    def _statistically_initialized(self, value: bool) -> None:
        self._fitted = bool(value)

    @property
    def default_is_fitted(self) -> bool:
        """Whether a new node already holds what a fit would give (files that do not say)."""
        return False

    def mark_fitted(self, fitted: bool) -> None:
        """Say whether the buffers hold fitted values."""
        self._fitted = fitted

    def restore_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take a float64 state that was saved together with the present buffers."""
        self.state = dict(state)
        self._rounded = self._digests()

    def _need_fit(self) -> None:
        if not self.fitted:
            raise NotFittedError(
                f"{type(self).__name__} {self.name!r} is not fitted.",
                hint="Fit the pipeline first (hsi-batch fit, or hb.fit), or load fitted weights.",
            )

    def set_state(self, state: Mapping[str, NDArray[Any]], **buffers: NDArray[Any] | float) -> None:
        """Keep the float64 ``state`` and round ``buffers`` from it to the dtypes they have."""
        for name, value in buffers.items():
            tensor = torch.as_tensor(np.asarray(value)).to(getattr(self, name).dtype)
            setattr(self, name, self._as_held(name, tensor))
        self.state = {k: np.asarray(v) for k, v in state.items()}
        self._rounded = self._digests()
        self._fitted = True

    def _as_held(self, name: str, tensor: Tensor) -> Tensor:
        held = self._parameters.get(name)
        return tensor if held is None else nn.Parameter(tensor, held.requires_grad)

    # -- training ------------------------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether a gradient stage leaves the node alone; so it is until :meth:`unfreeze`."""
        return self._frozen

    def unfreeze(self) -> None:
        """Turn the trainable buffers into parameters, and let all parameters be trained."""
        for name in self.TRAINABLE_BUFFERS:
            if name in self._buffers:
                held = getattr(self, name)
                delattr(self, name)
                self.register_parameter(name, nn.Parameter(held.detach().clone()))
        self.requires_grad_(True)
        self._frozen = False

    def freeze(self) -> None:
        """Undo :meth:`unfreeze`; values stay."""
        self.requires_grad_(False)
        for name in self.TRAINABLE_BUFFERS:
            if name in self._parameters:
                held = getattr(self, name)
                delattr(self, name)
                self.register_buffer(name, held.detach().clone())
        self._frozen = True

    # -- digests -------------------------------------------------------------------------------

    def buffer_digest(self) -> str:
        """SHA-256 of the names and bytes of all parameters and buffers."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(_content(tensor))
        return digest.hexdigest()

    def _digests(self) -> dict[str, str]:
        return {
            name: hashlib.sha256(_content(tensor)).hexdigest()
            for name, tensor in self.state_dict().items()
        }

    def assigned(self) -> set[str]:
        """Names of the buffers that were assigned since the state was set; all without a state."""
        if not self.state:
            return set(self.state_dict())
        return {name for name, now in self._digests().items() if self._rounded.get(name) != now}

    def exact_state(self) -> Mapping[str, NDArray[Any]] | None:
        """The float64 state, or None if buffers were assigned since it was set."""
        return self.state if self.state and not self.assigned() else None

    def extra_repr(self) -> str:
        """Constructor arguments."""
        return ", ".join(f"{k}={v!r}" for k, v in self.hparams.items())


def _check_channels(argument: str | None, hparams: Mapping[str, Any]) -> None:
    count = None if argument is None else hparams.get(argument)
    if isinstance(count, int) and not 1 <= count <= _MOST_CHANNELS:
        raise PipelineError(
            f"{argument} {count} must be a number of channels, from 1 to {_MOST_CHANNELS}."
        )


def need_non_negative(**values: float) -> None:
    """Raise :class:`~hsi_batch.errors.PipelineError` for an argument that is negative or NaN."""
    for name, value in values.items():
        if not value >= 0:
            raise PipelineError(f"{name} {value} must not be negative.")


def _kinds(statistics: tuple[Any, ...]) -> str:
    return ", ".join(type(statistic).__name__ for statistic in statistics) or "nothing"


def _content(tensor: Tensor) -> bytes:
    return str(tuple(tensor.shape)).encode() + tensor.detach().cpu().contiguous().numpy().tobytes()
