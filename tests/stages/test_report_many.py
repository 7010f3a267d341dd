"""The report of a hundred thousand frames: bounded, and used by keyboard and mouse."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from browser import drive

from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.store import SCORES, create_root
from hsi_batch.stages.evaluation import Evaluation, save_evaluation
from hsi_batch.stages.report import report
from hsi_batch.stages.report_cards import chosen_frames
from hsi_batch.stages.report_tables import report_tables, summary_by_session, tables_json

SESSIONS, FRAMES = 100, 1000


def rows_of(sessions, frames, seed=0):
    """Rows as an evaluation makes them; every tenth session is labelled."""
    rng = np.random.default_rng(seed)
    found = []
    for s in range(sessions):
        scores = rng.gamma(4.0, 20.0, frames)
        flagged = rng.integers(0, 9, frames)
        for f in range(frames):
            best = float(scores[f])
            found.append(
                {
                    "session": f"flight_{s // 10}-strip_{s}",
                    "frame": f,
                    "pixels": 48,
                    "valid": 48 - f % 3,
                    "score_mean": best / 3,
                    "score_max": best,
                    "max_y": f % 6,
                    "max_x": f % 8,
                    "score_p50": best / 4,
                    "score_p95": best / 2,
                    "score_p99": best / 1.5,
                    "score_p999": best / 1.1,
                    "flagged": int(flagged[f]),
                }
            )
            if s % 10 == 0:
                found[-1] |= {"labelled": 48, "anomalous": 3, "auc": 0.9}
    found[7] |= dict.fromkeys(("score_mean", "score_max", "max_y", "max_x", "score_p50"))
    return found


def store_of(folder, sessions, frames, failed=()):
    """A store of scores with a summary; maps have no chunks, so they are their fill value."""
    root = create_root(folder / "s.zarr", SCORES, {"archive": str(folder / "none.zarr")})
    rows = rows_of(sessions, frames)
    for name in dict.fromkeys(row["session"] for row in rows):
        group = root.create_group(
            name,
            attributes={
                "digest": "x",
                "complete": True,
                "failed_frames": {str(f): why for s, f, why in failed if s == name},
            },
        )
        for output, kind, fill in (("scores", "f4", 1.0), ("decisions", "u1", 0)):
            shape = (frames, 6, 8)
            group.create_array(output, shape=shape, dtype=kind, chunks=(1, 6, 8), fill_value=fill)
    consolidate(root)
    found = Evaluation(rows, decided=True, covers=dict.fromkeys((r["session"] for r in rows), "x"))
    found.scores = found.scores.update(np.array([[r["score_mean"] or 1.0] for r in rows], "f4"))
    save_evaluation(found, str(folder / "s.zarr"))
    return folder / "s.zarr", pd.DataFrame(rows)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    failed = [("flight_0-strip_3", f, f"</script><b>bad block {f % 3}") for f in range(40)]
    store, table = store_of(folder, SESSIONS, FRAMES, failed)
    page = folder / "r.html"
    report(store, page)
    return page, table


def test_the_page_is_small_and_has_few_pictures(many):
    page, table = many
    assert len(table) == 100_000
    assert page.stat().st_size < 20_000_000
    text = page.read_text()
    assert text.count("<img ") == 2 * (12 + 8)
    # The archive is not there; how many frames there are is known all the same.
    assert "100 recordings (100000 frames) were scored" in text
    # Nothing of the data is in the document twice, but the first page of each table.
    assert text.count("<tr>") < 200
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1])
    frames = data["tables"]["frames"]
    assert len(frames["columns"][0]["values"]) == frames["total"] == 100_000


TABLE = """JSON.stringify({
  rows: [...document.querySelectorAll('#frames tbody tr')]
    .map(r => [...r.cells].map(c => c.innerText)),
  all: document.querySelectorAll('tr').length,
  status: document.querySelector('#frames [role=status]').innerText,
  sorted: [...document.querySelectorAll('#frames th')].map(t => t.ariaSort),
  focus: document.activeElement.innerText,
})"""


def highest(seen):
    return [float(row[2]) for row in seen["rows"]]


def test_the_table_by_keyboard_and_mouse(many, tmp_path):
    page, table = many
    names = ["session", "frame", "highest score"]

    async def steps(opened):
        async def look():
            return json.loads(await opened.value(TABLE))

        # The first stop is the link that leads to the table.
        await opened.press("Tab")
        assert (await look())["focus"] == "Skip to the table"
        await opened.press("Enter")
        assert await opened.value("location.hash") == "#frames"
        seen = await look()
        assert seen["all"] < 200
        assert seen["status"] == "1 to 25 of 100000 frames"
        assert seen["sorted"][:3] == ["none", "none", "descending"]
        best = table.sort_values("score_max", ascending=False).head(25)
        assert [row[0] for row in seen["rows"]] == best["session"].tolist()
        assert [int(row[1]) for row in seen["rows"]] == best["frame"].tolist()
        assert highest(seen) == pytest.approx(best["score_max"].tolist(), rel=1e-3)
        # On to the heads, past the fields of the filter and the table itself.
        for _ in range(20):
            await opened.press("Tab")
            if (await look())["focus"] == names[2]:
                break
        assert (await look())["focus"] == names[2]
        for key, order in (("Enter", "ascending"), (" ", "descending"), (" ", "ascending")):
            await opened.press(key)
            seen = await look()
            assert seen["sorted"][2] == order
            assert seen["focus"] == names[2]
        least = table.dropna(subset=["score_max"]).sort_values("score_max").head(25)
        assert highest(seen) == pytest.approx(least["score_max"].tolist(), rel=1e-3)
        # Typed into the filter: sessions, then a range of a column.
        await opened.click("#frames input[type=search]")
        await opened.type("STRIP_4")
        chosen = table[table["session"].str.contains("strip_4")]
        seen = await look()
        assert seen["status"] == f"1 to 25 of {len(chosen)} frames that match, of 100000"
        assert {row[0] for row in seen["rows"]} <= set(chosen["session"])
        await opened.click("#frames input[type=number]")
        await opened.type("150")
        strong = chosen[chosen["score_max"] >= 150].sort_values("score_max")
        seen = await look()
        assert seen["status"].startswith(f"1 to {min(25, len(strong))} of {len(strong)} frames")
        assert highest(seen) == pytest.approx(strong["score_max"].head(25).tolist(), rel=1e-3)
        # By the mouse: the next page, the last one, sessions as numbers are, all again.
        await opened.click("#frames .pager button:nth-of-type(3)")
        following = strong["score_max"][25:50].tolist()
        assert highest(await look()) == pytest.approx(following, rel=1e-3)
        await opened.click("#frames .controls button")
        await opened.click("#frames th:first-child button")
        await opened.click("#frames .pager button:nth-of-type(4)")
        seen = await look()
        assert seen["status"] == "99976 to 100000 of 100000 frames"
        assert seen["rows"][-1][0] == "flight_9-strip_99"
        # Frames without a highest score are the last ones in either order.
        await opened.click("#frames th:nth-child(3) button")
        for _ in range(2):
            await opened.click("#frames .pager button:nth-of-type(4)")
            assert (await look())["rows"][-1][2] == "-"
            await opened.click("#frames th:nth-child(3) button")
        assert await opened.value("document.querySelectorAll('#failures tbody tr').length") == 25
        assert "</script><b>bad block 0" in await opened.value("document.body.innerText")

    found = drive(page, tmp_path / "profile", steps)
    assert [r for r in found.requests if not r.startswith(("data:", page.as_uri()))] == []
    assert found.complaints == []


CONTRAST = """(() => {
  const shade = (c) => { const [r, g, b] = c.match(/[0-9.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!c.endsWith(", 0)")) return c; } };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  return Math.min(...['h1', 'th button', 'td', 'a', '.caption', '.tiles span', '.tiles b', 'label',
    'figcaption', 'input', 'footer', '.bad']
    .flatMap(s => [...document.querySelectorAll(s)].slice(0, 3))
    .map(e => ratio(shade(getComputedStyle(e).color), shade(behind(e)))));
})()"""


def test_light_dark_and_printed(many, tmp_path):
    page, _ = many

    async def steps(opened):
        white = "getComputedStyle(document.body).backgroundColor"
        for scheme in ("light", "dark"):
            await opened.dress(scheme)
            # WCAG 2.1 AA.
            assert await opened.value(CONTRAST) >= 4.5
            assert (await opened.value(white) == "rgb(255, 255, 255)") == (scheme == "light")
            # Nothing is wider than the window, a narrow one neither.
            await opened.dress(scheme, width=420)
            wide = "document.documentElement.scrollWidth <= window.innerWidth"
            assert await opened.value(wide)
        await opened.dress("dark", media="print")
        assert await opened.value(white) == "rgb(255, 255, 255)"
        hidden = "[...document.querySelectorAll('.controls, .contents, .pager button')]"
        assert await opened.value(f"{hidden}.every(e => getComputedStyle(e).display === 'none')")
        printed = await opened.call("Page.printToPDF")
        assert 20_000 < len(printed["data"]) < 5_000_000

    assert drive(page, tmp_path / "profile", steps).complaints == []


def test_frames_that_are_shown():
    table = pd.DataFrame(rows_of(30, 3))
    top, others = chosen_frames(table)
    assert (len(top), len(others)) == (12, 8)
    assert top["score_max"].tolist() == sorted(table["score_max"].dropna(), reverse=True)[:12]
    assert not set(top.index) & set(others.index)
    assert chosen_frames(table)[1].index.tolist() == others.index.tolist()
    # One session does not take all places, unless it is alone.
    table.loc[table["session"] == "flight_0-strip_1", "score_max"] = 1e6
    crowded = pd.concat([table, table[table["session"] == "flight_0-strip_1"]] * 4)
    top, _ = chosen_frames(crowded.reset_index(drop=True))
    assert (top["session"] == "flight_0-strip_1").sum() == 4
    alone = pd.DataFrame(rows_of(1, 10))
    assert [len(part) for part in chosen_frames(alone)] == [10, 0]


def test_more_than_the_budget_keeps_the_top():
    table = pd.DataFrame(rows_of(20, 50))
    words, listings = report_tables(table, [], {})
    whole, kept = tables_json(words, listings)
    assert len(kept[0]) == 1000
    text, kept = tables_json(words, listings, budget=len(whole) // 3)
    assert len(text) <= len(whole) // 3
    data = json.loads(text)
    frames = data["tables"]["frames"]
    assert frames["total"] == 1000
    assert 200 < len(kept[0]) == len(frames["columns"][0]["values"]) < 400
    names = [data["words"]["sessions"][i] for i in frames["columns"][0]["values"]]
    best = table.sort_values("score_max", ascending=False).head(len(names))
    assert names == best["session"].tolist()


def test_a_session_is_the_sum_of_its_frames():
    table = pd.DataFrame(rows_of(2, 5))
    found = summary_by_session(table, [("flight_0-strip_1", 9, "gone")]).set_index("session")
    part = table[table["session"] == "flight_0-strip_1"]
    row = found.loc["flight_0-strip_1"]
    assert (row["frames"], row["failed"]) == (5, 1)
    assert row["score_max"] == part["score_max"].max()
    known = part.dropna(subset=["score_mean"])
    assert len(known) == 4
    assert row["score_mean"] == pytest.approx(
        np.average(known["score_mean"].astype(float), weights=known["valid"])
    )
    assert row["flagged_share"] == pytest.approx(100 * part["flagged"].sum() / part["valid"].sum())
    assert found.loc["flight_0-strip_0", "anomalous"] == 15
    assert np.isnan(row["anomalous"])
