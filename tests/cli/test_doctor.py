"""``doctor`` and ``top``: under real conditions, good and bad."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from commands import PROGRAM
from given import renewed

from hsi_batch.stages import doctor, doctor_machine


def findings(done):
    return {each["check"]: each for each in done.json["findings"]}


def limited(*arguments, limit=None, env=None, cwd=None):
    """``hsi-batch doctor --json`` in a process of its own, with limits set in it."""

    def lower():
        if limit is not None:
            resource.setrlimit(limit[0], limit[1])

    done = subprocess.run(
        [PROGRAM, "doctor", "--no-worker", "--json", *arguments],
        preexec_fn=lower,
        check=False,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, {each["check"]: each for each in json.loads(done.stdout)["findings"]}


def test_a_machine_that_runs_these_tests_is_good(hsi, tmp_path):
    done = hsi("doctor", tmp_path)
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    for check in ("python", "packages", "cpu", "sums", "blas", "memory", "storage", "worker"):
        assert any(line[9:].startswith(check) for line in lines), check
    assert not list(tmp_path.iterdir())


def test_every_finding_that_is_not_ok_says_what_to_do(hsi, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(doctor_machine, "_SCRATCH_BYTES", 1 << 60)
    done = hsi("doctor", tmp_path / "nowhere", "--no-worker", "--json")
    found = findings(done)
    assert (done.code, found["storage"]["verdict"]) == (1, "problem")
    assert found["blas"]["verdict"] == found["scratch"]["verdict"] == "warning"
    for each in found.values():
        assert (each["verdict"] == "ok") == (not each["advice"]), each


def test_few_open_files_are_a_problem(tmp_path):
    code, found = limited(str(tmp_path), limit=(resource.RLIMIT_NOFILE, (128, 128)))
    assert (code, found["open files"]["verdict"]) == (1, "problem")
    assert "ulimit -n" in found["open files"]["advice"]


def test_a_folder_that_cannot_be_written_is_a_problem(hsi, tmp_path):
    # Not even the superuser can write below /proc.
    done = hsi("doctor", "/proc/self", "--no-worker", "--json")
    assert (done.code, findings(done)["storage"]["verdict"]) == (1, "problem")


def test_a_full_disk_is_a_problem(tmp_path):
    code, found = limited(str(tmp_path), limit=(resource.RLIMIT_FSIZE, (2**20, 2**20)))
    assert (code, found["storage"]["verdict"]) == (1, "problem")


def test_versions_that_do_not_work_are_named(monkeypatch):
    wanted = ["numpy>=99", "torch>=2.4", "nothing-of-this-name>=1", "zzz>=1; extra == 'geo'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _name: wanted)
    found = list(doctor._packages())
    problems = [each for each in found if each.verdict == "problem"]
    assert [each.advice for each in problems] == [
        "Say pip install 'numpy>=99'.",
        "Say pip install 'nothing-of-this-name>=1'.",
    ]
    assert "torch" in found[-1].found


def test_a_check_that_breaks_is_a_finding_too(monkeypatch):
    def broken():
        raise RuntimeError("boom")

    monkeypatch.setattr(doctor_machine, "cpu", broken)
    found = {each.check: each for each in doctor.examine(worker=False).findings}
    assert found["cpu"].verdict == "problem"
    assert "boom" in found["cpu"].found


def test_the_sdk_that_is_missing_is_a_warning_with_its_reason():
    env = {"CUVIS": "/nowhere"}
    _, found = limited(env=env)
    assert found["cuvis"]["verdict"] == "warning"
    assert "CUVIS" in found["cuvis"]["found"]


@pytest.fixture
def scored(given_place, monkeypatch):
    monkeypatch.chdir(renewed(given_place))
    return Path("scores.zarr")


def test_the_strangest_frames_are_those_of_the_summary(hsi, scored):
    done = hsi("top", scored, "--out", "top.txt", "--json")
    rows = pd.read_parquet("scores.zarr.hsi-batch/summary.parquet")
    rows = rows.sort_values("score_max", ascending=False)
    expected = [f"{r.session}[{r.frame}]" for r in rows.itertuples()]
    assert [row["selector"] for row in done.json["frames"]] == expected
    assert Path("top.txt").read_text().splitlines() == expected
    assert hsi("top", scored, "-n", "1", "--json").json["frames"][0]["selector"] == expected[0]


def test_what_top_writes_selects_frames(hsi, scored):
    hsi("top", scored, "-n", "1", "--out", "one.txt")
    done = hsi(
        "score",
        "fitted.yaml",
        "--archive",
        "archive.zarr",
        "--out",
        "one.zarr",
        "--frames",
        "@one.txt",
    )
    assert done.code == 0, done.err
    assert len(hsi("top", "one.zarr", "--json").json["frames"]) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--by", "hihgest"], "Did you mean 'highest'?"), (["--out", "/proc/x"], "cannot be written")],
)
def test_wrong_use_of_top(hsi, scored, arguments, says):
    done = hsi("top", scored, *arguments)
    assert done.code == 2
    assert says in done.err


def test_python_of_this_process_is_the_one_that_is_named():
    assert sys.executable in doctor._python().found
