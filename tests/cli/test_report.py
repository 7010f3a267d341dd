"""The demo, and its report in a real browser."""

import base64
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import zarr
from browser import visit
from commands import Marked, command
from markupsafe import escape
from recordings import scene, write_npz

LOOK = """
JSON.stringify({
  text: document.body.innerText,
  images: [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt]),
  plots: [...document.querySelectorAll('svg')].map(s => [s.clientWidth, s.clientHeight]),
  headings: [...document.querySelectorAll('h2')].map(h => h.innerText),
  cards: [...document.querySelectorAll('.card h3')].map(h => h.innerText),
  top: [...document.querySelectorAll('#frames tr')].map(r => [...r.cells].map(c => c.innerText)),
  hacked: typeof window.hacked,
})
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as a newcomer runs it: a process, workers of its own, paths below the folder."""
    folder, marked = tmp_path_factory.mktemp("demo"), Marked()
    done = command("demo", "here", "--workers", "2", cwd=folder, env=marked.env)
    assert done.code == 0, done
    assert not marked.wait()
    return folder / "here", done


def test_the_demo_ends_with_what_was_found_and_the_report(demo):
    folder, done = demo
    *_, found, edit, last = done.out.splitlines()
    auc = float(re.fullmatch(r"The planted targets were found with AUC (\S+)\.", found).group(1))
    assert auc > 0.95
    assert edit.endswith("hsi-batch run here/quickstart.yaml")
    assert last == "Report: here/report.html"
    assert (folder / "report.html").exists()
    again = command("run", "here/quickstart.yaml", "--dry-run", "--json", cwd=folder.parent)
    assert again.json["convert"]["counts"] == {"done": 4}
    assert again.json["score"]["blocks"] == 0


def look(page, folder):
    found = visit(page, LOOK, folder / "profile")
    assert [r for r in found.requests if not r.startswith("data:")] == [page.as_uri()]
    assert found.complaints == []
    return json.loads(found.value), found.picture


def test_the_report_in_a_browser(demo, tmp_path):
    folder, _ = demo
    # Nothing but the page itself may be needed.
    page = tmp_path / "alone" / "report.html"
    page.parent.mkdir()
    shutil.copy(folder / "report.html", page)
    seen, picture = look(page, tmp_path)
    assert len(seen["images"]) == 4 * 3
    for complete, width, height, _ in seen["images"]:
        assert complete
        assert width >= 240
        assert height * 4 == width * 3
    for kind in ("false colour", "scores", "decisions"):
        assert sum(alt.startswith(kind) for *_, alt in seen["images"]) == 4
    assert {"Scores", "ROC", "Scores over frames", "Top frames"} <= set(seen["headings"])
    assert len(seen["plots"]) == 3
    assert all(width > 200 and height > 100 for width, height in seen["plots"])
    assert sorted(seen["cards"]) == [f"field_{f}-scene_00{i}" for f in "ab" for i in (0, 1)]
    assert "auc" in seen["text"].lower()
    # Four scenes of 180 x 240 pixels: a thousandth of them is expected above the threshold.
    fact = re.search(
        r"decider\s+Threshold (\S+), pfa 0\.001 by a generalised Pareto tail of (\d+) scores"
        r" \(172\.8 scores expected\); (\d+) of 172800 scores of the fit reach it",
        seen["text"],
    )
    assert float(fact[1]) > 64
    assert int(fact[2]) == 172800 // 20 - 1
    flagged = re.search(r"flagged\s+(\d+) pixels \((\S+) % of the valid\)", seen["text"])
    assert flagged[1] == fact[3]
    assert 0.05 < float(flagged[2]) < 0.2
    head, *rows = seen["top"]
    assert head[:3] == ["session", "frame", "highest score"]
    assert [row[0] for row in rows] == seen["cards"]
    maxima = {
        name: float(np.nanmax(group["scores"][:]))
        for name, group in zarr.open_group(folder / "scores.zarr", mode="r").groups()
    }
    for row in rows:
        assert float(row[2]) == pytest.approx(maxima[row[0]], rel=1e-3)
    # Not blank: many colours, and not only near the top.
    for part in np.array_split(picture, 3):
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 100


def test_the_page_names_no_other_file(demo):
    text = (demo[0] / "report.html").read_text()
    # What the script makes is looked at in the browser.
    plain = re.sub(r"<script.*?</script>|<meta http-equiv[^>]*>", "", text, flags=re.DOTALL)
    links = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?([^"')\s>]+)""", plain)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "@import" not in text
    # One script, ours, which the page allows by its digest, and no other.
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src" in text
    assert f"script-src 'sha256-{digest}'" in text
    assert text.count("<script") == 2


NASTY = "<img src=x onerror=hacked=1><b>&amp;\"'"


def test_names_with_html_in_them(hsi, made, tmp_path):
    # File names may hold anything but a slash; so may a sensor, a folder, and a class.
    folder = tmp_path / f"in {NASTY}"
    for i in range(2):
        cube, mask = scene(i)
        write_npz(folder / f"{i}{NASTY}.npz", cube, mask=mask)
    archive, scores = tmp_path / f"a{NASTY}.zarr", tmp_path / f"s{NASTY}.zarr"
    assert hsi("convert", folder, "--archive", archive).code == 0
    fitted = tmp_path / "f.yaml"
    assert hsi("fit", made.pipeline, "--archive", archive, "--out", fitted).code == 0
    # A pipeline is named by whoever wrote it.
    name = json.dumps(f"RX {NASTY}")
    text = re.sub(r"(?m)^  name: RX_Statistical$", f"  name: {name}", fitted.read_text())
    # Without the line that vouches for the weights, which was made for the other name.
    fitted.write_text(text.split("\n", 1)[1])
    assert hsi("score", fitted, "--archive", archive, "--out", scores).code == 0
    # As another program might name sessions.
    root = zarr.open_group(scores, mode="r+")
    first = next(name for name, _ in root.groups())
    root[first].attrs["failed_frames"] = {"0": NASTY}
    assert hsi("report", scores, "--out", tmp_path / "r.html").code == 0
    seen, _ = look(tmp_path / "r.html", tmp_path)
    assert seen["hacked"] == "undefined"
    assert seen["text"].count(NASTY) >= 4
    text = (tmp_path / "r.html").read_text()
    assert str(escape(NASTY)) in text
    assert NASTY not in text
    assert "</script" not in re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1]


def test_a_page_that_is_up_to_date(hsi, mine):
    page = mine.root / "r.html"
    report = ["report", mine.scores, "--out", page]
    first = hsi(*report, "--json").json
    assert not first["up_to_date"]
    written = page.stat().st_mtime_ns
    assert hsi(*report).out == f"up to date: {page}\n"
    assert hsi(*report, "--json").json == {**first, "up_to_date": True}
    assert page.stat().st_mtime_ns == written
    # Whatever the page shows makes it stale.
    score = ["score", mine.fitted, "--archive", mine.archive, "--out", mine.scores]
    changes = [
        lambda: hsi(*score, "--force"),
        lambda: page.write_text("<html>something else</html>"),
        page.unlink,
        lambda: mine.archive.rename(mine.root / "moved.zarr"),
        lambda: report.extend(["--archive", mine.root / "moved.zarr"]),
        lambda: hsi("rm", mine.root / "moved.zarr" / "b"),
    ]
    for change in changes:
        change()
        assert hsi(*report).out == f"{page}\n"
        assert hsi(*report).out == f"up to date: {page}\n"
    assert hsi(*report, "--force").out == f"{page}\n"


def test_scores_without_labels_or_archive(hsi, made, tmp_path):
    for i in range(2):
        write_npz(tmp_path / "in" / f"{i}.npz", scene(i)[0])
    archive = tmp_path / "a.zarr"
    assert hsi("convert", tmp_path / "in", "--archive", archive).code == 0
    fitted, scores = tmp_path / "f.yaml", tmp_path / "s.zarr"
    assert hsi("fit", made.pipeline, "--archive", archive, "--out", fitted).code == 0
    assert hsi("score", fitted, "--archive", archive, "--out", scores).code == 0
    archive.rename(tmp_path / "moved.zarr")
    assert hsi("report", scores, "--out", tmp_path / "r.html").code == 0
    text = (tmp_path / "r.html").read_text()
    assert "The archive was not found, so cubes are not shown." in text
    assert "ROC" not in text
    assert "false colour" not in text
    moved = ["--archive", tmp_path / "moved.zarr"]
    done = hsi("report", scores, "--out", tmp_path / "r.html", *moved, "--json")
    assert done.json["auc"] is None
    assert "false colour" in (tmp_path / "r.html").read_text()


def test_a_session_whose_scores_overflow(hsi, made, tmp_path):
    cube = scene(1, dtype="float64")[0]
    write_npz(tmp_path / "in" / "usual.npz", cube)
    write_npz(tmp_path / "in" / "far.npz", cube * 1e25)
    archive, fitted, scores = (tmp_path / name for name in ("a.zarr", "f.yaml", "s.zarr"))
    assert hsi("convert", tmp_path / "in", "--archive", archive).code == 0
    fit = ["fit", made.pipeline, "--archive", archive, "--out", fitted, "--frames", "usual"]
    assert hsi(*fit).code == 0
    assert hsi("score", fitted, "--archive", archive, "--out", scores).code == 0
    assert np.isinf(zarr.open_array(scores, path="far/scores")[:]).all()
    done = hsi("report", scores, "--out", tmp_path / "r.html")
    assert (done.code, done.err) == (0, "")
    text = (tmp_path / "r.html").read_text()
    assert "score (1200 pixels with infinite scores not shown)" in text
    seen, _ = look(tmp_path / "r.html", tmp_path)
    assert "Scores" in seen["headings"]
    assert [row[0] for row in seen["top"][1:]] == ["far", "usual"]
