"""``hsi-batch`` in processes that are forked from one that has imported everything.

Importing takes longest, and chaos starts a thousand commands. Run as a script this is the process
that forks; :class:`Drivers` talks to it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

#: No folder of tests may hide a module of the program.
_HERE = Path(__file__).parent
_MODULES = (
    "hsi_batch.cli",
    "hsi_batch.stages.convert",
    "hsi_batch.stages.score",
    "hsi_batch.stages.fit_file",
    "hsi_batch.stages.warm",
    "hsi_batch.training.loop",
    "hsi_batch.training.trained_run",
)
#: Functions at whose n-th call a driver may kill itself.
POINTS = {
    "fsync": ("os", None, "fsync"),
    "rename": ("pathlib", "Path", "replace"),
    "unlink": ("pathlib", "Path", "unlink"),
    "open": ("os", None, "open"),
}


class Drivers:
    """Starts commands, and waits for them.

    Parameters
    ----------
    environment : dict
        Of the commands, beside that of this process.
    """

    def __init__(self, environment):
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _ask(self, **request):
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, arguments, folder, name, point=None, count=0):
        """Start a command in a folder; what it says goes to files of that name."""
        return self._ask(
            start=[str(a) for a in arguments],
            cwd=str(folder),
            name=str(name),
            point=point,
            count=count,
        )

    def wait(self, pid, seconds):
        """Exit code of a command, negative for a signal; None if it still runs after a while."""
        deadline = time.monotonic() + seconds
        while (code := self._ask(wait=pid)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return code

    def close(self):
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()


def _serve():
    for module in _MODULES:
        importlib.import_module(module)
    _make_small()
    ended = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            child = os.fork()
            if not child:
                _live(**request)
            # Numbers of processes come again.
            ended.pop(child, None)
            answer = child
        else:
            wanted = request["wait"]
            if wanted not in ended:
                pid, status = os.waitpid(wanted, os.WNOHANG)
                if pid:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(wanted)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _make_small():
    """Many tasks and portions of little data, and a line in the log for each epoch."""
    from hsi_batch.stages import convert, fit, fit_partials, score
    from hsi_batch.training.module import TrainingModule

    for function in (convert.convert, fit.fit, score.score):
        function.__kwdefaults__["task_bytes"] = 20_000
    fit_partials._PIXELS_PER_BYTE = 0
    fit_partials.DISK_SHARE = 10.0
    ended = TrainingModule.on_train_epoch_end

    def noted(module):
        name = Path.cwd().stem
        with Path(os.environ["CHAOS_LOGS"], f"{name}.log").open("a") as log:
            log.write(f"train {module.current_epoch}\n")
        ended(module)

    TrainingModule.on_train_epoch_end = noted


def _live(start, cwd, name, point, count):
    os.setsid()
    os.chdir(cwd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{ending}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
    if point is not None:
        _arm(point, count)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["hsi-batch", *start]
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
        sys.stderr.flush()
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


if __name__ == "__main__":
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _HERE]
    _serve()
