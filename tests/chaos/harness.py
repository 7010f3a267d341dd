"""Runs that are disturbed until they are done, and what must hold of them then."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import yaml
from chaos import counted, scenes
from chaos.drivers import Drivers
from chaos.faults import CODES, OWN, POINTS, Disk, Processes, draw, hit, hog, in_background

from hsi_batch.cluster import connect

_HERE = Path(__file__).parent
#: A command that is still there after so long hangs.
_PATIENCE = 150.0
_DAY = 86_400
#: Blocks that may be in flight when a fault strikes, by stage. Of these tiny archives, a task of
#: each worker converts up to nine blocks, which share a row of statistics and are recorded with it,
#: and one portion of statistics that a fit keeps is of all 27.
_IN_FLIGHT = {"convert": 18, "fit": 27, "train": 2, "score": 2}


class Harness:
    """A cluster that runs share, the sources, and the undisturbed results.

    Parameters
    ----------
    base : Path
    """

    def __init__(self, base):
        self.base = base
        self.logs = base / "logs"
        self.logs.mkdir(parents=True)
        self.sources = scenes.write_sources(base / "sources")
        self.environment = {
            "CHAOS_LOGS": str(self.logs),
            "PYTHONPATH": os.pathsep.join([str(_HERE.parent), os.environ.get("PYTHONPATH", "")]),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": '["chaos.counted"]',
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s",
            "DASK_HSI_BATCH__TASK_TIMEOUT": "10s",
        }
        os.environ.update(self.environment)
        self.disk = Disk(base / "disk")
        file = base / "local.yaml"
        file.write_text(yaml.safe_dump({"type": "local", "workers": 2, "memory": "1 GiB"}))
        self.client = connect(file)
        self.cluster = base / "cluster.yaml"
        self.cluster.write_text(f"type: existing\naddress: {self.client.scheduler.address}\n")
        self.drivers = Drivers(self.environment)
        self.counts = Counter()
        self.seconds, self.lines, self.expected = {}, {}, {}
        self.calm = self._calm()

    def close(self):
        self.drivers.close()
        self.client.close()
        self.disk.close()

    # -- runs --------------------------------------------------------------------------------

    def _calm(self):
        folder = self.disk.place / f"calm{counted.RUN}"
        folder.mkdir()
        for stage in scenes.STAGES:
            for _ in range(2):
                begun = time.monotonic()
                pid = self.start(folder, stage, "calm")
                code = self.drivers.wait(pid, _PATIENCE)
                assert code == 0, (stage, code, said(folder, "calm"))
                # The first one warms the workers.
                self.seconds.setdefault(stage, time.monotonic() - begun)
            self.lines[stage] = sum(
                line.startswith(stage) for line in self.log("calm").splitlines()
            )
            self.expected[stage] = scenes.results(folder, stage)
        assert scenes.left_over(folder) == []
        return folder

    def run(self, seed, *, whole):
        """One run with all its faults, compared with the undisturbed one.

        Parameters
        ----------
        seed : int
        whole : bool
            All four stages, instead of one of them on what undisturbed ones left.
        """
        rng = random.Random(seed)
        folder = self.disk.place / f"{seed}{counted.RUN}"
        folder.mkdir()
        stages = scenes.STAGES if whole else (scenes.STAGES[seed % 4],)
        try:
            if not whole:
                self._copy_before(folder, stages[0])
            for stage in stages:
                faults = [draw(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
                begun = time.monotonic()
                self.disturb(folder, stage, faults, rng)
                if os.environ.get("CHAOS_TOLD"):
                    print(seed, stage, f"{time.monotonic() - begun:.1f} s", faults, flush=True)
                self.check(folder, stage, faults)
            left = scenes.left_over(folder)
            assert not left, left
        except BaseException as error:
            if os.environ.get("CHAOS_TOLD"):
                print(f"{seed} FAILED: {str(error)[:1500]}", flush=True)
            shutil.copytree(folder, self.base / "failed" / folder.name, symlinks=True)
            raise
        finally:
            shutil.rmtree(folder)
        assert not list(self.logs.glob(f"{seed}.flaky-*"))

    def _copy_before(self, folder, stage):
        needed = {"convert": (), "fit": ("a",), "train": ("a",), "score": ("a", "f")}[stage]
        for path in self.calm.iterdir():
            if path.name.split(".")[0] in needed:
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, folder / path.name)

    def disturb(self, folder, stage, faults, rng):
        """Start a stage again and again, each time with the next fault, until it is done."""
        waiting = list(faults)
        for number in range(len(faults) + 3):
            fault = waiting.pop(0) if waiting else None
            code = self.attempt(folder, stage, fault, f"{stage}-{number}", rng)
            told = said(folder, f"{stage}-{number}")
            allowed = {0} | (CODES.get(fault.kind, set()) if fault else set())
            assert code in allowed, (stage, fault, code, told)
            for unwanted in ("Traceback", "defect", "unexpected"):
                assert unwanted not in told, (stage, fault, code, told)
            if code == 0 and not waiting:
                return
            if code == 0:
                # Done too soon for the faults that are left: begin anew.
                self._undo(folder, stage)
        raise AssertionError(f"{stage} was not done after {faults}")

    def _undo(self, folder, stage):
        for name in {"convert": "a", "fit": "f", "train": "t", "score": "s"}[stage]:
            for path in folder.glob(f"{name}.*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(folder / "outputs", ignore_errors=True)
        log = self.logs / f"{folder.stem}.log"
        log.write_text(
            "".join(x for x in self.log(folder.stem).splitlines(True) if not x.startswith(stage))
        )

    def start(self, folder, stage, name, *, own=False, **armed):
        cluster = ["--workers", "2"] if own else ["--cluster", self.cluster]
        command = [*scenes.command(stage, self.sources), *cluster]
        return self.drivers.start(command, folder, self.logs / f"{folder.stem}-{name}", **armed)

    def attempt(self, folder, stage, fault, name, rng):
        """Start a stage, let a fault happen, wait for its end; returns its exit code."""
        if fault is None:
            return self.drivers.wait(self.start(folder, stage, name), _PATIENCE)
        self.counts[fault.kind] += 1
        own = fault.kind in OWN
        armed = {}
        if fault.kind == "driver-kill-at-call":
            point = rng.choice(list(POINTS))
            armed = {"point": point, "count": 1 + int(fault.draw * POINTS[point])}
        pid = self.start(folder, stage, name, own=own, **armed)
        stopped = None
        if not armed and self._until(folder, stage, fault.moment, pid, own=own):
            stopped = self._inject(folder, stage, fault, pid, name)
        code = self.drivers.wait(pid, _PATIENCE)
        if code is None:
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            self.drivers.wait(pid, 10)
        self._heal(folder, fault, stopped)
        return code

    def _until(self, folder, stage, moment, pid, *, own):
        """Wait for the moment of a fault; whether the command is still there."""
        log = self.logs / f"{folder.stem}.log"
        before = self._done(log, stage)
        begun = time.monotonic()
        by_lines = moment < 1 and self.lines[stage]
        while (code := self.drivers.wait(pid, 0)) is None:
            if by_lines:
                if self._done(log, stage) - before >= moment * self.lines[stage]:
                    return True
            elif time.monotonic() - begun >= moment * self.seconds[stage] + 3 * own:
                return True
            if time.monotonic() - begun > 20 + 2 * self.seconds[stage]:
                # Less was left to do than the moment wanted.
                return True
            time.sleep(0.002)
        self._ended = code
        return False

    def _done(self, log, stage):
        with suppress(OSError):
            return sum(line.startswith(stage) for line in log.read_text().splitlines())
        return 0

    def _inject(self, folder, stage, fault, pid, name):
        """Let it happen; the number of a process that was stopped by it."""
        own = fault.kind in OWN
        cluster = Processes(pid if own else os.getpid())
        struck = {
            "worker-kill": (cluster.workers, signal.SIGKILL),
            "worker-term": (cluster.workers, signal.SIGTERM),
            "worker-hang": (cluster.workers, signal.SIGSTOP),
            "scheduler-kill": (cluster.scheduler, signal.SIGKILL),
            "nanny-kill": (cluster.nannies, signal.SIGKILL),
        }
        sent = {
            "driver-kill": signal.SIGKILL,
            "driver-kill-own": signal.SIGKILL,
            "clock-jump": signal.SIGKILL,
            "driver-term": signal.SIGTERM,
        }
        if fault.kind in struck:
            processes, number = struck[fault.kind]
            found = hit(processes, fault.draw, number)
            return found if fault.kind == "worker-hang" else None
        if fault.kind in sent:
            with suppress(OSError):
                os.kill(pid, sent[fault.kind])
            return None
        match fault.kind:
            case "worker-memory":
                workers = sorted(self.client.scheduler_info(n_workers=-1)["workers"])
                if workers:
                    chosen = workers[int(fault.draw * len(workers))]
                    in_background(self._let_take_memory, chosen)
            case "ctrl-c" | "ctrl-c-own" | "ctrl-c-twice":
                with suppress(OSError):
                    os.killpg(pid, signal.SIGINT)
                    if fault.kind == "ctrl-c-twice":
                        time.sleep(0.3 * fault.draw)
                        os.killpg(pid, signal.SIGINT)
            case "disk-full":
                self.disk.fill(inodes=fault.draw < 0.3, left=fault.draw)
            case "io-errors":
                for number in range(1 + int(2 * fault.draw)):
                    (self.logs / f"{folder.stem}.flaky-{number}").touch()
            case "second-run":
                second = self.start(folder, stage, f"{name}-second")
                code = self.drivers.wait(second, _PATIENCE)
                told = said(folder, f"{name}-second", self.logs)
                assert code in (0, 3), (fault, code, told)
        return None

    def _let_take_memory(self, worker):
        with suppress(Exception):
            self.client.run(hog, workers=[worker], on_error="ignore")

    def _heal(self, folder, fault, stopped):
        for token in self.logs.glob(f"{folder.stem}.flaky-*"):
            # Nobody read or wrote any more.
            token.unlink()
        if fault.kind == "disk-full":
            self.disk.empty()
        if fault.kind == "clock-jump":
            age = _DAY if fault.draw < 0.5 else -_DAY
            for path in folder.glob("*.hsi-batch/**/*"):
                stamp = path.stat().st_mtime + age
                os.utime(path, (stamp, stamp))
        if stopped is not None:
            with suppress(OSError):
                os.kill(stopped, signal.SIGKILL)
        if fault.kind.startswith("worker"):
            deadline = time.monotonic() + 60
            while len(Processes(os.getpid()).workers) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            self.client.wait_for_workers(2, timeout=60)

    # -- what must hold ----------------------------------------------------------------------

    def log(self, name):
        path = self.logs / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def check(self, folder, stage, faults):
        """The result is that of the undisturbed run, and nothing was done twice without need."""
        found, expected = scenes.results(folder, stage), self.expected[stage]
        assert found.keys() == expected.keys(), set(found) ^ set(expected)
        differing = [name for name in found if found[name] != expected[name]]
        shown = [(name, found[name], expected[name]) for name in differing[:1]]
        assert differing == [], (stage, faults, differing, str(shown)[:4000])
        times = Counter(x for x in self.log(folder.stem).splitlines() if x.startswith(stage))
        again = sum(count - 1 for count in times.values())
        assert again <= _IN_FLIGHT[stage] * len(faults), (stage, faults, times)


def said(folder, name, logs=None):
    """What a command wrote."""
    logs = logs or folder.parent.parent / "logs"
    return "".join(
        path.read_text(errors="replace")
        for ending in ("out", "err")
        if (path := logs / f"{folder.stem}-{name}.{ending}").exists()
    )


def mounting_is_permitted(base):
    """Whether small file systems can be made here."""
    base.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", base], check=False, capture_output=True
    )
    if done.returncode == 0:
        subprocess.run(["umount", base], check=True)
    return done.returncode == 0
