"""The job script of a run: a driver that starts its workers, and goes on after its walltime."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hsi_batch.cluster.jobqueue import DRIVER, FOLDER, prologue
from hsi_batch.cluster.queue_config import QueueConfig
from hsi_batch.cluster.queues import QUEUES, directives

__all__ = ["LOG", "driver_script", "step_script"]

#: What the driver prints, in the folder of the job.
LOG = "driver.log"
#: Share of the walltime, and most seconds of it, that are kept for ending in order.
_SHARE, _MOST = 0.25, 300.0
#: Python of a slice, in addition to what a worker may take.
_SLICE_BYTES = 2**29
_RUN = """\
starts=$(cat {folder}/starts 2>/dev/null || echo 0)
echo $((starts + 1)) >{folder}/starts
rm -f {folder}/ended
timeout --foreground --signal=TERM --kill-after=60 {seconds} \\
    {command} &
child=$!
trap 'kill -TERM $child' TERM USR1
wait $child
code=$?
while kill -0 $child 2>/dev/null; do
    wait $child
    code=$?
done
# 124 and 137: the walltime is nearly over, and the run is not done.
if [ $code = 124 ] || [ $code = 137 ]; then
    if [ "$starts" -lt {restarts} ]; then
        echo "hsi-batch: the walltime ends; this job goes on in the next one."
        {again}
        sleep 60
        exit $code
    fi
    echo "hsi-batch: the walltime ends, and the job was started again {restarts} times already."
fi
echo $code >{folder}/ended
exit $code
"""


def driver_script(config: QueueConfig, name: str, folder: Path, arguments: Sequence[str]) -> str:
    """The script of the job that runs ``hsi-batch`` with these arguments.

    Parameters
    ----------
    config : QueueConfig
    name : str
        Of the job; its workers' jobs are named after it.
    folder : Path
        Of the job, which all nodes see.
    arguments : sequence of str
        Of the command line.
    """
    driver = config.driver
    walltime = max(driver.walltime or config.walltime, 60.0)
    lines = directives(
        config,
        name,
        log=str(folder / LOG),
        cores=driver.cores,
        memory=driver.memory,
        walltime=walltime,
    )
    if config.pattern == "allocation":
        # Workers and driver share the job; each task has the memory of a worker.
        own = max(driver.cores, -(-driver.memory // config.memory))
        kept = [x for x in lines if not any(k in x for k in ("--ntasks", "--cpus", "--mem"))]
        mib = -(-config.memory // 2**20)
        lines = [
            *kept,
            f"#SBATCH --ntasks={config.workers + own}",
            "#SBATCH --cpus-per-task=1",
            f"#SBATCH --mem-per-cpu={mib}M",
        ]
    where = shlex.quote(str(folder))
    body = _RUN.format(
        folder=where,
        seconds=int(walltime - min(_MOST, _SHARE * walltime)),
        command=_command(config, arguments),
        restarts=driver.restarts,
        again=QUEUES[config.type].again,
    )
    exports = f"export {DRIVER}={name} {FOLDER}={where}"
    return "\n".join(["#!/bin/bash", *lines, exports, *prologue(config), body])


def step_script(
    config: QueueConfig,
    name: str,
    folder: Path,
    step: str,
    arguments: Sequence[str],
    *,
    slices: int = 0,
) -> str:
    """The script of a job of SLURM that starts no workers elsewhere: a step of a run in slices.

    Parameters
    ----------
    config, name, folder, arguments
        As for :func:`driver_script`.
    step : str
        Names its log. The one called ``last`` tells that the run is done.
    slices : int
        The job is an array of so many; ``K`` in the arguments is the number of each.
    """
    memory = config.memory + _SLICE_BYTES if slices else max(config.driver.memory, config.memory)
    lines = directives(
        config,
        name,
        log=str(folder / f"step-{step}{'-%a' * bool(slices)}.log"),
        cores=1 if slices else config.driver.cores,
        memory=memory,
        walltime=config.walltime,
    )
    if slices:
        lines.append(f"#SBATCH --array=1-{slices}")
    command = _command(config, arguments).replace("K/", '"$SLURM_ARRAY_TASK_ID"/')
    ended = f"echo $code >{shlex.quote(str(folder))}/ended"
    note = f"[ $code = 0 ] || {ended}" if step != "last" else ended
    tail = ["code=$?", note, "exit $code", ""]
    return "\n".join(["#!/bin/bash", *lines, *prologue(config), command, *tail])


def _command(config: QueueConfig, arguments: Sequence[str]) -> str:
    python = config.python or shlex.quote(sys.executable)
    return f"{python} -m hsi_batch {shlex.join(arguments)}"
