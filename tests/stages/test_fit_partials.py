"""A fit that was killed reads only what it had not read, and ends in the same bits."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from counting import counting
from graphs import chain
from recordings import write_npz

from hsi_batch.archive import open_archive
from hsi_batch.cli.plans import fit_plan_text
from hsi_batch.nodes import PerPixelUnitNorm, RXGlobal, ScoreToLogit, ZScoreNormalizerGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.stages import fit_partials
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.kept_file import read_kept, write_kept

SESSIONS, BLOCKS = 8, 4
#: One pass for the normalizer and RX, one for the spread of the scores.
GRAPH = textwrap.dedent("""
    nodes:
      data: CU3SDataNode
      unit: PerPixelUnitNorm
      z: ZScoreNormalizerGlobal
      rx: {class_name: RXGlobal, hparams: {eps: 0.0}}
      logit: ScoreToLogit
    connections:
    - [data.cube, unit.data]
    - [unit.normalized, z.data]
    - [z.normalized, rx.data]
    - [rx.scores, logit.scores]
""")
TASK = 20_000


class Stopped(Exception):
    """Stands for whatever ends a run."""


def graph():
    return chain(
        PerPixelUnitNorm(name="unit"),
        ZScoreNormalizerGlobal(name="z"),
        RXGlobal(name="rx", eps=0.0),
        ScoreToLogit(name="logit"),
    )


def write(folder, i):
    rng = np.random.default_rng(i)
    cube = rng.normal(3.0, 1.0, (64, 64, 4)).astype(np.float32) ** 2 + 0.1
    write_npz(folder / f"s{i}.npz", cube)


def converted(folder, client):
    for i in range(SESSIONS):
        write(folder / "in", i)
    convert(folder / "in", folder / "a.zarr", block_lines=16, client=client)
    return open_archive(folder / "a.zarr")


@pytest.fixture(scope="module")
def archive(tmp_path_factory, client):
    return converted(tmp_path_factory.mktemp("kept"), client)


@pytest.fixture
def own(tmp_path, client):
    """One that a test may change."""
    return converted(tmp_path / "own", client)


@pytest.fixture(scope="module")
def calm(archive, client):
    """What a fit that nobody disturbs gives."""
    pipeline = graph()
    result = fit(pipeline, archive, client=client)
    assert (result.passes, result.blocks, result.kept) == (2, 2 * SESSIONS * BLOCKS, 0)
    return pipeline


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    """Portions of a block or two, though these statistics are not small beside such blocks."""
    monkeypatch.setattr(fit_partials, "_PIXELS_PER_BYTE", 10)


def stopping(number, after):
    def observe(progress):
        if f"pass {number} " in progress.stage and progress.done >= after:
            raise Stopped

    return observe


def interrupted(archive, client, keep, number, after, **options):
    with pytest.raises(Stopped):
        fit(
            graph(),
            archive,
            client=client,
            keep=keep,
            task_bytes=TASK,
            observer=stopping(number, after),
            **options,
        )
    # What the workers had begun may still be written, though the scheduler has forgotten it.
    while any(client.run(executing).values()):
        time.sleep(0.05)


def executing(dask_worker):
    return dask_worker.state.executing_count + len(dask_worker.state.ready)


def again(archive, client, keep, pipeline=None, **options):
    pipeline = pipeline or graph()
    with counting(client, archive.path) as counts:
        result = fit(pipeline, archive, client=client, keep=keep, task_bytes=TASK, **options)
    return pipeline, result, counts


def assert_same(pipeline, other):
    for name, node in pipeline.nodes.items():
        assert node.state.keys() == other.nodes[name].state.keys()
        for key, value in node.state.items():
            np.testing.assert_array_equal(value, other.nodes[name].state[key])
        assert node.buffer_digest() == other.nodes[name].buffer_digest()


def test_only_what_lacks_is_read_again(archive, calm, client, tmp_path):
    keep, total = tmp_path / "kept" / "fit", SESSIONS * BLOCKS
    interrupted(archive, client, keep, 1, total // 2)
    files = sorted(keep.glob("*.part"))
    assert files
    before = sum(path.stat().st_size for path in files)
    assert before < total * 16 * 64 * 4 * 4
    plan = fit(graph(), archive, client=client, keep=keep, task_bytes=TASK, dry_run=True)
    assert 0 < plan.kept < total
    assert plan.blocks == 2 * total - plan.kept
    pipeline, result, counts = again(archive, client, keep)
    assert_same(calm, pipeline)
    assert result.kept == plan.kept
    assert result.blocks == plan.blocks
    assert sum(counts.values()) == 2 * total - result.kept
    # Nothing is left, but what is not ours.
    assert not keep.exists()
    assert keep.parent.exists()


def test_finished_passes_are_not_repeated(archive, calm, client, tmp_path):
    keep, total = tmp_path / "fit", SESSIONS * BLOCKS
    interrupted(archive, client, keep, 2, total // 2)
    assert len(list(keep.glob("*.done"))) == 1
    # The portions of the first pass are gone.
    assert len(list(keep.glob("*.part"))) <= total // 2 + 2
    plan = fit(graph(), archive, client=client, keep=keep, task_bytes=TASK, dry_run=True)
    pipeline, result, counts = again(archive, client, keep)
    assert_same(calm, pipeline)
    assert sum(counts.values()) == 2 * total - result.kept
    assert total < result.kept < 2 * total
    assert plan.kept == result.kept
    assert "not read again" in str(result)


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "foreign"])
def test_what_is_damaged_is_read_again(archive, calm, client, tmp_path, damage):
    keep, total = tmp_path / "fit", SESSIONS * BLOCKS
    interrupted(archive, client, keep, 1, total // 2)
    files = sorted(keep.glob("*.part"))
    contents = [path.read_bytes() for path in files]
    for index, path in enumerate(files):
        raw = bytearray(contents[index])
        if damage == "torn":
            raw = raw[: len(raw) // 2]
        elif damage == "flipped":
            raw[-20] ^= 1
        elif damage == "empty":
            raw.clear()
        else:
            # Whole, but of other blocks.
            raw[:] = contents[index - 1]
        path.write_bytes(raw)
    pipeline, result, counts = again(archive, client, keep)
    assert_same(calm, pipeline)
    assert result.kept == 0
    assert sum(counts.values()) == 2 * total


def test_a_changed_session_is_read_again_and_no_other(own, client, tmp_path):
    keep, total, folder = tmp_path / "fit", SESSIONS * BLOCKS, own.path.parent / "in"
    interrupted(own, client, keep, 1, total)
    write_npz(folder / "s0.npz", np.load(folder / "s0.npz")["cube"] * np.float32(1.5))
    convert(folder, own.path, block_lines=16, replace=True, client=client)
    fresh = open_archive(own.path)
    calm = graph()
    fit(calm, fresh, client=client)
    plan = fit(graph(), fresh, client=client, keep=keep, task_bytes=TASK, dry_run=True)
    assert plan.redone >= BLOCKS
    pipeline, result, counts = again(fresh, client, keep)
    assert_same(calm, pipeline)
    first = [n for path, n in counts.items() if "/s0/" in path]
    assert first == [2] * BLOCKS
    # Portions hold a block or two, which may be of the session next to it.
    assert sum(counts.values()) <= 2 * total - result.kept
    assert result.kept >= total - 2 * BLOCKS - 6


def test_another_question_finds_nothing_of_use(archive, client, tmp_path):
    keep, total = tmp_path / "fit", SESSIONS * BLOCKS
    interrupted(archive, client, keep, 1, total // 2)
    other = chain(PerPixelUnitNorm(name="unit", eps=1e-3), RXGlobal(name="rx", eps=0.0))
    expected = chain(PerPixelUnitNorm(name="unit", eps=1e-3), RXGlobal(name="rx", eps=0.0))
    fit(expected, archive, client=client)
    _, result, counts = again(archive, client, keep, other)
    assert result.kept == 0
    assert sum(counts.values()) == total
    assert_same(expected, other)


def test_blocks_that_failed_are_tried_again(own, calm, client, tmp_path):
    lost = own.path / "s3" / "cube" / "c.0.1.0.0"
    raw = lost.read_bytes()
    lost.unlink()
    keep, total = tmp_path / "fit", SESSIONS * BLOCKS
    interrupted(own, client, keep, 2, total // 2)
    # A pass that is not whole is not kept as if it were.
    assert not list(keep.glob("*.done"))
    lost.write_bytes(raw)
    pipeline, result, _ = again(own, client, keep)
    assert not result.failures
    assert_same(calm, pipeline)


def test_one_background_per_session(archive, client, tmp_path):
    options = {"background": "session", "fallback": "archive"}
    calm = graph()
    fit(calm, archive, client=client, **options)
    keep, total = tmp_path / "fit", SESSIONS * BLOCKS
    interrupted(archive, client, keep, 1, total // 2, **options)
    pipeline, result, counts = again(archive, client, keep, **options)
    assert 0 < result.kept < total
    assert sum(counts.values()) == 2 * total - result.kept
    assert_same(calm, pipeline)
    one, two = (tmp_path / f"{name}.yaml" for name in ("one", "two"))
    for made, path in ((calm, one), (pipeline, two)):
        made.provenance = {}
        made.save(path)
    for name in ("s0", "s7"):
        states = [Pipeline.from_yaml(path).for_group(name) for path in (one, two)]
        assert_same(*states)


DRIVER = """
import os, signal, sys, time
from pathlib import Path
from hsi_batch.stages import fit as stage, fit_partials, fit_pass

fit_partials._PIXELS_PER_BYTE = 10
stage.fit.__kwdefaults__["task_bytes"] = {task}
kept = Path({out!r} + ".hsi-batch")

def judge(work):
    if work.progress.done < {total} // 2 or "pass 1" not in work.progress.stage:
        return
    for _ in range(200):
        if len(list(kept.rglob("*.part"))) >= 5:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)

if sys.argv.pop(1) == "kill":
    fit_pass.judge = judge
from hsi_batch.cli import main
sys.exit(main())
"""


def test_a_killed_command_goes_on(archive, calm, tmp_path):
    total = SESSIONS * BLOCKS
    (tmp_path / "p.yaml").write_text(GRAPH)
    out = tmp_path / "fitted.yaml"
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(task=TASK, out=str(out), total=total))

    def command(how):
        arguments = ["fit", tmp_path / "p.yaml", "--archive", archive.path, "--out", out]
        return subprocess.run(
            [sys.executable, script, how, *arguments, "--workers", "2"],
            capture_output=True,
            text=True,
            check=False,
        )

    done = command("kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = list(Path(f"{out}.hsi-batch").rglob("*.part"))
    assert len(left) >= 5
    pipeline = Pipeline.from_yaml(tmp_path / "p.yaml")
    keep = Path(f"{out}.hsi-batch") / "fit"
    plan = fit(pipeline, archive, keep=keep, task_bytes=TASK, workers=2, dry_run=True)
    assert plan.kept >= 5
    assert not pipeline.nodes["rx"].fitted
    assert f"{plan.kept} skip (statistics kept by an interrupted run)" in fit_plan_text(plan)
    done = command("live")
    assert done.returncode == 0, done.stderr
    assert "not read again after an interrupted run" in done.stdout
    assert not Path(f"{out}.hsi-batch").exists()
    assert_same(calm, Pipeline.from_yaml(out))


def test_files_hold_values_only(tmp_path):
    path = tmp_path / "x.part"
    assert write_kept(path, "d", {"a": np.arange(3)})
    np.testing.assert_array_equal(read_kept(path, "d")["a"], np.arange(3))
    assert read_kept(path, "e") is None
    assert read_kept(tmp_path / "y.part", "d") is None
    assert not write_kept(path, "d", {"a": np.random.default_rng(0).bytes(1000)}, most=100)
    assert not write_kept(tmp_path / "none" / "x.part", "d", 1)
    assert not write_kept(path, "d", lambda: None)
    # A file that would run something is no statistic, though its checksum is right.
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    assert write_kept(path, "d", Evil())
    assert read_kept(path, "d") is None
    assert not marker.exists()


def test_the_folder_of_a_user_keeps_what_is_theirs(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / ("0001-" + "0" * 24 + ".part")).write_text("ours")
    fit_partials.discard(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_what_is_kept_costs_little(tmp_path, monkeypatch):
    """Random bits are not packed, sums of integers and histograms are; nothing waits for a disk."""
    monkeypatch.setattr(os, "fsync", lambda _handle: pytest.fail("a kept file was synced"))
    random = np.random.default_rng(0).normal(size=100_000)
    counts = np.random.default_rng(0).integers(0, 1000, size=100_000)
    for value, share in ((random, 1.01), (counts, 0.5)):
        assert write_kept(tmp_path / "x", "d" * 64, {"v": value})
        assert (tmp_path / "x").stat().st_size < share * value.nbytes
        np.testing.assert_array_equal(read_kept(tmp_path / "x", "d" * 64)["v"], value)
