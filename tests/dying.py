"""``hsi-batch`` in processes that are killed (SIGKILL) at the n-th call of one of its functions.

All are forked from one process that has imported everything, for that takes longest.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

#: Where a training may be killed: module, class or nothing, function.
POINTS = {
    "fit": ("hsi_batch.stages.fit_pass", None, "run_window"),
    "step": ("hsi_batch.training.module", "TrainingModule", "training_step"),
    "val": ("hsi_batch.training.module", "TrainingModule", "validation_step"),
    "epoch": ("hsi_batch.training.module", "TrainingModule", "on_train_epoch_end"),
    "write": ("os", None, "fsync"),
    "rename": ("pathlib", "Path", "replace"),
    "save": ("hsi_batch.pipeline.pipeline", "Pipeline", "save"),
}
#: No folder of tests may hide a module of the program.
_HERE = Path(__file__).parent


def run_each(arguments, lives, timeout):
    """Run a command once for each life ``(cwd, point or None, count)``, one after the other.

    Returns
    -------
    list of (bool, str, str)
        Whether it was killed, its standard output, and its standard error.
    """
    given = json.dumps([[str(a) for a in arguments], [[str(c), p, n] for c, p, n in lives]])
    done = subprocess.run(
        [sys.executable, __file__],
        input=given,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p != str(_HERE))},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(life) for life in json.loads(done.stdout)]


def _live(arguments, cwd, point, count):
    os.chdir(cwd)
    for stream, name in ((1, "out.txt"), (2, "err.txt")):
        os.dup2(os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
    if point is not None:
        _arm(point, count)
    sys.argv = ["hsi-batch", *arguments]
    from hsi_batch.cli import main

    code = 1
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001 - nothing may reach the loop of the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _arm(point, count):
    module, cls, name = POINTS[point]
    owner = importlib.import_module(module)
    owner = owner if cls is None else getattr(owner, cls)
    real, left = getattr(owner, name), count

    def dying(*given, **options):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **options)

    setattr(owner, name, dying)


def _main():
    arguments, lives = json.load(sys.stdin)
    for module in ("hsi_batch.cli", "hsi_batch.training.loop", "hsi_batch.training.trained_run"):
        importlib.import_module(module)
    told = []
    for cwd, point, count in lives:
        child = os.fork()
        if not child:
            _live(arguments, cwd, point, count)
        _, status = os.waitpid(child, 0)
        dead = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        said = [Path(cwd, name) for name in ("out.txt", "err.txt")]
        told.append([dead, *(path.read_text() for path in said)])
        for path in said:
            path.unlink()
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _HERE]
    _main()
