"""What objects show of themselves: escaped, without a pixel, without workers, in light and dark."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import distributed
import numpy as np
import pytest
from counting import counting
from graphs import rx_raw
from hypothesis import given
from hypothesis import strategies as st
from recordings import scene, write_envi

import hsi_batch as hb
from hsi_batch.archive.layout import BlockKey
from hsi_batch.markup import card, table
from hsi_batch.pipeline import picture
from hsi_batch.pipeline.outline import outline
from hsi_batch.stages.convert import ConvertResult
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.stages.run import Failure
from hsi_batch.stages.score_result import ScoreResult
from hsi_batch.training.results import TrainResult
from hsi_batch.workflow import shipped

EVIL = "<script>alert('&\"')</script>"


@pytest.fixture(scope="module")
def made(client, tmp_path_factory):
    here = tmp_path_factory.mktemp("shown")
    for i in range(2):
        cube, mask = scene(i)
        write_envi(here / "in" / f"s{i}.hdr", cube, wavelength=np.arange(8) + 500.0, mask=mask)
    converted = hb.convert(here / "in", here / "a.zarr", client=client)
    archive = hb.open_archive(here / "a.zarr")
    pipeline = rx_raw()
    fitted = hb.fit(pipeline, archive, client=client)
    scored = hb.score(pipeline, archive, here / "s.zarr", client=client)
    return SimpleNamespace(**locals())


class Words(HTMLParser):
    """The text of a page, and whether its tags are closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.tags = [], [], set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, *_):
        self.tags.add(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag, *_):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def words(thing):
    found = Words(thing._repr_html_())
    assert not {"script", "img", "link", "iframe", "object"} & found.tags
    return " ".join(" ".join(found.text).split())


def test_they_read_no_pixel_and_start_nothing(made, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a cluster was started")

    monkeypatch.setattr("hsi_batch.cluster.connecting.connect", refuse)
    monkeypatch.setattr(distributed.Client, "__init__", refuse)
    archive = hb.open_archive(made.archive.path)
    pipeline = hb.Pipeline.from_yaml(made.pipeline.save(made.here / "f.yaml"))
    things = [archive, archive.session("s0"), pipeline, made.converted, made.fitted, made.scored]
    with counting(made.client, made.here) as counts:
        for thing in things:
            assert repr(thing)
            assert words(thing)
    assert not counts


def test_what_they_say(made):
    shown = words(made.archive)
    assert "2 sessions, 2 frames" in shown
    assert "s0 1 40 30 8 uint16 500 507" in shown
    session = made.archive.session("s1")
    for text in (repr(session), words(session)):
        for part in ("s1", "40 lines x 30 samples x 8 bands, uint16", "500 .. 507 nm"):
            assert part in text
    shown = words(made.pipeline)
    for part in ("test: 2 nodes, ready to score", "RXGlobal", "fitted from moments", "B,y,x, 8)"):
        assert part in shown
    assert "2 frames of 2 sessions, 2400 pixels (valid)" in shown
    assert "2 frames of 2 sessions, 2400 pixels (valid)" in repr(made.pipeline)
    assert "rx to be fitted" in words(rx_raw())
    shown = words(made.fitted)
    condition = f"{made.fitted.condition['rx']:,.4g}"
    for part in ("passes over the pixels 0", "pixels 2,400", f"rx 8 {condition}", "seconds"):
        assert part in shown
    assert repr(made.fitted).startswith("<FitResult: fitted from 2400 pixels of 2 frames")
    shown = words(made.scored)
    for part in (made.scored.store, "scores", f"auc {made.scored.metrics['auc']:.4g}"):
        assert part in shown
    assert repr(made.scored).startswith("<ScoreResult: 2 frames of 2 sessions: scores")
    shown = words(made.converted)
    assert "converted frames failed problem s0 1 0 s1 1 0" in shown
    assert repr(made.converted).startswith("<ConvertResult: 2 sessions converted")


def evil_things():
    failure = Failure(BlockKey(EVIL, 0, 0, 4), EVIL)
    pipeline = rx_raw()
    pipeline.name = EVIL
    yield pipeline
    yield ConvertResult(
        EVIL, broken=((EVIL, EVIL),), skipped=((EVIL, EVIL),), changed=(EVIL,), failures=(failure,)
    )
    yield FitResult(1, warnings=(EVIL,), settled={EVIL: EVIL}, out=EVIL, earlier=(failure,))
    yield ScoreResult(EVIL, (EVIL,), fallback=(EVIL,), stale=(EVIL,), metrics={EVIL: 1.0})
    yield TrainResult((EVIL,), 1, 1, 1, 1.0, 0.0, EVIL, stopped=False, history=({EVIL: 1.0},))


@pytest.mark.parametrize("thing", list(evil_things()), ids=lambda thing: type(thing).__name__)
def test_they_escape_everything(thing):
    html = thing._repr_html_()
    assert "<script" not in html
    assert EVIL in words(thing)


def test_attributes_of_a_stranger_are_escaped(made, tmp_path, client):
    cube, _ = scene(0)
    write_envi(tmp_path / "in" / "a.hdr", cube, extra=f"sensor type = {EVIL}\n")
    hb.convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    archive = hb.open_archive(tmp_path / "a.zarr")
    assert EVIL in words(archive)
    assert EVIL in words(archive.session("a"))


@given(st.lists(st.tuples(st.text(), st.integers() | st.floats() | st.none()), max_size=30))
def test_tables_hold_what_they_are_given(rows):
    html = table(rows, ("a", "b"))
    if not rows:
        assert html is None
        return
    found = Words(html)
    assert html.count("<tr>") == 1 + min(len(rows), 20) + (len(rows) > 20)
    text = "".join(found.text)
    for name, _ in rows[:10]:
        assert name in text


@pytest.mark.parametrize("path", [*(shipped() / "pipelines").glob("*.yaml")], ids=lambda p: p.stem)
def test_graphs_fit_on_a_page(path):
    graph = outline(hb.Pipeline.from_yaml(path))
    sizes = {box.name: picture._size(box) for box in graph.boxes}
    widest = max(width for width, _ in sizes.values())
    for page in (25.0, picture._PAGE, np.inf):
        laid = picture._layout(graph, sizes, page)
        boxes = [(*laid.places[name], *sizes[name]) for name in sizes]
        for i, (x, y, w, h) in enumerate(boxes):
            assert 0 <= x < x + w <= max(page, widest) + 2 + len(laid.turns)
            assert 2 < y < y + h <= laid.height
            for a, b, c, d in boxes[:i]:
                assert x >= a + c or a >= x + w or y >= b + d or b >= y + h
        layers = {box.name: box.layer for box in graph.boxes}
        if page == np.inf:
            assert laid.turns == {}
        for line, (below, above, _) in laid.turns.items():
            source, target = line.source.node, line.target.node
            assert layers[source] < layers[target]
            bottoms = [y + h for (_, y, _, h), n in zip(boxes, sizes, strict=True) if n == source]
            assert bottoms[0] < below <= above < laid.places[target][1]


def test_colours_are_those_of_the_page(made):
    for thing in (made.archive, made.fitted, made.pipeline):
        style, _, body = thing._repr_html_().partition("</style>")
        assert not re.search(r"#[0-9a-f]{3,6}\b|:\s*(white|black)", style)
        assert "currentColor" in style
        if thing is made.pipeline:
            # Outside of its boxes, words have the colour of the page, and there is no background.
            title = re.search(r"<text[^>]*style=\"([^\"]*)\"[^>]*>test</text>", body)
            assert "currentColor" in title[1]
    assert "<b>A</b> b" in card("A", "b")
