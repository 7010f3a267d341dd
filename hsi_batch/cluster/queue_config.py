"""What the YAML of a cluster with a batch queue may say."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from hsi_batch.cluster.fields import Bytes, ClusterPart, Line, Place, Resources, Seconds, Word

__all__ = ["AdaptiveConfig", "DriverConfig", "GroupConfig", "QueueConfig", "QueueType"]

QueueType = Literal["slurm", "pbs", "lsf", "sge"]
_GIB = 2**30


class AdaptiveConfig(ClusterPart):
    """As many workers as there is work for.

    Attributes
    ----------
    minimum, maximum : int
        Workers.
    """

    minimum: int = Field(default=1, ge=0)
    maximum: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError("`minimum` is more than `maximum`")
        return self


class GroupConfig(ClusterPart):
    """More workers, of another kind; what is left out is that of the others.

    Attributes
    ----------
    workers : int
    memory : int, optional
        Bytes of a worker.
    queue, walltime : optional
    directives : list of str
        Lines for the batch system, such as ``--gres=gpu:1``.
    resources : dict
        What each worker offers to work that asks for it, such as ``TRAIN: 1``.
    """

    workers: int = Field(default=1, ge=1)
    memory: Bytes | None = None
    queue: Word | None = None
    walltime: Seconds | None = None
    directives: list[Line] = Field(default_factory=list)
    resources: Resources = Field(default_factory=dict)


class DriverConfig(ClusterPart):
    """The job that ``hsi-batch submit`` sends; it plans, hands out tasks and commits.

    Attributes
    ----------
    memory, cores, walltime, queue : optional
        4 GiB, 2 cores; walltime and queue are those of the workers by default.
    directives : list of str
    restarts : int
        So often the job is put back into the queue when its walltime ends.
    """

    memory: Bytes = 4 * _GIB
    cores: int = Field(default=2, ge=1)
    walltime: Seconds | None = None
    queue: Word | None = None
    directives: list[Line] = Field(default_factory=list)
    restarts: int = Field(default=50, ge=0)


class QueueConfig(ClusterPart):
    """Workers as jobs of a batch system, by dask-jobqueue; one thread each.

    Attributes
    ----------
    type : {"slurm", "pbs", "lsf", "sge"}
    workers : int
        Number of workers; ``adaptive`` wins.
    adaptive : AdaptiveConfig, optional
    workers_per_job : int
        Workers that share a job.
    memory : int
        Bytes of a worker; one that takes more is started again.
    walltime : float
        Seconds of a job. Workers end before it by themselves, at different times, and others are
        sent in their place.
    queue, account : str, optional
        Partition or queue; who pays.
    scratch : str, optional
        Folder on the node for spilled data, such as ``/scratch`` or ``$TMPDIR``.
    folder : str, optional
        Folder that all nodes see, for logs and certificates; ``~/.cache/hsi-batch`` by default.
    interface : str, optional
        Network interface, such as ``ib0``.
    setup : list of str
        Shell lines before the worker starts, such as ``module load python``.
    python : str, optional
        Python on the nodes; this one by default.
    directives : list of str
        More lines for the batch system, such as ``--constraint=skylake``.
    environment : list of str
        Names of variables that are handed to the jobs; the place for secrets.
    resources : dict
        What each worker offers to work that asks for it.
    groups : dict
        More workers, of other kinds, by name.
    pattern : {"jobs", "allocation"}
        ``allocation``: a submitted run has all its workers in one job (SLURM).
    driver : DriverConfig
    timeout : float
        Seconds to wait for the first worker.
    security : {"temporary", "none"}
        TLS with a certificate that is made for the run and that only you can read.
    dashboard : bool
        Serve Dask's dashboard on the machine of the driver, on the loopback address; a submitted
        run keeps Dask's performance report beside its logs.
    options : dict
        Passed on to the class of dask-jobqueue; wins.
    """

    type: QueueType
    workers: int = Field(default=4, ge=1)
    adaptive: AdaptiveConfig | None = None
    workers_per_job: int = Field(default=1, ge=1)
    memory: Bytes = 4 * _GIB
    walltime: Seconds = 3600.0
    queue: Word | None = None
    account: Word | None = None
    scratch: Place | None = None
    folder: str | None = None
    interface: Word | None = None
    setup: list[Line] = Field(default_factory=list)
    python: Line | None = None
    directives: list[Line] = Field(default_factory=list)
    environment: list[Word] = Field(default_factory=list)
    resources: Resources = Field(default_factory=dict)
    groups: dict[Word, GroupConfig] = Field(default_factory=dict)
    pattern: Literal["jobs", "allocation"] = "jobs"
    driver: DriverConfig = Field(default_factory=DriverConfig)
    timeout: Seconds = 600.0
    security: Literal["temporary", "none"] = "temporary"
    dashboard: bool = False
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.pattern == "allocation" and self.type != "slurm":
            raise ValueError("`pattern: allocation` needs SLURM; leave it out")
        if self.pattern == "allocation" and (self.adaptive or self.groups):
            raise ValueError("one allocation has one kind of workers, and a fixed number of them")
        if self.adaptive and self.groups:
            raise ValueError("`adaptive` and `groups` do not go together")
        return self

    @property
    def most(self) -> int:
        """Workers at most, without those of groups."""
        return self.adaptive.maximum if self.adaptive else self.workers

    @property
    def jobs(self) -> int:
        """Jobs with these workers at most."""
        return -(-self.most // self.workers_per_job)

    def lifetime(self, walltime: float | None = None) -> tuple[float, float]:
        """Seconds after which a worker ends by itself, give or take the second number."""
        whole = max(walltime or self.walltime, 60.0)
        margin, stagger = min(120.0, 0.1 * whole), min(240.0, 0.1 * whole)
        return whole - margin - stagger, stagger
