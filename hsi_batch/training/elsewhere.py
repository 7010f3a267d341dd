"""A training on one worker of a cluster, whose files, values and progress come back here."""

from __future__ import annotations

import contextlib
import copy
import time
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from distributed import Client, KilledWorker, get_worker, wait

from hsi_batch.archive.layout import BlockKey
from hsi_batch.engine.carried import submit_carried
from hsi_batch.engine.events import Observer
from hsi_batch.errors import ClusterError, ConfigError, DataWarning
from hsi_batch.files import Closing, write_atomically
from hsi_batch.nodes import TensorBoardMonitorNode
from hsi_batch.stages.run import Run, cluster_at_hand
from hsi_batch.training.checkpoints import STATE, Mail, state_from
from hsi_batch.training.config import TrainerConfig
from hsi_batch.training.loop import best_of, conclude, run_stretch
from hsi_batch.training.node_state import restore_pipeline_state
from hsi_batch.training.results import Best, TrainProgress, TrainResult

if TYPE_CHECKING:
    from hsi_batch.training.gradient import GradientTrainer

__all__ = ["check_offered", "run_elsewhere"]

#: What a lost worker costs at most, besides the epoch that it was in.
_STRETCH_SECONDS = 20.0
#: Between two reports of progress.
_REPORT_SECONDS = 0.5
#: Between two looks at how far it is.
_LOOK_SECONDS = 0.25
#: How long to wait for a worker when none is left.
_PATIENCE_SECONDS = 120.0
#: Name of the state that goes back and forth.
_LAST = "last-of-the-stretch.ckpt"


@dataclass
class _Part:
    """What came of a stretch of epochs."""

    state: bytes
    mail: Mail
    steps: int
    seconds: float
    waited: float
    device: str
    ended: bool
    best: Best | None
    failures: dict[BlockKey, str]
    before: int
    progress: dict[str, Any]
    calls: list[tuple[str | None, str, tuple[Any, ...], dict[str, Any]]] = field(
        default_factory=list
    )


class _Recorder:
    """Stands for a log; keeps what is written to it, so that it can be written elsewhere."""

    def __init__(self, name: str | None, calls: list[Any]) -> None:
        self._name = name
        self._calls = calls

    def log(self, name: str, value: float, step: int) -> None:
        self._calls.append((self._name, "log", (name, value, step), {}))

    def add_scalar(self, *given: Any, **options: Any) -> None:
        self._calls.append((self._name, "add_scalar", given, options))

    def add_image(self, *given: Any, **options: Any) -> None:
        self._calls.append((self._name, "add_image", given, options))

    def flush(self) -> None:
        """Nothing waits here."""

    close = flush


def run_elsewhere(
    owner: GradientTrainer,
    resume: Path | None,
    last: Path | None,
    client: Client | None,
    resources: Mapping[str, float],
) -> TrainResult:
    """Train the pipeline of a trainer on a worker that offers the resources.

    The training goes in stretches of epochs, at least one each. Of each, the state comes back, and
    with it the checkpoints and what was logged, which are written here: the worker needs to see
    nothing but the archive. If it is lost, another one does the stretch again.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No worker offers the resources.
    hsi_batch.errors.ClusterError
        Workers died, again and again; what was trained until then is kept in ``last``.
    """
    resume = last if resume is None and last is not None and last.exists() else resume
    state = None if resume is None else resume.read_bytes()
    if state is not None:
        state_from(state, str(resume))
    sums = {"seconds": 0.0, "waited": 0.0}
    failures: dict[BlockKey, str] = {}
    resumed: int | None = None
    cluster = check_offered(client, resources)
    with Run(cluster, scoring=True) as run, _Ear(run.client, owner.observer) as ear:
        ended = False
        while not ended:
            part = _stretch(owner, run.client, resources, state, ear)
            ear.tell(part.progress)
            state, ended = part.state, part.ended
            part.mail.deliver()
            if last is not None:
                write_atomically(last, state)
            _replay(owner, part.calls)
            for key, reason in part.failures.items():
                if key not in failures:
                    failures[key] = reason
                    warnings.warn(f"a frame was left out: {reason}", DataWarning, stacklevel=4)
            resumed = part.before if resumed is None else resumed
            sums["seconds"] += part.seconds
            sums["waited"] += part.waited
    held = state_from(part.state, _LAST)[STATE]
    restore_pipeline_state(owner.pipeline, held["nodes"])
    for monitor in owner.monitors:
        getattr(monitor, "flush", lambda: None)()
    return conclude(
        owner,
        history=[dict(values) for values in held["history"]],
        best=part.best,
        steps=part.steps,
        device=part.device,
        resumed=resumed or 0,
        failures=failures,
        **sums,
    )


def check_offered(client: Client | None, resources: Mapping[str, float]) -> Client:
    """The cluster that is there, one of whose workers offers the resources.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There is no cluster, or none of its workers does.
    """
    wanted = ", ".join(f"{name}: {value:g}" for name, value in resources.items())
    found = cluster_at_hand(client)
    if found is None:
        raise ConfigError(
            f"the training asks for a worker that offers {wanted}, and there is no cluster.",
            hint="Name one (--cluster), or remove `resources` to train in this process.",
        )
    if not _offers(found, resources):
        raise ConfigError(
            f"no worker of the cluster offers the resources of the training ({wanted}).",
            hint="Start one with them (dask worker --resources, or `resources` in the cluster"
            " YAML), or remove `resources` to train in this process.",
        )
    return found


def _offers(client: Client, resources: Mapping[str, float]) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(
        all(worker.get("resources", {}).get(name, 0) >= value for name, value in resources.items())
        for worker in workers
    )


def _stretch(
    owner: GradientTrainer,
    client: Client,
    resources: Mapping[str, float],
    state: bytes | None,
    ear: _Ear,
) -> _Part:
    """One stretch, on a worker that has the resources; on another one if that is lost."""
    sent = copy.copy(owner)
    sent.observer, sent.monitors, sent.result = None, [], None
    sent.trainer_config = _with_whole_paths(owner.trainer_config)
    future = submit_carried(
        client, _on_worker, sent, state, _STRETCH_SECONDS, _REPORT_SECONDS, ear.topic,
        key=f"train-{uuid.uuid4().hex}", resources=dict(resources), retries=0,
    )  # fmt: skip
    missing_since: float | None = None
    try:
        while not future.done():
            with contextlib.suppress(TimeoutError):
                wait(future, timeout=_LOOK_SECONDS)
            ear.tell()
            now = time.monotonic()
            missing_since = None if _offers(client, resources) else (missing_since or now)
            if missing_since is not None and now - missing_since > _PATIENCE_SECONDS:
                raise ClusterError(
                    "no worker is left that offers the resources of the training.",
                    hint="Start one, and the command again; the training goes on from its last"
                    " epochs.",
                )
        found: _Part = future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"the worker died each of {error.allowed_failures + 1} times it trained; it may need"
            " more memory than it has.",
            hint="Use smaller batches or patches. The same command goes on from the last epochs.",
        ) from None
    finally:
        future.cancel()
    return found


def _with_whole_paths(config: TrainerConfig) -> TrainerConfig:
    """The settings, with paths that mean the same wherever the worker stands."""
    config = config.model_copy(deep=True)
    if config.callbacks is not None and config.callbacks.checkpoint is not None:
        kept = config.callbacks.checkpoint
        kept.dirpath = str(Path(kept.dirpath).absolute())
    return config


def _on_worker(
    owner: GradientTrainer, state: bytes | None, seconds: float, often: float, topic: str
) -> _Part:
    calls: list[Any] = []
    owner.monitors = [_Recorder(None, calls)]
    owner.observer = _Reports(topic, often)
    for name, node in owner.pipeline.nodes.items():
        if isinstance(node, TensorBoardMonitorNode):
            node.write_to(_Recorder(name, calls))
    mail = Mail(_LAST, state)
    place = Path(_LAST)
    with warnings.catch_warnings():
        # Failures come back, and are told there.
        warnings.simplefilter("ignore", DataWarning)
        done = run_stretch(owner, None if state is None else place, place, mail, seconds)
    assert mail.content is not None
    content, mail.content = mail.content, None
    return _Part(
        state=content,
        mail=mail,
        steps=done.steps,
        seconds=done.seconds,
        waited=done.waited,
        device=f"{done.device} of {get_worker().address}",
        ended=not done.paused,
        best=None if done.kept is None else best_of(done.kept),
        failures=done.failures,
        before=done.before,
        progress=_plain(done.module.progress),
        calls=calls,
    )


class _Reports:
    """Sends progress, not more often than one can look at."""

    def __init__(self, topic: str, often: float) -> None:
        self._topic = topic
        self._often = often
        self._last = 0.0

    def __call__(self, progress: Any) -> None:
        now = time.monotonic()
        if progress.done < progress.total and now - self._last < self._often:
            return
        self._last = now
        get_worker().log_event(self._topic, _plain(progress))


def _plain(progress: TrainProgress) -> dict[str, Any]:
    names = ("total", "done", "epoch", "epochs", "loss", "waited")
    return {name: getattr(progress, name) for name in names}


class _Ear(Closing):
    """Hears how far the worker is, and tells the observer, in the thread that waits.

    Parameters
    ----------
    client : distributed.Client
    observer : callable, optional
    """

    def __init__(self, client: Client, observer: Observer | None) -> None:
        self.topic = f"hsi-batch-train-{uuid.uuid4().hex}"
        self._client = client
        self._observer = observer
        self._heard: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        self._told = TrainProgress("train", 0)
        self._least = 0
        if observer is not None:
            client.subscribe_topic(self.topic, lambda event: self._heard.put(event[1]))

    def tell(self, done: Mapping[str, Any] | None = None) -> None:
        """Tell what was heard, and then what is known; nothing older is told after that."""
        while not self._heard.empty():
            self._say(self._heard.get())
        if done is not None:
            self._say(done)
            self._least = done["done"]

    def _say(self, values: Mapping[str, Any]) -> None:
        if self._observer is None or values["done"] <= self._least:
            return
        for name, value in values.items():
            setattr(self._told, name, value)
        self._observer(self._told)

    def close(self) -> None:
        """Hear no more."""
        if self._observer is not None:
            with contextlib.suppress(Exception):
                self._client.unsubscribe_topic(self.topic)


def _replay(owner: GradientTrainer, calls: list[Any]) -> None:
    for name, call, given, options in calls:
        if name is None:
            for monitor in owner.monitors:
                monitor.log(given[0], given[1], step=given[2])
        else:
            node = owner.pipeline.nodes[name]
            assert isinstance(node, TensorBoardMonitorNode)
            getattr(node.writer, call)(*given, **options)
