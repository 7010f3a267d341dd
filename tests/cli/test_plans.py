"""--dry-run: what would be done, and nothing is."""

import os
import re
import shutil

import pytest
from commands import command, files_below
from recordings import scene, write_envi

SIZE = 40 * 30 * 8 * 2  # bytes of a recording


@pytest.fixture
def untouched(mine):
    before = files_below(mine.root)
    yield mine
    assert files_below(mine.root) == before


def test_convert(hsi, untouched):
    new = ["convert", untouched.recordings, "--archive", untouched.root / "x" / "n.zarr"]
    done = hsi(*new, "--dry-run", "--block-lines", "16")
    assert (done.code, done.err) == (0, "")
    head, memory, *sessions = done.out.splitlines()
    assert re.fullmatch(r"2 new; 6 blocks in [2-9] tasks, \d\d\.\d kB", head)
    assert re.fullmatch(
        r"  memory: about \d+ MB per worker \(base \d+ MB \+ [\d.]+ [kM]B\)", memory
    )
    assert [line.split()[:4] for line in sessions] == [
        ["new", "a", "(3", "blocks)"],
        ["new", "b", "(3", "blocks)"],
    ]
    plan = hsi(*new, "--dry-run", "--json").json
    assert plan["counts"] == {"new": 2}
    assert (plan["blocks"], plan["bytes"]) == (2, 2 * SIZE)
    assert plan["tasks"] >= 2
    assert plan["worker_bytes"] >= 2 * SIZE


def test_convert_names_what_is_done_changed_skipped_and_broken(hsi, tmp_path):
    folder, archive = tmp_path / "in", tmp_path / "a.zarr"
    for i, name in enumerate(("done", "changed")):
        write_envi(folder / f"{name}.hdr", scene(i)[0])
    assert hsi("convert", folder, "--archive", archive).code == 0
    write_envi(folder / "changed.hdr", scene(5)[0])
    write_envi(folder / "new.hdr", scene(6)[0])
    write_envi(folder / "cut.hdr", scene(6)[0])
    (folder / "cut.raw").write_bytes(b"x")
    (folder / "pic.hdr").write_text("#?RADIANCE\n")
    before = files_below(tmp_path)
    done = hsi("convert", folder, "--archive", archive, "--dry-run")
    assert done.code == 0
    head, _, *rest = done.out.splitlines()
    assert sorted(head.partition(";")[0].split(", ")) == [
        "1 broken",
        "1 changed",
        "1 done",
        "1 new",
        "1 skipped",
    ]
    kinds = {line.split()[0]: line for line in rest}
    assert sorted(kinds) == ["broken", "changed", "done", "new", "skip"]
    assert "cut.hdr" in kinds["broken"]
    assert "pic.hdr" in kinds["skip"]
    plan = hsi("convert", folder, "--archive", archive, "--dry-run", "--json").json
    assert plan["blocks"] == 1
    forced = hsi("convert", folder, "--archive", archive, "--dry-run", "--replace").out
    assert re.search(r"^  replace +changed \(1 block\)", forced, re.MULTILINE)
    assert files_below(tmp_path) == before


def test_fit(hsi, untouched):
    fit = ["fit", untouched.pipeline, "--archive", untouched.archive, "--out", "x/f.yaml"]
    done = hsi(*fit, "--dry-run")
    assert (done.code, done.err) == (0, "")
    head, *nodes, reads, memory = done.out.splitlines()
    assert head == "2 frames of 2 sessions; 1 pass over the pixels"
    assert nodes[1].startswith("  rx: moments of cube from stored statistics, carried through")
    assert nodes[2] == "  logit: moments of rx.scores from pass 1"
    assert re.fullmatch(r"  reads 6 blocks in [2-6] tasks, \d\d\.\d kB", reads)
    assert "per worker" in memory
    plan = hsi(*fit, "--dry-run", "--json", "--frames", "a[0][y=0:16]").json
    # Lines of a frame have no stored statistics: a pass for the cube, another for the scores.
    assert (plan["passes"], plan["blocks"], plan["frames"]) == (2, 2, 1)
    assert plan["bytes"] == 2 * 16 * 30 * 8 * 2


def test_score(hsi, untouched):
    score = ["score", untouched.fitted, "--archive", untouched.archive, "--out"]
    done = hsi(*score, untouched.root / "x" / "n.zarr", "--dry-run")
    assert (done.code, done.err) == (0, "")
    head, memory, *sessions = done.out.splitlines()
    assert re.fullmatch(
        r"scores, decisions: sessions: 2 new; 6 blocks in [2-6] tasks, \d\d\.\d kB", head
    )
    assert "per worker" in memory
    assert [line.split()[:2] for line in sessions] == [["new", "a"], ["new", "b"]]
    logits = [untouched.scores, "--output", "logits", "--frames", "a"]
    done = hsi(*score, *logits, "--dry-run")
    assert done.out.startswith("logit.logits: sessions: 1 redo; 3 blocks in 3 tasks")


def test_done_sessions_are_skipped(hsi, made):
    score = ["score", made.fitted, "--archive", made.archive, "--out", made.scores]
    done = hsi(*score, "--dry-run")
    assert done.out.startswith("scores, decisions: sessions: 2 done; 0 blocks in 0 tasks")
    convert = ["convert", made.recordings, "--archive", made.archive, "--block-lines", "16"]
    assert hsi(*convert, "--dry-run").out.startswith("2 done; 0 blocks in 0 tasks")


def test_no_worker_is_started_for_a_plan(made, tmp_path):
    # Without a client in this process, and no place for workers to write to.
    shutil.copytree(made.recordings, tmp_path / "in")
    shutil.copy(made.pipeline, tmp_path)
    (tmp_path / "w.yaml").write_text("archive: a.zarr\nsources: in\npipeline: rx.yaml\n")
    nowhere = {"TMPDIR": str(tmp_path / "none"), "PATH": os.defpath}
    done = command("run", "w.yaml", "--dry-run", "--workers", "2", cwd=tmp_path, env=nowhere)
    assert done.code == 0
    assert done.out.startswith("convert: 2 new; 2 blocks in ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "rx.yaml", "w.yaml"]


def test_a_demo_that_is_only_planned(hsi, tmp_path):
    done = hsi("demo", tmp_path / "demo", "--dry-run")
    assert done.code == 0
    assert f"runs the workflow {tmp_path / 'demo' / 'quickstart.yaml'}" in done.out
    assert hsi("demo", tmp_path / "demo", "--dry-run", "--json").json["runs"].endswith(".yaml")
    assert not (tmp_path / "demo").exists()
