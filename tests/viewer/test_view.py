"""The viewer: reads what is looked at, answers its own page only, and ends as it is told."""

import http.client
import json
import re
import signal
import time
from contextlib import closing

import numpy as np
import pytest
import zarr
from browser import drive
from commands import Marked, command, hsi_fixture, start  # noqa: F401
from counting import start as count
from counting import stop
from recordings import scene, write_npz

from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.store import SCORES, create_root
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.score import score
from hsi_batch.viewer import Content
from hsi_batch.viewer.content import NotThere
from hsi_batch.workflow import shipped

NM = np.arange(8) * 20.0 + 450


@pytest.fixture(scope="module")
def made(client, tmp_path_factory):
    """Three labelled sessions of two blocks each, and their scores."""
    folder = tmp_path_factory.mktemp("view")
    for i in range(3):
        cube, mask = scene(i)
        write_npz(folder / "in" / f"s{i}.npz", cube, wavelength=NM, mask=mask)
    convert(folder / "in", folder / "a.zarr", block_lines=32, client=client)
    graph = shipped() / "pipelines" / "rx_global.yaml"
    fit_file(graph, folder / "a.zarr", folder / "f.yaml", client=client)
    score(folder / "f.yaml", folder / "a.zarr", folder / "s.zarr", client=client)
    return folder


def chunks_read(look):
    """What something gives, and the chunks that it reads."""
    count()
    try:
        found = look()
    finally:
        files = sorted({f for f in stop() if "/c." in f})
    return found, files


def names_of(files):
    """Session and array of chunks."""
    return sorted({re.search(r"\.zarr/([^/]+/[^/]+)/c\.", f)[1] for f in files})


def test_only_what_is_looked_at_is_read(made):
    content = Content(made / "s.zarr")
    text, files = chunks_read(content.tables)
    assert files == []
    tables = json.loads(text)["tables"]
    assert tables["frames"]["total"] == 3
    values, files = chunks_read(lambda: content.map("s1", 0, "scores"))
    assert names_of(files) == ["s1/scores"]
    root = zarr.open_group(made / "s.zarr", mode="r")
    np.testing.assert_array_equal(values, root["s1"]["scores"][0])
    _, files = chunks_read(lambda: content.colour("s1", 0))
    assert names_of(files) == ["s1/cube"]
    assert len(files) == 2
    # One of the two blocks, and the statistics.
    found, files = chunks_read(lambda: content.spectrum("s1", 0, 35, 3))
    assert names_of(files) == ["s1/cube", "s1/moments"]
    assert sum("/cube/" in f for f in files) == 1
    cube = zarr.open_group(made / "a.zarr", mode="r")["s1"]["cube"][0]
    np.testing.assert_array_equal(found["values"], cube[35, 3])
    np.testing.assert_allclose(found["mean"], cube.reshape(-1, 8).mean(axis=0), rtol=1e-12)
    assert found["mean_of"] == "session"
    # The mean is not read again, and labels are those of the mask.
    _, files = chunks_read(lambda: content.spectrum("s1", 0, 3, 3))
    assert names_of(files) == ["s1/cube"]
    np.testing.assert_array_equal(content.map("s1", 0, "labels"), scene(1)[1] > 0)
    assert content.frame("s1", 0)["threshold"] == pytest.approx(
        dict(root.attrs)["pipeline"]["nodes"][-1]["hparams"]["threshold"]
    )


def test_nothing_else_can_be_named(made):
    content = Content(made / "s.zarr")
    for session, frame in (("s3", 0), ("s1", 1), ("s1", -1), ("../a.zarr/s1", 0), ("", 0)):
        for look in (content.frame, content.colour):
            with pytest.raises(NotThere):
                look(session, frame)
    for name in ("cube", "../s2/scores", "moments"):
        with pytest.raises(NotThere):
            content.map("s1", 0, name)
    for y, x in ((-1, 0), (0, -1), (40, 0), (0, 30)):
        with pytest.raises(NotThere):
            content.spectrum("s1", 0, y, x)


def test_a_large_frame_is_pooled(tmp_path):
    root = create_root(tmp_path / "s.zarr", SCORES, {})
    group = root.create_group("s", attributes={"digest": "x", "complete": True})
    rng = np.random.default_rng(0)
    scores = rng.random((1, 2500, 7)).astype(np.float32)
    scores[0, 5] = np.nan
    decisions = rng.integers(0, 2, scores.shape).astype(np.uint8)
    decisions[0, :3] = 255
    for name, values in (("scores", scores), ("decisions", decisions)):
        group.create_array(name, data=values, chunks=(1, 100, 7))
    consolidate(root)
    content = Content(tmp_path / "s.zarr")
    info = content.frame("s", 0)
    assert (info["step"], info["height"], info["width"]) == (3, 834, 3)
    for name, values in (("scores", scores[0]), ("decisions", decisions[0].astype(float))):
        found = content.map("s", 0, name)
        assert found.shape == (834, 3)
        for y, x in ((0, 0), (1, 0), (1, 2), (500, 1), (833, 2)):
            part = values[3 * y : 3 * y + 3, 3 * x : 3 * x + 3]
            inside = part[part != 255]
            assert found[y, x] == (np.nanmax(inside) if inside.size else 255)


@pytest.fixture(scope="module")
def running(made):
    """A viewer as people start it; ended by Ctrl-C."""
    marked = Marked()
    process = start("view", made / "s.zarr", "--json", "--no-open", env=marked.env)
    told = json.loads(process.stdout.readline())
    yield told
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert not marked.wait()


def ask(told, path, host=None, method="GET"):
    with closing(http.client.HTTPConnection("127.0.0.1", told["port"], timeout=30)) as connection:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


def test_who_is_answered(running, made):
    port = running["port"]
    path = re.fullmatch(rf"http://127\.0\.0\.1:{port}(/[\w-]{{43}}/)", running["address"])[1]
    status, headers, body = ask(running, path)
    assert status == 200
    assert b"<!doctype html>" in body
    assert "Server" not in headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert ask(running, path, host=f"localhost:{port}")[0] == 200
    # A site whose name was made to lead here, another port, no name.
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""):
        assert ask(running, path, host=host)[0] == 403, host
    for wrong in ("/", "/x/", path[:-2] + "/", path.lower() + "x/", path + "../", "//"):
        assert ask(running, wrong)[0] == 404, wrong
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        assert ask(running, path, method=method)[0] == 405, method
    frame = "session=s1&frame=0"
    assert ask(running, f"{path}scores.bin?{frame}")[0] == 200
    for bad in (
        *("frame.json?session=../a.zarr/s1&frame=0", "frame.json?session=s1&frame=9"),
        *("scores.bin?session=s1&frame=-1", "scores.bin?session=s1&frame=0x0"),
        *(f"cube.bin?{frame}", "zarr.json", "..%2f..%2fetc/passwd", "%2e%2e/f.yaml"),
        *(f"spectrum.json?{frame}&y=99&x=0", f"spectrum.json?{frame}&y=1e3&x=0"),
        "scores.bin?session=s1%00&frame=0",
    ):
        status, _, body = ask(running, path + bad)
        assert status == 404, bad
        assert b"Traceback" not in body
    assert ask(running, f"{path}frame.json")[0] == 400
    assert {p.name for p in made.iterdir()} == {
        *("in", "a.zarr", "a.zarr.hsi-batch", "s.zarr", "s.zarr.hsi-batch", "f.yaml", "f.pt")
    }


def test_only_this_machine_can_reach_it(running):
    import psutil

    listening = {
        c.laddr.ip
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port == running["port"]
    }
    assert listening == {"127.0.0.1"}


SEEN = """JSON.stringify({
  name: document.getElementById('name').innerText,
  counts: document.getElementById('counts').innerText,
  where: document.getElementById('where').innerText,
  problem: document.getElementById('problem').innerText,
  lines: [...document.querySelectorAll('#spectrum path')].map(p => p.getAttribute('class')),
  legend: [...document.querySelectorAll('#spectrum text')].map(t => t.textContent),
  points: (document.querySelector('#spectrum .pixel')?.getAttribute('d') || '').split('L').length,
})"""


def test_in_a_browser(running, made, tmp_path):
    root = zarr.open_group(made / "s.zarr", mode="r")
    best = {n: float(np.nanmax(root[n]["scores"][:])) for n in ("s0", "s1", "s2")}
    ordered = sorted(best, key=best.get, reverse=True)

    async def steps(page):
        async def seen():
            return json.loads(await page.value(SEEN))

        await page.wait("document.querySelectorAll('#frames tbody tr').length === 3")
        rows = "[...document.querySelectorAll('#frames tbody tr')].map(r => r.cells[0].innerText)"
        assert await page.value(rows) == ordered
        # Opened by the keyboard: the first name of the table.
        await page.value("document.querySelector('#frames tbody a').focus()")
        await page.press("Enter")
        await page.wait("!document.getElementById('shown').hidden")
        assert (await seen())["name"] == f"{ordered[0]}, frame 0"
        scores = root[ordered[0]]["scores"][0]
        flagged = int((root[ordered[0]]["decisions"][0] == 1).sum())
        truth = scene(int(ordered[0][1]))[1] > 0
        both = int(((root[ordered[0]]["decisions"][0] == 1) & truth).sum())
        expected = f"{flagged} pixels; {both} of {int(truth.sum())} labelled pixels among them"
        assert (await seen())["counts"] == f"decisions as stored: {expected}"
        # The threshold, by keyboard.
        await page.value("document.getElementById('threshold').select()")
        limit = float(np.round(np.quantile(scores, 0.7), 1))
        await page.type(str(limit))
        above = scores >= np.float64(limit)
        expected = f"{above.sum()} pixels; {(above & truth).sum()} of {truth.sum()} labelled"
        assert expected in (await seen())["counts"]
        # The slider; what it says and what is drawn agree.
        await page.value("document.getElementById('slider').focus()")
        await page.press("End")
        assert ": 1 pixel; " in (await seen())["counts"]
        # A pixel by the mouse, then by arrow keys.
        await page.click("#scores", (3.5 / 30, 35.5 / 40))
        await page.wait("document.querySelectorAll('#spectrum path.pixel').length === 2")
        found = await seen()
        assert found["where"].startswith("Line 35, sample 3; score ")
        assert found["lines"] == ["axis", "pixel", "pixel", "mean", "mean"]
        assert {"wavelength (nm)", "mean of the session"} <= set(found["legend"])
        assert found["points"] == 8
        await page.press("ArrowRight")
        await page.press("ArrowDown")
        await page.wait(
            "document.getElementById('where').innerText.startsWith('Line 36, sample 4')"
        )
        await page.wait(
            "[...document.querySelectorAll('#spectrum text')]"
            ".some(t => t.textContent === 'pixel at line 36, sample 4')"
        )
        drawn = "[...document.querySelectorAll('.panel canvas')].map(c => [c.width, c.height])"
        assert await page.value(drawn) == [[30, 40], [30, 40]]
        assert await page.value("document.querySelector('#colour img').naturalWidth") == 30
        assert (await seen())["problem"] == ""

    found = drive(running["address"], tmp_path / "profile", steps)
    assert found.complaints == []
    assert all(r.startswith((running["address"], "data:")) for r in found.requests)
    asked = [r.removeprefix(running["address"]) for r in found.requests]
    # Of the frames, only the one that was opened.
    assert {m[1] for r in asked if (m := re.search(r"session=(\w+)", r))} == {ordered[0]}


def test_what_is_no_store_of_scores_and_ports_that_are_taken(made, running, hsi):
    done = hsi("view", made / "a.zarr", "--no-open")
    assert done.code == 3
    done = hsi("view", made / "s.zarr", "--no-open", "--archive", made / "none.zarr")
    assert done.code == 3
    done = hsi("view", made / "s.zarr", "--no-open", "--port", running["port"])
    assert done.code == 2
    assert "Name another with --port" in done.err


def test_it_ends_when_it_is_asked_to(made):
    process = start("view", made / "s.zarr", "--no-open")
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert time.monotonic() - begun < 10


def test_help_says_that_it_is_for_this_machine():
    assert "on this machine" in command("view", "--help").out
