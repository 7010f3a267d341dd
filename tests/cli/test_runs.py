"""Whole runs: exit codes, what goes to stdout and stderr, running again."""

import os
import re
import shutil
import warnings

import numpy as np
import pytest
import yaml
import zarr
from commands import chunks, command, files_below
from recordings import scene, write_cu3s, write_envi
from simulated_cuvis import Fault

from hsi_batch import open_archive
from hsi_batch.errors import HsiBatchWarning
from hsi_batch.pipeline.catalogue import cuvis_classes


def test_all_stages_as_processes(made, tmp_path, cluster_file):
    shared = ("--cluster", cluster_file)
    first = command("ingest", "in", "--archive", "a.zarr", *shared, cwd=made_in(made, tmp_path))
    assert first.code == 0
    assert first.out.startswith("2 sessions converted; 2 blocks in ")
    # Not a terminal: progress as plain lines, on stderr.
    assert re.match(r"convert: 0/2 blocks.*\nconvert: [12]/2 blocks", first.err)
    fit = ["fit", "rx.yaml", "--archive", "a.zarr", "--out", "out/f.yaml"]
    second = command(*fit, *shared, cwd=tmp_path)
    assert second.code == 0
    assert second.out.startswith("fitted from 2400 pixels of 2 frames in 2 sessions, 1 pass")
    assert (tmp_path / "out" / "f.pt").exists()
    score = ["score", "out/f.yaml", "--archive", "a.zarr", "--out", "s.zarr", "--quiet"]
    third = command(*score, *shared, cwd=tmp_path)
    assert (third.code, third.out, third.err) == (0, "", "")
    fourth = command("report", "s.zarr", "--out", "out/r.html", "--json", cwd=tmp_path)
    assert (fourth.code, fourth.err) == (0, "")
    assert fourth.json["path"] == "out/r.html"
    assert fourth.json["frames"] == 2
    assert 0.5 < fourth.json["auc"] <= 1
    assert (tmp_path / "out" / "r.html").exists()


def made_in(made, folder):
    shutil.copytree(made.recordings, folder / "in")
    shutil.copy(made.pipeline, folder)
    return folder


def test_running_again_does_nothing(hsi, mine):
    convert = ["convert", mine.recordings, "--archive", mine.archive, "--block-lines", "16"]
    fit = ["fit", mine.pipeline, "--archive", mine.archive, "--out", mine.fitted]
    score = ["score", mine.fitted, "--archive", mine.archive, "--out", mine.scores]
    before = files_below(mine.root)
    assert len(chunks(mine.root)) > 20
    again = hsi(*convert)
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("0 sessions converted, 2 up to date; 0 blocks")
    again = hsi(*fit)
    assert again.out == "up to date: fitted from 2400 pixels of 2 frames before\n"
    again = hsi(*score)
    assert "2 sessions up to date; 0 blocks" in again.out
    assert files_below(mine.root) == before
    # Unless forced.
    assert "2 sessions converted; 6 blocks" in hsi(*convert, "--force").out
    assert "fitted from" in hsi(*fit, "--force").out
    assert "; 6 blocks in" in hsi(*score, "--force").out
    after = files_below(mine.root)
    assert all(
        after[path] != stamp for path, stamp in before.items() if stamp and "/cube/c." in str(path)
    )


LINES = ("--block-lines", "16")
CASES = {
    "convert": lambda m: ["convert", m.recordings, "--archive", m.root / "new.zarr"],
    "convert again": lambda m: ["convert", m.recordings, "--archive", m.archive, *LINES],
    "convert plan": lambda m: [*CASES["convert"](m), "--dry-run"],
    "fit": lambda m: ["fit", m.pipeline, "--archive", m.archive, "--out", m.root / "new.yaml"],
    "fit again": lambda m: ["fit", m.pipeline, "--archive", m.archive, "--out", m.fitted],
    "fit plan": lambda m: [*CASES["fit"](m), "--dry-run"],
    "score": lambda m: ["score", m.fitted, "--archive", m.archive, "--out", m.root / "new.s.zarr"],
    "score again": lambda m: ["score", m.fitted, "--archive", m.archive, "--out", m.scores],
    "score plan": lambda m: [*CASES["score"](m), "--dry-run"],
    "report": lambda m: ["report", m.scores, "--out", m.root / "r.html"],
    "ls": lambda m: ["ls", m.archive],
    "show": lambda m: ["show", m.archive],
    "show session": lambda m: ["show", m.archive / "a"],
    "verify": lambda m: ["verify", m.archive],
    "verify deep": lambda m: ["verify", m.scores, "--deep"],
    "rm": lambda m: ["rm", m.archive / "b"],
}
EXPECTED = {
    "convert": {"up_to_date": 0, "blocks": 2, "failed": 0},
    "convert again": {"up_to_date": 2, "blocks": 0, "failed": 0},
    "convert plan": {"blocks": 2, "bytes": 38400},
    "fit": {"pixels": 2400, "frames": 2, "up_to_date": False},
    "fit again": {"up_to_date": True, "failed": 0},
    "fit plan": {"passes": 1, "blocks": 6},
    "score": {"blocks": 6, "outputs": ["scores", "decisions"]},
    "score again": {"blocks": 0, "up_to_date": 2},
    "score plan": {"blocks": 6, "bytes": 38400, "outputs": ["scores", "decisions"]},
    "verify": {"deep": False, "blocks": 6, "damages": []},
    "verify deep": {"deep": True, "sessions": 2, "damages": []},
    "rm": {"removed": "b"},
}


@pytest.mark.parametrize("case", CASES)
def test_json_is_all_there_is_on_stdout(hsi, mine, case):
    done = hsi(*CASES[case](mine), "--json")
    assert (done.code, done.err) == (0, "")
    assert isinstance(done.json, dict)
    expected = EXPECTED.get(case, {})
    assert {key: done.json.get(key) for key in expected} == expected


@pytest.mark.parametrize("case", CASES)
def test_quiet_says_nothing(hsi, mine, case):
    done = hsi(*CASES[case](mine), "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def broken(folder):
    """Two good recordings, one that is cut off."""
    for i in range(3):
        write_envi(folder / f"s{i}.hdr", scene(i)[0])
    data = folder / "s1.raw"
    data.write_bytes(data.read_bytes()[:-100])


def test_a_source_that_cannot_be_read(hsi, tmp_path):
    broken(tmp_path / "in")
    convert = ["convert", tmp_path / "in", "--archive", tmp_path / "a.zarr"]
    done = hsi(*convert)
    assert done.code == 1
    assert "2 sessions converted, 1 failed" in done.out
    (line,) = [line for line in done.err.splitlines() if line.startswith("failed:")]
    assert line.count("s1.hdr") == 1
    assert "bytes" in line
    again = hsi(*convert)
    assert again.code == 1
    assert line in again.err
    assert hsi(*convert, "--max-failed", "1").code == 0
    assert hsi(*convert, "--max-failed", "0").code == 1
    quiet = hsi(*convert, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (1, "", f"{line}\n")
    assert hsi(*convert, "--json").json["broken"][0][0].endswith("s1.hdr")


def test_frames_that_fail_and_are_mended(hsi, tmp_path):
    frames = [scene(i)[0] for i in range(4)]
    path = tmp_path / "s.cu3s"
    write_cu3s(path, frames, faults=[Fault("get_mesu", frame=2)])
    convert = ["convert", path, "--archive", tmp_path / "a.zarr"]
    done = hsi(*convert)
    assert done.code == 1
    assert re.search(r"^failed: s\D+2.*frame 2", done.err, re.MULTILINE)
    assert hsi(*convert, "--max-failed", "1").code == 0
    # Left alone, but still not there; --only-failed tries it again.
    again = hsi(*convert)
    assert again.code == 1
    assert "0 sessions converted, 1 up to date, 1 failed; 0 blocks" in again.out
    assert re.search(r"^failed in an earlier run: s\[2\]\[y=.*frame 2", again.err, re.MULTILINE)
    assert "Try them again with --only-failed." in again.err
    stamp, size = path.stat(), len(path.read_bytes())
    write_cu3s(path, frames)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    done = hsi(*convert, "--only-failed")
    assert done.code == 0
    assert "; 1 block in" in done.out
    cube = zarr.open_array(tmp_path / "a.zarr", path="s/cube", mode="r")
    np.testing.assert_array_equal(cube[2], frames[2])
    assert hsi(*convert).code == 0


def test_a_damaged_chunk_fails_in_fit_and_score(hsi, mine):
    chunk = mine.archive / "a" / "cube" / "c.0.1.0.0"
    sound = chunk.read_bytes()
    chunk.write_bytes(sound[:40])
    score = ["score", mine.fitted, "--archive", mine.archive, "--out", mine.root / "n.zarr"]
    fit = ["fit", mine.pipeline, "--archive", mine.archive, "--out", mine.root / "n.yaml"]
    for arguments in (score, fit):
        done = hsi(*arguments)
        assert done.code == 1
        assert re.search(r"^failed: a\b.*16:32", done.err, re.MULTILINE), done.err
    assert "1 frame failed" in hsi(*score).out
    for arguments in (score, fit):
        done = hsi(*arguments)
        assert done.code == 1
        assert re.search(
            r"^failed in an earlier run: a\[0\]\[y=16:32\]: .*", done.err, re.MULTILINE
        )
        assert hsi(*arguments, "--max-failed", "1").code == 0
    assert "up to date" in hsi(*fit, "--max-failed", "1").out
    assert hsi(*fit, "--only-failed").code == 1
    decisions = zarr.open_array(mine.root / "n.zarr", path="a/decisions", mode="r")[0]
    assert (decisions[16:32] == 255).all()
    assert (decisions[:16] < 2).all()
    chunk.write_bytes(sound)
    assert "fitted from 2400 pixels" in hsi(*fit, "--only-failed").out
    assert hsi(*fit).code == 0
    done = hsi(*score, "--only-failed")
    assert done.code == 0
    assert "; 1 block in" in done.out
    decisions = zarr.open_array(mine.root / "n.zarr", path="a/decisions", mode="r")[0]
    assert (decisions < 2).all()


def test_a_changed_source(hsi, tmp_path):
    write_envi(tmp_path / "s.hdr", scene(1)[0])
    convert = ["convert", tmp_path / "s.hdr", "--archive", tmp_path / "a.zarr"]
    assert hsi(*convert).code == 0
    before = chunks(tmp_path)
    write_envi(tmp_path / "s.hdr", scene(2)[0])
    done = hsi(*convert)
    assert done.code == 1
    said = f"changed: session s: {tmp_path / 's.raw'} changed since; the archive keeps what it has."
    assert f"{said} Use --replace to convert it again.\n" in done.err
    assert "1 changed since and kept as converted (use --replace); 0 blocks" in done.out
    mode = hsi(*convert, "--nodata", "0")
    assert "session s: it was converted with other settings (nodata)" in mode.err
    assert chunks(tmp_path) == before
    assert hsi(*convert, "--replace").code == 0
    assert hsi(*convert).code == 0


def test_only_files_that_are_no_recordings(hsi, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "radiance.hdr").write_text("#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n")
    (folder / "notes.txt").write_text("x")
    write_envi(folder / "white.hdr", scene(0)[0], extra="file type = ENVI Spectral Library\n")
    np.savez(folder / "other.npz", weights=np.zeros(3))
    names = sorted(p.name for p in folder.iterdir() if p.suffix != ".raw")
    for name in names:
        for extra in ([], ["--dry-run"]):
            done = hsi("convert", folder / name, "--archive", tmp_path / "new" / "a.zarr", *extra)
            assert (done.code, done.out) == (2, "")
            assert done.err.startswith(f"hsi-batch: {folder / name}: this is no recording: ")
            assert done.err.endswith("or folders of them.\n")
    done = hsi("convert", *(folder / n for n in names), "--archive", tmp_path / "new" / "a.zarr")
    assert done.code == 2
    assert all(f"  - {folder / name}: this is no recording: " in done.err for name in names)
    done = hsi("convert", folder, "--archive", tmp_path / "new" / "a.zarr")
    assert done.code == 2
    assert "radiance.hdr" in done.err
    assert "notes.txt" not in done.err  # it merely lies there
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    # With a recording among them they are listed, and no error.
    write_envi(folder / "s.hdr", scene(0)[0])
    done = hsi("convert", folder, "--archive", tmp_path / "a.zarr")
    assert done.code == 0
    assert "1 session converted, 3 files skipped" in done.out
    assert all(f"skipped: {folder / n}: " in done.err for n in names if n != "notes.txt")


def test_fitting_for_cuvis_ai(hsi, mine, monkeypatch):
    out = mine.root / "theirs.yaml"
    arguments = ("fit", mine.pipeline, "--archive", mine.archive, "--out", out)
    assert hsi(*arguments, "--dialect", "cuvis-ai").code == 0
    content = yaml.safe_load(out.read_text())
    assert content["plugins"] == ["cuvis_ai_builtin"]
    paths = [node["class_name"] for node in content["nodes"]]
    assert "cuvis_ai.node.anomaly.rx_detector.RXGlobal" in paths
    assert hsi(*arguments, "--dialect", "cuvis-ai", "--json").json["up_to_date"]
    # In our own form it is another file.
    assert not hsi(*arguments, "--json").json["up_to_date"]
    assert "plugins" not in yaml.safe_load(out.read_text())
    wrong = hsi(*arguments, "--dialect", "cuvis")
    assert wrong.code == 2
    assert "dialect 'cuvis' is not one of hsi-batch, cuvis-ai" in wrong.err
    # What is not there is known before anything is fitted.
    known = {name: cls for name, cls in cuvis_classes().items() if name != "ScoreToLogit"}
    monkeypatch.setattr("hsi_batch.pipeline.written.cuvis_classes", lambda: known)
    wrong = hsi(*arguments, "--dialect", "cuvis-ai", "--force")
    assert (wrong.code, wrong.out) == (2, "")
    assert "logit: cuvis-ai 0.19.3 has no node ScoreToLogit" in wrong.err
    assert not re.search(r"fit, pass|/\d+ blocks", wrong.err)


def test_settings_that_mean_nothing_are_refused(hsi, mine):
    short = mine.root / "short.yaml"
    short.write_text(
        "nodes:\n  data: CU3SDataNode\n  rx: {type: RXGlobal, config: {eps: 0}}\n"
        "connections: [[data.cube, rx.data]]\n"
    )
    fit = ["fit", short, "--archive", mine.archive, "--out", mine.root / "new.yaml"]
    done = hsi(*fit, "--set", "nodes.rx.hparams.esp=0.5")
    assert done.code == 2
    assert "short.yaml:3: RXGlobal has no parameter 'esp'. Did you mean 'eps'?" in done.err
    done = hsi(*fit, "--set", "nodes.rxx.hparams.eps=1")
    assert done.code == 2
    assert "there is no node 'rxx'. Did you mean 'rx'?" in done.err
    assert not (mine.root / "new.yaml").exists()


SHORT = """\
nodes:
  data: CU3SDataNode
  rx: {type: RXGlobal, config: {num_channels: 99}}
connections: [[data.cube, rx.data]]
"""
WARNED = "warning: rx declares num_channels 99, but 8 channels reach it (data.cube); 8 is used.\n"


def test_warnings_are_plain_lines(hsi, mine):
    short, out = mine.root / "short.yaml", mine.root / "new.yaml"
    short.write_text(f"trainer: {{}}\n{SHORT}")
    fit = ["fit", short, "--archive", mine.archive, "--out", out]
    # In a process, for Python itself shows warnings there.
    done = command(*fit, "--dry-run")
    trainer = f"warning: {short}:1: `trainer` is ignored; it belongs to the run, not to the"
    assert done.code == 0
    assert done.err == f"{trainer} pipeline.\n{WARNED}"
    done = hsi(*fit, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    done = hsi(*fit, "--json")
    assert done.json["up_to_date"]
    assert done.err == f"{trainer} pipeline.\n{WARNED}"
    assert hsi(*fit, "-q", "--force").err == ""


def test_warnings_of_others_are_not_shown(hsi, made, monkeypatch):
    def warned(*_, **__):
        warnings.warn("Mean of empty slice", RuntimeWarning, stacklevel=1)
        warnings.warn("of ours,\nin two lines", HsiBatchWarning, stacklevel=1)
        return open_archive(made.archive)

    monkeypatch.setattr("hsi_batch.archive.open_archive", warned)
    assert hsi("ls", made.archive).err == "warning: of ours, in two lines\n"


def test_what_a_fit_would_refuse_is_not_up_to_date(hsi, mine):
    short, out = mine.root / "short.yaml", mine.root / "new.yaml"
    short.write_text(SHORT)
    fit = ["--archive", mine.archive, "--out", out]
    assert hsi("fit", short, *fit).code == 0
    listed = mine.root / "listed.yaml"
    listed.write_text(
        "nodes:\n- {name: data, class_name: CU3SDataNode}\n"
        "- {name: rx, class_name: RXGlobal, hparams: {num_channels: 99}}\n"
        "connections: [{source: data.outputs.cube, target: rx.inputs.data}]\n"
    )
    before = out.read_bytes()
    done = hsi("fit", listed, *fit)
    assert (done.code, done.out) == (2, "")
    assert "rx declares num_channels 99, but 8 channels reach it" in done.err
    assert out.read_bytes() == before
    assert hsi("fit", short, *fit).out.startswith("up to date")


def test_a_conversion_that_has_only_to_be_finished(hsi, tmp_path, monkeypatch):
    write_envi(tmp_path / "in" / "a.hdr", scene(1)[0])
    convert = ["convert", tmp_path / "in", "--archive", tmp_path / "a.zarr"]

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hsi_batch.stages.convert.finish_session", killed)
        assert hsi(*convert).code == 130
    done = hsi(*convert)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("1 session converted; 0 blocks in")
