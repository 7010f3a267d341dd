"""ls and show of scores."""

import json

import numpy as np
import pytest
import zarr

from hsi_batch.archive import open_archive
from hsi_batch.files import digest_of_file, sealed, unsealed


def table(text, first):
    """Rows of the table whose first column is called ``first``, each a mapping."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    at = next(i for i, line in enumerate(lines) if line[0] == first and len(line) > 1)
    return lines[at], [line for line in lines[at + 1 :] if not line[0].startswith("─")]


def test_ls(hsi, made):
    done = hsi("ls", made.scores)
    assert (done.code, done.err) == (0, "")
    text = " ".join(done.out.split())
    assert text.startswith(f"scores {made.scores}: 2 sessions, 2 frames session frames scored")
    _, rows = table(done.out, "session")
    assert [row[:5] for row in rows[:2]] == [[n, "1", "1", "40", "30"] for n in "ab"]
    assert "decisions, scores" in done.out
    assert "scores, decisions of RX_Statistical, made by" not in done.out
    assert "scores, decisions of RX_Statistical, hsi_batch" in done.out
    assert hsi("ls", made.scores, "-q").out == ""


def test_ls_and_show_for_machines(hsi, made):
    found = hsi("ls", made.scores, "--json").json
    assert hsi("show", made.scores, "--json").json == found
    assert found["archive"] == str(made.archive)
    assert found["pipeline"] == "RX_Statistical"
    assert (found["outputs"], found["incomplete"]) == (["scores", "decisions"], [])
    assert found["fitted"]["pixel_count"] == 2400
    assert found["metrics"]["auc"] > 0.5
    assert [s["session"] for s in found["sessions"]] == ["a", "b"]
    for session in found["sessions"]:
        assert session["outputs"]["scores"]["shape"] == [1, 40, 30]
        assert session["outputs"]["decisions"]["dtype"] == "uint8"
        assert (session["complete"], session["failed"], session["stale"]) == (True, {}, False)


def test_show(hsi, made):
    done = hsi("show", made.scores)
    assert done.code == 0
    assert f"archive            {made.archive}" in done.out
    assert f"fitted on          2400 pixels (valid) of 2 frames of {made.archive}" in done.out
    done = hsi("show", made.scores / "b")
    assert done.out.startswith(f"session b of {made.scores}\n")
    assert "scores             1x40x30 float32 (rx.scores)" in done.out
    found = hsi("show", made.scores / "b", "--json").json
    assert found["source"] == str(made.recordings / "b.hdr")
    values = zarr.open_array(made.scores, path="b/scores")[0]
    said = zarr.open_array(made.scores, path="b/decisions")[0]
    (row,) = found["summary"]
    assert row["score_max"] == values.max()
    assert row["score_p50"] == pytest.approx(np.median(values), rel=1e-3)
    assert (row["valid"], row["flagged"]) == (1200, (said == 1).sum())
    assert f"{float(values.max()):g}" in done.out


def test_sessions_that_failed_or_were_not_finished(hsi, mine):
    for name, changed in {
        "a": {"failed_frames": {"0": "lines 0:16 cannot be read"}},
        "b": {"complete": False},
    }.items():
        path = mine.scores / name / "zarr.json"
        meta = json.loads(path.read_text())
        meta["attributes"].update(changed)
        path.write_text(json.dumps(meta))
    done = hsi("ls", mine.scores)
    assert done.code == 0
    assert done.err == "not finished: b; run the same score command again\n"
    head, (first, second, *_) = table(done.out, "session")
    assert head[-2:] == ["failed", "complete"]
    assert (first[-2:], second[-2:]) == (["1", "yes"], ["-", "no"])
    assert hsi("ls", mine.scores, "--json").json["incomplete"] == ["b"]
    done = hsi("show", mine.scores / "a")
    assert "lines 0:16 cannot be read" in done.out
    assert hsi("show", mine.scores / "a", "--json").json["failed"]["0"].startswith("lines 0:16")


def test_scores_without_their_run_state_or_archive(hsi, mine):
    (mine.root / "s.zarr.hsi-batch" / "metrics.json").unlink()
    mine.archive.rename(mine.root / "elsewhere.zarr")
    assert open_archive(mine.root / "elsewhere.zarr")
    assert hsi("ls", mine.scores).code == 0
    found = hsi("show", mine.scores / "a", "--json").json
    assert (found["scored"], found["summary"]) == (0, [])
    assert hsi("show", mine.scores / "a").code == 0


def test_infinite_scores_are_strict_json(hsi, mine):
    import pandas as pd

    path = mine.root / "s.zarr.hsi-batch" / "summary.parquet"
    rows = pd.read_parquet(path)
    rows["score_max"], rows["score_mean"] = np.inf, np.nan
    rows.to_parquet(path)
    metrics = path.with_name("metrics.json")
    content = unsealed(metrics.read_bytes())
    content["files"][path.name] = digest_of_file(path)
    metrics.write_text(sealed(content))
    (row,) = hsi("show", mine.scores / "a", "--json").json["summary"]
    assert (row["score_max"], row["score_mean"]) == ("inf", None)
    _, rows = table(hsi("ls", mine.scores).out, "session")
    assert "inf" in rows[0]


def test_a_session_that_is_not_there(hsi, made):
    done = hsi("show", made.scores / "A1")
    assert (done.code, done.out) == (2, "")
    assert "there is no session 'A1'" in done.err


def test_a_store_of_a_newer_version(hsi, mine):
    path = mine.scores / "zarr.json"
    meta = json.loads(path.read_text())
    meta["attributes"]["format_version"] = 99
    path.write_text(json.dumps(meta))
    for command in ("ls", "show"):
        done = hsi(command, mine.scores)
        assert (done.code, done.out) == (3, "")
        assert "format version 99" in done.err
