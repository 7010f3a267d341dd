"""What differs between batch systems: their commands, their directives, what they say of jobs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hsi_batch.cluster.fields import clock
from hsi_batch.cluster.queue_config import QueueConfig
from hsi_batch.errors import ClusterError

__all__ = ["QUEUES", "JobState", "Queue", "directives"]

_SECONDS = 30
_MIB = 2**20

_TIME = "its walltime is longer than is allowed"
_WHO = "this account may not"
#: Why SLURM does not start a job that it will not start without somebody's help.
_HOPELESS = {
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs",
    "PartitionConfig": "it asks for more memory, cores or time than the partition has",
    "PartitionNodeLimit": "it asks for more nodes or cores than the partition has",
    "PartitionTimeLimit": _TIME,
    "BadConstraints": "no node is as it asks for",
    "AccountNotAllowed": _WHO,
    "InvalidAccount": _WHO,
    "InvalidQOS": _WHO,
    "JobHeldUser": "it is held",
    "JobHeldAdmin": "it is held by those who run the cluster",
    "ReqNodeNotAvail": "the nodes that it asks for are down or reserved",
    "DependencyNeverSatisfied": "a job that it waits for has failed",
    "AssocMaxWallDurationPerJobLimit": _TIME,
    "QOSMaxWallDurationPerJobLimit": _TIME,
}


@dataclass(frozen=True)
class JobState:
    """What a batch system says of a job.

    Attributes
    ----------
    job : str
        Its number.
    state : str
        In the words of the system.
    reason : str
        Why it waits, or where it runs.
    hopeless : bool
        It waits for something that does not come by itself.
    """

    job: str
    state: str
    reason: str = ""
    hopeless: bool = False

    def __str__(self) -> str:
        return f"job {self.job} is {self.state}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class Queue:
    """A batch system.

    Attributes
    ----------
    name : str
    submit, cancel : tuple of str
        Commands.
    listing : tuple of str
        Command that lists the jobs of a name, which is put in for ``{}``.
    mark : str
        How directives begin.
    where : str
        Command that tells people of queues.
    job_id : str
        Shell variable in which a job finds its number.
    again : str
        Shell lines by which a job puts itself back into the queue.
    stdin : bool
        The job script is read from standard input.
    columns : mapping
        Numbers of the columns of ``listing`` with job, state and reason.
    hand_over : str
        Directive that names variables for jobs; empty if they get all.
    """

    name: str
    submit: tuple[str, ...]
    cancel: tuple[str, ...]
    listing: tuple[str, ...]
    mark: str
    where: str
    job_id: str
    again: str
    stdin: bool = False
    columns: Mapping[str, int] = field(default_factory=lambda: {"job": 0, "state": 1, "reason": 2})
    hand_over: str = ""

    def check(self) -> None:
        """See that the commands are there.

        Raises
        ------
        hsi_batch.errors.ClusterError
        """
        if shutil.which(self.submit[0]) is None:
            raise ClusterError(
                f"there is no command {self.submit[0]} here, so no {self.name} to send jobs to.",
                hint="Run this on a login node of the cluster, or choose another cluster YAML.",
            )

    def send(self, script: str, *options: str) -> str:
        """Submit the text of a job script; gives the number of the job.

        Raises
        ------
        hsi_batch.errors.ClusterError
            In the words of the batch system.
        """
        self.check()
        done = run(*self.submit, *options, text=script)
        if done.returncode:
            raise refused(self, f"{done.stderr}\n{done.stdout}")
        words = done.stdout.replace("<", " ").replace(">", " ").split()
        numbers = [word for word in words if word[:1].isdigit()]
        if not numbers:
            raise refused(self, done.stdout)
        return numbers[0].partition(";")[0]

    def states(self, *names: str) -> list[JobState]:
        """What the system says of jobs with these names; none that have ended."""
        found = []
        for name in names:
            done = run(*(part.replace("{}", name) for part in self.listing))
            found += [self._state(line) for line in done.stdout.splitlines() if line.strip()]
        return [state for state in found if state is not None]

    def _state(self, line: str) -> JobState | None:
        parts = [p.strip() for p in (line.split("|") if "|" in line else line.split())]
        if len(parts) <= max(self.columns.values()) or not parts[0][:1].isdigit():
            return None
        job, state, reason = (parts[self.columns[key]] for key in ("job", "state", "reason"))
        waiting = state in ("PENDING", "PD")
        known = _HOPELESS.get(reason.partition(",")[0].strip("() ")) if waiting else None
        told = f"{reason}: {known}" if known else reason
        return JobState(job, state, "" if reason == "None" else told, known is not None)

    def stop(self, jobs: Iterable[str]) -> None:
        """Cancel jobs by their numbers; those that are gone are left alone."""
        numbers = list(dict.fromkeys(jobs))
        if numbers:
            run(*self.cancel, *numbers)


def run(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of a batch system.

    Raises
    ------
    hsi_batch.errors.ClusterError
        It is not there, or does not answer.
    """
    try:
        return subprocess.run(  # noqa: S603 - commands of the table below
            command, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"{command[0]} gives no answer for {_SECONDS} s.", hint="Ask those who run the cluster."
        ) from None
    except OSError as error:
        raise ClusterError(
            f"{command[0]} cannot be run ({error}).",
            hint="Run this on a login node of the cluster, or choose another cluster YAML.",
        ) from None


def refused(queue: Queue, said: str) -> ClusterError:
    """The error of a job that was not taken, in the words of the batch system."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = " ".join(line for line in lines if "error" in line.lower()) or " ".join(lines)
    return ClusterError(
        f"{queue.name} refused the job: {told[:500] or 'it gave no number'}",
        hint=f"Change `queue`, `memory`, `walltime` or `directives` in the cluster YAML;"
        f" `{queue.where}` tells what there is.",
    )


QUEUES: Mapping[str, Queue] = {
    "slurm": Queue(
        "SLURM",
        ("sbatch", "--parsable"),
        ("scancel",),
        ("squeue", "--noheader", "--me", "--name={}", "--format=%i|%T|%r"),
        "#SBATCH",
        "sinfo",
        "SLURM_JOB_ID",
        'scontrol requeue "$SLURM_JOB_ID"',
    ),
    "pbs": Queue(
        "PBS",
        ("qsub",),
        ("qdel",),
        ("sh", "-c", "qselect -N '{}' | xargs -r qstat"),
        "#PBS",
        "qstat -Q",
        "PBS_JOBID",
        'qsub "$HSI_BATCH_JOB_FOLDER/driver.sh"',
        columns={"job": 0, "state": 4, "reason": 5},
        hand_over="-v {}",
    ),
    "lsf": Queue(
        "LSF",
        ("bsub",),
        ("bkill",),
        ("bjobs", "-noheader", "-J", "{}", "-o", "jobid stat pend_reason delimiter='|'"),
        "#BSUB",
        "bqueues",
        "LSB_JOBID",
        'brequeue "$LSB_JOBID"',
        stdin=True,
    ),
    "sge": Queue(
        "SGE",
        ("qsub",),
        ("qdel",),
        ("sh", "-c", "qstat | grep -F '{}'"),
        "#$",
        "qconf -sql",
        "JOB_ID",
        "exit 99",
        columns={"job": 0, "state": 4, "reason": 7},
        hand_over="-v {}",
    ),
}


def directives(
    config: QueueConfig, name: str, *, log: str, cores: int, memory: int, walltime: float
) -> list[str]:
    """Lines by which a job script asks its batch system for what it needs.

    Parameters
    ----------
    config : QueueConfig
    name : str
        Of the job.
    log : str
        File for what it prints; a job that starts again adds to it.
    cores : int
    memory : int
        Bytes.
    walltime : float
        Seconds.
    """
    mib = -(-memory // _MIB)
    queue = config.driver.queue or config.queue
    account = config.account
    per_slot = -(-mib // cores)
    wanted = {
        "slurm": [
            f"--job-name={name}",
            f"--output={log}",
            "--open-mode=append",
            "--requeue",
            "--ntasks=1",
            f"--cpus-per-task={cores}",
            f"--mem={mib}M",
            f"--time={clock(walltime)}",
            *([f"--partition={queue}"] if queue else []),
            *([f"--account={account}"] if account else []),
        ],
        "pbs": [
            f"-N {name}",
            "-j oe",
            f"-o {log}",
            "-r y",
            f"-l select=1:ncpus={cores}:mem={mib}mb",
            f"-l walltime={clock(walltime)}",
            *([f"-q {queue}"] if queue else []),
            *([f"-A {account}"] if account else []),
        ],
        "lsf": [
            f"-J {name}",
            f"-o {log}",
            "-r",
            f"-n {cores}",
            '-R "span[hosts=1]"',
            f"-M {mib}MB",
            f"-W {clock(walltime)[:-3]}",
            *([f"-q {queue}"] if queue else []),
            *([f'-P "{account}"'] if account else []),
        ],
        "sge": [
            f"-N {name}",
            "-j y",
            f"-o {log}",
            "-r y",
            "-cwd",
            "-S /bin/bash",
            *([f"-pe smp {cores}"] if cores > 1 else []),
            f"-l h_vmem={per_slot}M",
            f"-l h_rt={clock(walltime)}",
            *([f"-q {queue}"] if queue else []),
            *([f"-P {account}"] if account else []),
        ],
    }[config.type]
    found = QUEUES[config.type]
    if config.environment and found.hand_over:
        wanted.append(found.hand_over.format(",".join(config.environment)))
    return [f"{found.mark} {line}" for line in (*wanted, *config.driver.directives)]
