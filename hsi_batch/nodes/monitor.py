"""Where metrics and pictures of a run are written."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError, PipelineError
from hsi_batch.nodes.metrics import Context
from hsi_batch.nodes.node import Node, Stage
from hsi_batch.nodes.ports import PortSpec

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardMonitorNode"]


class TensorBoardMonitorNode(Node):
    """Write metrics and artifacts to a TensorBoard log.

    Tags are ``<stage>/<name>``, the step is the global step of the run. All batches of one
    validation have the same step: of a metric, the last value at a step is that of all of them;
    pictures of later batches get a tag of their own, ``<stage>/<name>/batch3``, so that none takes
    the place of another. The folder is made when something is first written, never by loading a
    pipeline. It needs the package tensorboard (extra ``tensorboard``).

    Parameters
    ----------
    output_dir : str
        Folder of all runs.
    run_name : str, optional
        Folder of this run in it; a name that is taken gets ``_v2``, ``_v3``, ... By default the
        next of ``run_01``, ``run_02``, ...
    comment : str
        Added to the name of the run.
    flush_secs : int
        Seconds after which what is waiting is written to disk.

    Attributes
    ----------
    log_dir : pathlib.Path or None
        Folder of this run, once it is made.

    Examples
    --------
    >>> node = TensorBoardMonitorNode("runs", run_name="first")
    >>> node.hparams["run_name"]  # nothing is written before the first value
    'first'
    """

    INPUT_SPECS = {
        "artifacts": PortSpec(list, (), "pictures", optional=True, variadic=True),
        "metrics": PortSpec(list, (), "values", optional=True, variadic=True),
    }
    stages = frozenset({Stage.TRAIN, Stage.VAL, Stage.TEST})

    def __init__(
        self,
        output_dir: str = "./runs",
        run_name: str | None = None,
        comment: str = "",
        flush_secs: int = 120,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            output_dir=str(output_dir),
            run_name=run_name,
            comment=comment,
            flush_secs=flush_secs,
        )
        if run_name is not None and (not run_name or run_name in (".", "..") or "/" in run_name):
            raise PipelineError(
                f"run_name {run_name!r} is not the name of one folder.",
                hint="Give a name without slashes.",
            )
        if "/" in comment:
            raise PipelineError(
                f"comment {comment!r} holds a slash; it is part of a name.",
                hint="Remove the slash.",
            )
        if flush_secs < 1:
            raise PipelineError(f"flush_secs {flush_secs} must be at least 1.")
        self.output_dir = Path(output_dir)
        self.run_name = run_name
        self.comment = comment
        self.flush_secs = int(flush_secs)
        self.log_dir: Path | None = None
        self._writer: SummaryWriter | None = None
        self._closer: weakref.finalize[Any, Any] | None = None

    def forward(
        self,
        artifacts: Sequence[Any] | None = None,
        metrics: Sequence[Any] | None = None,
        context: Context | None = None,
    ) -> dict[str, Any]:
        """Write lists of :class:`.Artifact` and of :class:`.Metric`, or lists of such lists."""
        at = context or Context()
        for metric in _flat(metrics):
            self.log(f"{at.stage}/{metric.name}", metric.value, at.global_step)
        for artifact in _flat(artifacts):
            tag = f"{at.stage}/{artifact.name}"
            if at.stage is not Stage.TRAIN and at.batch_idx:
                tag += f"/batch{at.batch_idx}"
            self._open().add_image(tag, _image(artifact), at.global_step, dataformats="HWC")
        return {}

    def log(self, name: str, value: float, step: int) -> None:
        """Write one value, as monitors of a trainer do."""
        self._open().add_scalar(name, float(value), step)

    def flush(self) -> None:
        """Write what is waiting to disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Finish the log. What is written later goes to a new run; also done at exit."""
        if self._closer is not None:
            self._closer()
        self._writer = self._closer = None

    def write_to(self, writer: Any) -> None:
        """Write to this from now on, as to a ``SummaryWriter``, and make no folder."""
        self.close()
        self._writer = writer

    @property
    def writer(self) -> SummaryWriter:
        """What is written to; the folder is made if there is none."""
        return self._open()

    def __getstate__(self) -> dict[str, Any]:
        """A copy writes a log of its own."""
        return {**self.__dict__, "_writer": None, "_closer": None, "log_dir": None}

    def _open(self) -> SummaryWriter:
        if self._writer is None:
            writer = _writer_class()
            self.log_dir = self._new_folder()
            self._writer = writer(str(self.log_dir), flush_secs=self.flush_secs)
            self._closer = weakref.finalize(self, self._writer.close)
        return self._writer

    def _new_folder(self) -> Path:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        if self.run_name is not None:
            base = self.run_name + self.comment
            names = (base if i == 1 else f"{base}_v{i}" for i in range(1, 10**6))
        else:
            taken = [_run_number(path.name) for path in self.output_dir.iterdir()]
            first = max(taken, default=0) + 1
            names = (f"run_{i:02d}{self.comment}" for i in range(first, first + 10**6))
        return _make_first(self.output_dir, names)


def _make_first(parent: Path, names: Iterable[str]) -> Path:
    """Make the first folder that is not there; another process may be at it, too."""
    for name in names:
        try:
            (parent / name).mkdir()
        except FileExistsError:
            continue
        return parent / name
    raise ConfigError(
        "every name of a run is taken.",
        path=str(parent),
        hint="Choose another run_name, or remove old runs.",
    )


def _run_number(name: str) -> int:
    digits = name.removeprefix("run_") if name.startswith("run_") else ""
    count = len(digits) - len(digits.lstrip("0123456789"))
    return int(digits[:count]) if count else 0


def _writer_class() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "TensorBoardMonitorNode needs the package tensorboard, which is not installed.",
            hint="Install it (pip install 'hsi-batch[tensorboard]'), or remove the node.",
        ) from None
    return SummaryWriter


def _flat(given: Sequence[Any] | None) -> list[Any]:
    """The items of a list, or of a list of lists; those of plugins only need to look like ours."""
    items: list[Any] = []
    for item in given or ():
        if isinstance(item, list):
            items.extend(_flat(item))
        elif hasattr(item, "name") and hasattr(item, "value"):
            items.append(item)
        else:
            raise PipelineError(
                f"{item!r} came to a TensorBoardMonitorNode; expected a Metric or an Artifact."
            )
    return items


def _image(artifact: Any) -> NDArray[np.uint8]:
    """The picture of an artifact, as uint8."""
    value = np.asarray(artifact.value)
    if value.ndim != 3 or value.shape[-1] not in (1, 3) or not value.size:
        raise PipelineError(
            f"the artifact {artifact.name!r} has shape {value.shape}; expected (y, x, 3)."
        )
    if value.dtype == np.uint8:
        return value
    if value.dtype.kind != "f" or not (value.min() >= 0 and value.max() <= 1):
        raise PipelineError(
            f"the artifact {artifact.name!r} is {value.dtype} from {value.min()} to {value.max()};"
            " expected uint8, or floating point from 0 to 1."
        )
    return np.asarray(np.rint(value * 255), dtype=np.uint8)
