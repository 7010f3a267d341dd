"""Processes of embedded clusters."""

from __future__ import annotations

import os
import signal
import time

import psutil


def gone_within_a_minute(pids):
    """The processes among ``pids`` that are still there after a minute; mostly none, and soon."""
    deadline = time.monotonic() + 60
    while (left := [pid for pid in pids if runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants(pid=None):
    """Processes that a process started, and those that they did."""
    return {p.pid for p in psutil.Process(pid).children(recursive=True)}


def kill_a_worker(client):
    """Kill one of the workers that answer; one that has just died may still be listed."""
    while not (pids := client.run(os.getpid, on_error="ignore")):
        time.sleep(0.1)
    pid = next(iter(pids.values()))
    os.kill(pid, signal.SIGKILL)
    return pid
