"""The command line as people run it: as a process, or in this one where many cases are tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hsi_batch.cli import main

PROGRAM = Path(sys.executable).with_name("hsi-batch")
MARK = "HSI_BATCH_TEST_MARK"


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """Standard output as strict JSON (no NaN)."""
        return json.loads(self.out, parse_constant=pytest.fail)

    def checked(self) -> Done:
        """What holds of every command: no traceback, no blame, no control codes."""
        text = self.out + self.err
        for unwanted in ("Traceback", "defect", "unexpected", "\x1b", "\r"):
            assert unwanted not in text, text
        return self


def command(*arguments, cwd=None, env=None) -> Done:
    """Run ``hsi-batch`` in a process of its own, without a terminal."""
    process = start(*arguments, cwd=cwd, env=env)
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err).checked()


def start(*arguments, cwd=None, env=None) -> subprocess.Popen:
    """Start ``hsi-batch`` in a process group of its own."""
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(name="hsi")
def hsi_fixture(capsys, monkeypatch, client):
    """Run ``main()`` in this process, on the workers that are there."""

    def call(*arguments) -> Done:
        monkeypatch.setattr(sys, "argv", ["hsi-batch", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code or 0, *capsys.readouterr()).checked()

    return call


@pytest.fixture(name="cluster_file", scope="session")
def cluster_file_fixture(client, tmp_path_factory) -> Path:
    """A cluster YAML of the workers that all tests share."""
    path = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    path.write_text(f"type: existing\naddress: {client.scheduler.address}\n")
    return path


def files_below(*folders) -> dict[Path, int]:
    """Everything below some folders, files with their modification time."""
    return {
        path: path.stat().st_mtime_ns if path.is_file() else 0
        for folder in folders
        for path in [Path(folder), *Path(folder).rglob("*")]
        if path.exists()
    }


def chunks(store) -> dict[Path, int]:
    """Modification time of every chunk of a store."""
    return {
        path: stamp
        for path, stamp in files_below(store).items()
        if path.is_file() and "/c." in str(path)
    }


class Marked:
    """An environment by which all processes of a run can be found again."""

    def __init__(self) -> None:
        self.env = {MARK: uuid.uuid4().hex}

    def alive(self) -> list[str]:
        """Commands of the processes that live."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.env[MARK]:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def wait(self) -> list[str]:
        """Processes that are still there after a while."""
        deadline = time.monotonic() + 20
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.alive()
