"""Node classes of other packages, which a file names under ``plugins`` and nowhere else."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hsi_batch.errors import DataError, HsiBatchError, NotFittedError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.metrics import Context
from hsi_batch.nodes.node import ALWAYS, Node, Scope, Stage
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.trust import allowed_plugins, is_from_the_driver

__all__ = ["PluginNode", "covering", "plugin_class"]

#: The name under which cuvis-ai lists its own nodes.
_BUILTIN = "cuvis_ai_builtin"
#: Lines and columns of the image with which the number of output channels is found out.
_PROBE = 16


class PluginNode(Node):
    """A module of another package, run as it is.

    It is given whole frames, unless it has an attribute ``scope`` that says otherwise (``"pixel"``,
    or ``"window"`` with ``halo``). It sees ``(1, y, x, channel)`` tensors under the names of its
    ports. Its buffers are stored under its own names. A class with
    ``statistical_initialization(input_stream)`` is fitted by an ordered stream of frames; see
    :meth:`stream_fit`.
    """

    WRAPPED: ClassVar[type[nn.Module]]
    module: nn.Module

    def __init__(self, name: str | None = None, **hparams: Any) -> None:
        super().__init__(name, **hparams)
        try:
            self.module = self.WRAPPED(**hparams)
        except Exception as error:
            raise PipelineError(
                f"{self.WRAPPED.__module__}.{self.WRAPPED.__qualname__} cannot be made with these"
                f" arguments: {type(error).__name__}: {error}.",
                hint="Correct its hparams.",
            ) from error

    @property
    def scope(self) -> Scope:
        """What the module says; a frame if it says nothing."""
        said = getattr(self.module, "scope", None)
        return Scope(said) if isinstance(said, str) and said in set(Scope) else Scope.FRAME

    @property
    def halo(self) -> int:
        """What the module says."""
        return int(getattr(self.module, "halo", 0))

    @property
    def streams(self) -> bool:
        """Whether the module is fitted by a stream of frames."""
        wanted = getattr(self.module, "requires_initial_fit", None)
        has_way = callable(getattr(self.module, "statistical_initialization", None))
        return has_way if wanted is None else bool(wanted)

    @property
    def requires_initial_fit(self) -> bool:
        """As :attr:`streams`: every fit fits it again, as in cuvis-ai."""
        return self.streams

    def stream_fit(self, stream: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Parameters and buffers after the module took a stream; the module itself stays as it is.

        Parameters
        ----------
        stream : iterable of dict
            For each frame its inputs by port, tensors with a batch of one frame.

        Raises
        ------
        hsi_batch.errors.DataError
            The module raised an error.
        hsi_batch.errors.PipelineError
            It has no way to take a stream, or holds other buffers afterwards.
        """
        module = copy.deepcopy(self.module).eval()
        way = getattr(module, "statistical_initialization", None)
        if not callable(way):
            raise PipelineError(
                f"{self.name} ({type(self).__name__}) says that it needs an initial fit, but has no"
                " statistical_initialization."
            )
        before = {name: value.ndim for name, value in module.state_dict().items()}
        try:
            with torch.no_grad():
                way(iter(stream))
        except HsiBatchError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.name} ({type(self).__name__}) failed while it was fitted by a stream of"
                f" frames: {type(error).__name__}: {error}.",
                hint="Mend its statistical_initialization.",
            ) from error
        after = {name: value.detach() for name, value in module.state_dict().items()}
        if before != {name: value.ndim for name, value in after.items()}:
            raise PipelineError(
                f"{self.name} ({type(self).__name__}) holds buffers {sorted(after)} after its fit;"
                f" a new one has {sorted(before)}, and the same numbers of axes were expected.",
                hint="Register all buffers in __init__, empty ones with as many axes as later.",
            )
        return after

    @property
    def fitted(self) -> bool:
        """Whether the module can run."""
        said = bool(getattr(self.module, "_statistically_initialized", False))
        return said or self._fitted or not self.streams

    def mark_fitted(self, fitted: bool) -> None:
        """Say whether the buffers hold fitted values."""
        super().mark_fitted(fitted)
        if hasattr(self.module, "_statistically_initialized"):
            self.module._statistically_initialized = fitted  # type: ignore[assignment] # noqa: SLF001

    def _need_fit(self) -> None:
        if not self.fitted:
            raise NotFittedError(
                f"{type(self).__name__} {self.name!r} is not fitted.",
                hint="Fit the pipeline first (hsi-batch fit, or hb.fit), or load fitted weights.",
            )

    @property
    def holder(self) -> nn.Module:
        """The module itself holds the buffers."""
        return self.module

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The parameters and buffers of the module, under its own names."""
        return self.module.state_dict(*args, **kwargs)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """What the module gives for a small image; nothing where it cannot be run on one."""
        cubes = [port for port, spec in self.OUTPUT_SPECS.items() if len(spec.shape) == 4]
        if all(isinstance(s := self.OUTPUT_SPECS[p].shape[3], int) and s > 0 for p in cubes):
            return {}
        try:
            given = self._probe(axes)
            module = copy.deepcopy(self.module).eval()
            with torch.no_grad():
                if self.streams and not self.fitted:
                    # Before its fit it need not know how many channels it gives.
                    module.statistical_initialization(iter([given]))  # type: ignore[operator]
                found = self._run(module, None, given)
        except Exception:  # noqa: BLE001 - a foreign module may fail in any way on a small image
            return {}
        return {p: ChannelAxis(int(found[p].shape[3])) for p in cubes if p in found}

    def _probe(self, axes: Mapping[str, ChannelAxis]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for port, axis in axes.items():
            dtype = self.INPUT_SPECS[port].dtype
            dtype = dtype if isinstance(dtype, torch.dtype) else torch.float32
            # Not all alike, for a module may look at how pixels differ.
            random = torch.Generator().manual_seed(0)
            image = torch.rand(1, _PROBE, _PROBE, axis.size, generator=random)
            image = (image + 0.5).to(dtype)
            given[port] = [image] if self.INPUT_SPECS[port].variadic else image
        return given

    def forward(self, context: Context | None = None, **inputs: Any) -> dict[str, Any]:
        """Run the module."""
        self._need_fit()
        return self._run(self.module, context, inputs)

    def _run(
        self, module: nn.Module, context: Context | None, inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        accepted = inspect.signature(module.forward).parameters
        given = dict(inputs)
        if "context" in accepted or any(
            p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values()
        ):
            given["context"] = context or Context()
        result = module(**given)
        if not isinstance(result, Mapping):
            raise PipelineError(
                f"{type(self).__name__} {self.name!r} gave {type(result).__name__}; a node gives a"
                " dict of its outputs.",
                hint="Return {port: tensor}.",
            )
        return {
            port: value.detach() if isinstance(value, Tensor) and not self.training else value
            for port, value in result.items()
        }


def covering(class_name: str, plugins: Sequence[str]) -> str | None:
    """The plugin that a class path belongs to, or None.

    A plugin is a package (``my_nodes``, for all classes below it) or the short name under which
    cuvis-ai lists one (``dinomaly`` for ``cuvis_ai_dinomaly``).

    Examples
    --------
    >>> covering("cuvis_ai_dinomaly.node.Detector", ["dinomaly"])
    'dinomaly'
    >>> covering("os.system", ["dinomaly"]) is None
    True
    """
    for plugin in plugins:
        packages = ("cuvis_ai",) if plugin == _BUILTIN else (plugin, f"cuvis_ai_{plugin}")
        if any(class_name.startswith(f"{package}.") for package in packages):
            return plugin
    return None


def plugin_class(class_name: str, plugins: Sequence[str]) -> type[Node] | None:
    """Import a node class that a plugin covers; None if none does.

    A :class:`.Node` is returned as it is, any other torch module with ``INPUT_SPECS`` and
    ``OUTPUT_SPECS`` in an adapter.

    Raises
    ------
    hsi_batch.errors.PipelineError
        The user has not allowed it, it cannot be imported, or it is no module with ports.
    """
    plugin = covering(class_name, plugins)
    if plugin is None:
        return None
    module_name, _, short = class_name.rpartition(".")
    _need_permission(class_name, module_name, plugin)
    try:
        module = importlib.import_module(module_name)
        # A module may import on being asked for a name; without permission it is not asked.
        asked = is_from_the_driver() or covering(class_name, allowed_plugins()) is not None
        found = getattr(module, short) if asked else vars(module)[short]
    except Exception as error:
        raise PipelineError(
            f"the class {class_name!r} of the plugin {plugin!r} cannot be imported:"
            f" {type(error).__name__}: {error}.",
            hint="Install the plugin where the command and its workers run.",
        ) from error
    if isinstance(found, type) and issubclass(found, Node):
        return found
    if not (isinstance(found, type) and issubclass(found, nn.Module) and _has_ports(found)):
        raise PipelineError(
            f"{class_name!r} of the plugin {plugin!r} is no node: a torch module with INPUT_SPECS"
            " and OUTPUT_SPECS was expected."
        )
    return _adapted(found)  # type: ignore[arg-type]


def _need_permission(class_name: str, module: str, plugin: str) -> None:
    """Refuse to import what a file names, and the user does not."""
    if module in sys.modules or is_from_the_driver():
        return
    if covering(class_name, allowed_plugins()) is None:
        raise PipelineError(
            f"the class {class_name!r} would run code of the plugin {plugin!r}, which you have not"
            " allowed.",
            hint=f"If you trust it: hsi-batch --plugins {plugin} COMMAND ...; or set"
            f" HSI_BATCH_PLUGINS={plugin}; or write {plugin} into ~/.config/hsi-batch/plugins; in"
            f' Python Pipeline.from_yaml(path, plugins=["{plugin}"]).',
        )


def _has_ports(cls: type[nn.Module]) -> bool:
    tables = (getattr(cls, "INPUT_SPECS", None), getattr(cls, "OUTPUT_SPECS", None))
    return all(
        isinstance(table, Mapping)
        and all(hasattr(s, "dtype") and hasattr(s, "shape") for s in table.values())
        for table in tables
    )


@cache
def _adapted(cls: type[nn.Module]) -> type[PluginNode]:
    members = {
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
        "WRAPPED": cls,
        "INPUT_SPECS": {n: _spec(s) for n, s in cls.INPUT_SPECS.items()},  # type: ignore[attr-defined]
        "OUTPUT_SPECS": {n: _spec(s) for n, s in cls.OUTPUT_SPECS.items()},  # type: ignore[attr-defined]
        "stages": _stages(getattr(cls, "EXECUTION_STAGES", None)),
    }
    return type(cls.__name__, (PluginNode,), members)


def _spec(spec: Any) -> PortSpec:
    # Names of attributes are those of the foreign class; any size is taken for them.
    shape = tuple(size if isinstance(size, int) else -1 for size in spec.shape)
    return PortSpec(
        spec.dtype,
        shape,
        str(getattr(spec, "description", "")),
        bool(getattr(spec, "optional", False)),
        bool(getattr(spec, "variadic", False)),
    )


def _stages(said: Any) -> frozenset[Stage]:
    names = {str(getattr(stage, "value", stage)) for stage in said or ("always",)}
    known = {stage for stage in Stage if stage.value in names}
    return ALWAYS if "always" in names or not known else frozenset(known)
