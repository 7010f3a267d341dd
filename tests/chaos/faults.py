"""What may befall a run, by real means: signals, memory, a disk of its own that is made full."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import NamedTuple

import psutil


class Fault(NamedTuple):
    """Kind, moment as a share of the undisturbed run, and what else was drawn."""

    kind: str
    moment: float
    draw: float


#: Kinds by how often they are drawn. Those of the second list need a cluster of their own.
SHARED = {
    "worker-kill": 5,
    "worker-term": 2,
    "worker-hang": 1,
    "worker-memory": 1,
    "driver-kill": 5,
    "driver-kill-at-call": 6,
    "driver-term": 2,
    "ctrl-c": 3,
    "ctrl-c-twice": 2,
    "disk-full": 4,
    "io-errors": 3,
    "second-run": 2,
    "clock-jump": 3,
}
OWN = {"scheduler-kill": 2, "nanny-kill": 1, "driver-kill-own": 1, "ctrl-c-own": 1}
#: Exit codes of the run itself, beside 0.
CODES = {
    "driver-kill": {-9},
    "driver-kill-own": {-9},
    "driver-kill-at-call": {-9},
    "clock-jump": {-9},
    "driver-term": {130},
    "ctrl-c": {130},
    "ctrl-c-own": {130},
    "ctrl-c-twice": {130},
    "disk-full": {3},
    # The second one was faster.
    "second-run": {3},
    "scheduler-kill": {1},
}
POINTS = {"fsync": 40, "rename": 60, "unlink": 12, "open": 60}


def draw(rng: random.Random, *, own: float = 0.06) -> Fault:
    """One fault; ``own`` is the share of those that need a cluster of their own."""
    kinds = OWN if rng.random() < own else SHARED
    (kind,) = rng.choices(list(kinds), list(kinds.values()))
    return Fault(kind, rng.uniform(0, 1.15), rng.random())


class Processes:
    """The processes of a cluster, found from the one that started it."""

    def __init__(self, root):
        self._below = []
        with suppress(psutil.Error):
            self._below = psutil.Process(root).children(recursive=True)

    def _named(self, text):
        found = []
        for process in self._below:
            with suppress(psutil.Error):
                if text in " ".join(process.cmdline()):
                    found.append(process)
        return sorted(found, key=lambda p: p.pid)

    @property
    def scheduler(self):
        return self._named("distributed.Scheduler")

    @property
    def nannies(self):
        return self._named("distributed.nanny") or self._named("Nanny")

    @property
    def workers(self):
        found = []
        for nanny in self.nannies:
            with suppress(psutil.Error):
                found += [c for c in nanny.children() if "spawn_main" in " ".join(c.cmdline())]
        return sorted(found, key=lambda p: p.pid)


def hit(processes, rng_draw, number=signal.SIGKILL):
    """Send a signal to one of some processes; its number."""
    if not processes:
        return None
    chosen = processes[int(rng_draw * len(processes))]
    with suppress(psutil.Error):
        chosen.send_signal(number)
    return chosen.pid


def hog():
    """Take more memory than a worker may, in its own process, until somebody ends it."""
    held = []
    for _ in range(200):
        held.append(b"x" * 2**24)
        time.sleep(0.005)


class Disk:
    """A small file system of its own that can be made full."""

    def __init__(self, place, megabytes=64):
        self.place = place
        self.megabytes = megabytes
        place.mkdir(parents=True)
        options = f"size={megabytes}m,nr_inodes=100k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)

    def fill(self, *, inodes, left):
        """Leave room for a few pages, or a few files."""
        for _ in range(20):
            state = os.statvfs(self.place)
            if inodes:
                size = f"nr_inodes={state.f_files - state.f_ffree + 1 + int(4 * left)}"
            else:
                used = (state.f_blocks - state.f_bfree) * state.f_frsize // 1024
                size = f"size={used + 4 + 4 * int(8 * left)}k"
            command = ["mount", "-o", f"remount,{size}", self.place]
            if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                return
            # More has been written since.

    def empty(self):
        size = f"size={self.megabytes}m,nr_inodes=100k"
        subprocess.run(["mount", "-o", f"remount,{size}", self.place], check=True)

    def close(self):
        for _ in range(50):
            if subprocess.run(["umount", self.place], check=False, capture_output=True).returncode:
                time.sleep(0.1)
                continue
            break
        shutil.rmtree(self.place, ignore_errors=True)


def in_background(function, *arguments):
    """Run something whose end nobody waits for."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread
