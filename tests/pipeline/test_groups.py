"""States of many groups on disk, and the names of groups."""

import io

import numpy as np
import pytest
import torch
from graphs import rx_raw
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hsi_batch.errors import ConfigError, HsiBatchWarning, NotFittedError, PipelineError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.groups import Groups, GroupState, check_background, group_of
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.reference import Reference
from hsi_batch.pipeline.stacked import groups_from_plain, groups_to_plain
from hsi_batch.statistics import Moments


def through_a_file(groups):
    buffer = io.BytesIO()
    torch.save(groups_to_plain(groups), buffer)
    buffer.seek(0)
    return groups_from_plain(torch.load(buffer, weights_only=True))


def bits(value):
    value = np.asarray(value)
    return value.dtype.str, value.shape, value.tobytes()


def shaped(draw, size):
    """A matrix whose halves may belong together, to the last bit."""
    special = st.sampled_from([0.0, -0.0, np.nan, np.inf, 1.5, -3.25])
    matrix = draw(npst.arrays(np.float64, (size, size), elements=special))
    form = draw(st.sampled_from(["whole", "symmetric", "lower"]))
    if form == "symmetric":
        upper = np.triu_indices(size, 1)
        matrix.T[upper] = matrix[upper]
    if form == "lower":
        matrix[np.triu_indices(size, 1)] = 0.0
    return matrix


@given(st.data(), st.integers(1, 4), st.booleans())
def test_every_bit_comes_back(data, count, alike):
    sizes = [3] * count if alike else data.draw(st.lists(st.integers(1, 4), min_size=count))
    states = {}
    for i in range(count):
        buffers = {"m": shaped(data.draw, sizes[i]).astype(np.float32), "n": np.array(i)}
        state = {"m": shaped(data.draw, sizes[i]), "flag": np.array([True, False])}
        reference = None
        if data.draw(st.booleans()):
            reference = Reference(7 + i, np.arange(2.0) + i, shaped(data.draw, 2))
        states[f"g{i}"] = GroupState(
            {"rx": buffers, "bare": {}},
            {"rx": state} if data.draw(st.booleans()) else {},
            {"rx": "abc"},
            {"rx": {"threshold": 0.1 + i}},
            {"rx": Precision("float32", 1e-8, 5)},
            reference,
            {"session_names": [f"g{i}"], "sessions": 1},
        )
    again = through_a_file(Groups("attr:day", states, "g0"))
    assert (again.by, again.fallback, list(again.states)) == ("attr:day", "g0", list(states))
    for name, state in states.items():
        found = again.states[name]
        for attribute in ("digest", "hparams", "precision", "provenance"):
            assert getattr(found, attribute) == getattr(state, attribute)
        for attribute in ("buffers", "state"):
            mine, theirs = getattr(state, attribute), getattr(found, attribute)
            assert {n: {k: bits(v) for k, v in vs.items()} for n, vs in mine.items()} == {
                n: {k: bits(v) for k, v in vs.items()} for n, vs in theirs.items()
            }
        assert (found.reference is None) == (state.reference is None)
        if state.reference is not None:
            mine, theirs = state.reference.to_arrays(), found.reference.to_arrays()
            assert {k: bits(v) for k, v in mine.items()} == {k: bits(v) for k, v in theirs.items()}


def test_half_of_symmetric_and_triangular_matrices_is_kept():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 5))
    state = {"symmetric": a + a.T, "lower": np.tril(a), "whole": a}
    raw = groups_to_plain(Groups("session", {n: GroupState({}, {"x": state}, {}) for n in "ab"}))
    kept = {e["at"][2]: (e["form"], tuple(e["values"].shape)) for e in raw["arrays"]}
    assert kept["symmetric"] == ("symmetric", (2, 15))
    assert kept["lower"] == ("lower", (2, 15))
    assert kept["whole"] == ("whole", (2, 5, 5))


@pytest.mark.parametrize(
    ("by", "attrs", "group"),
    [
        ("session", {}, "s"),
        ("sensor", {"sensor": "FX17"}, "FX17"),
        ("sensor", {"sensor": None}, None),
        ("sensor", {}, None),
        ("attr:day", {"day": 3}, "3"),
        ("attr:day", {"day": "3"}, "3"),
        ("attr:day", {"day": ""}, None),
        ("attr:day", {"day": float("nan")}, None),
        ("attr:day", {"day": [3]}, None),
        # As the catalog names it.
        ("attr:mode", {"processing_mode": "Raw"}, "Raw"),
        ("attr:metadata.day", {"metadata": {"day": 3}}, "3"),
        ("attr:metadata.day", {"metadata": 3}, None),
        ("attr:a.b", {"a.b": 1, "a": {"b": 2}}, "1"),
    ],
)
def test_names_of_groups(by, attrs, group):
    assert group_of(by, "s", attrs) == group


@pytest.mark.parametrize("background", ["", "attr", "attr: ", "Session", "tag:x"])
def test_unknown_backgrounds(background):
    with pytest.raises(ConfigError, match="not one of archive, session, sensor, attr:NAME"):
        check_background(background)


def grouped(fallback=None):
    pipeline = rx_raw(eps=1e-3)
    pipeline.resolve(ChannelAxis(3))
    states = {}
    for i, name in enumerate("ab"):
        one = rx_raw(eps=1e-3)
        one.resolve(ChannelAxis(3))
        pixels = np.random.default_rng(i).normal(size=(50, 3))
        one.nodes["rx"].fit(Moments.empty(3, "float64").update(pixels))
        states[name] = GroupState.of(one, ["rx"], pipeline)
    pipeline.groups = Groups("session", states, fallback)
    return pipeline


def test_a_pipeline_of_groups_says_what_it_is():
    pipeline = grouped()
    assert pipeline.fitted
    assert not pipeline.nodes["rx"].fitted
    assert "rx (RXGlobal) data<-data.cube not fitted" in repr(pipeline)
    assert "2 backgrounds, one per session" in repr(pipeline)
    assert pipeline.for_session("b").nodes["rx"].fitted
    # Taking one leaves all as it was.
    assert not pipeline.nodes["rx"].fitted
    with pytest.raises(NotFittedError, match="none of all pixels"):
        pipeline.pooled()
    with pytest.raises(ConfigError, match=r"session c: .* has none for c; it has a and b"):
        pipeline.for_session("c")


def test_cuvis_ai_gets_the_background_of_all_or_nothing(tmp_path):
    pipeline = grouped()
    with pytest.raises(PipelineError, match="cuvis-ai knows one background"):
        pipeline.save(tmp_path / "f.yaml", "cuvis-ai")
    assert not list(tmp_path.iterdir())
    pipeline = grouped("archive")
    pixels = np.random.default_rng(9).normal(size=(50, 3))
    pipeline.nodes["rx"].fit(Moments.empty(3, "float64").update(pixels))
    with pytest.warns(HsiBatchWarning, match="that of all pixels serves for every session"):
        pipeline.save(tmp_path / "f.yaml", "cuvis-ai")
    content = torch.load(tmp_path / "f.pt", weights_only=True)
    assert torch.equal(content["state_dict"]["rx"]["mu"], pipeline.nodes["rx"].mu)
    # An older version of ours refuses the file instead of passing over the groups.
    assert content["hsi_batch"]["format"] == 2


def test_damage_is_named(tmp_path):
    grouped().save(tmp_path / "f.yaml")
    content = torch.load(tmp_path / "f.pt", weights_only=True)
    content["hsi_batch"]["groups"]["names"].pop()
    torch.save(content, tmp_path / "f.pt")
    with pytest.raises(ConfigError, match="the part 'hsi_batch' of the weights is damaged"):
        Pipeline.from_yaml(tmp_path / "f.yaml")
