"""One background per session, sensor or attribute: each against plain numpy on its own pixels."""

import copy

import numpy as np
import pytest
import zarr
from counting import counting
from graphs import chain, rx_raw, rx_statistical, selector
from hypothesis import given
from hypothesis import strategies as st
from recordings import scene, write_envi, write_npz

import hsi_batch as hb
from hsi_batch.archive import open_archive
from hsi_batch.archive.selection import Selection, select
from hsi_batch.archive.stored import stored_statistic
from hsi_batch.cluster import connect
from hsi_batch.errors import ConfigError, DataError, PipelineError, PlanError
from hsi_batch.nodes import CFARThreshold, PercentileNormalizer, PerPixelUnitNorm, RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.groups import Groups
from hsi_batch.stages import fit_waves
from hsi_batch.stages.convert import convert
from hsi_batch.stages.drift import drift
from hsi_batch.stages.fit import fit
from hsi_batch.stages.fit_members import Member, StoredStatistics
from hsi_batch.stages.score import score

SENSORS = {"s0": "FX10", "s1": "FX17", "s2": "FX10", "s3": "FX17"}
DAYS = {"s0": 1, "s1": 1, "s2": 2, "s3": 3}
BY = {
    "session": {name: name for name in SENSORS},
    "sensor": SENSORS,
    "attr:metadata.day": {name: str(day) for name, day in DAYS.items()},
}


@pytest.fixture(scope="module")
def archive(client, tmp_path_factory):
    here = tmp_path_factory.mktemp("backgrounds")
    for i, name in enumerate(SENSORS):
        extra = f"sensor type = {SENSORS[name]}\nday = {DAYS[name]}\n"
        write_envi(here / "in" / f"{name}.hdr", scene(i, lines=48)[0], extra=extra)
    convert(here / "in", here / "a.zarr", block_lines=16, client=client)
    return open_archive(here / "a.zarr")


def pixels_of(archive, group, groups):
    names = [name for name, own in groups.items() if own == group]
    return np.concatenate([archive[n].cube.values.reshape(-1, 8) for n in names]).astype(float)


def mahalanobis(pixels, background):
    inverse = np.linalg.inv(np.cov(background.T))
    away = pixels - background.mean(0)
    return np.einsum("ij,jk,ik->i", away, inverse, away)


def scores_of(store):
    root = zarr.open_group(store, mode="r")
    return {name: group["scores"][:] for name, group in root.groups()}


@pytest.mark.parametrize("by", BY)
def test_each_session_is_scored_against_its_own(archive, client, tmp_path, by):
    pipeline = rx_raw()
    with counting(client, archive.path) as counts:
        result = fit(pipeline, archive, background=by, client=client)
    # Not one byte of a cube.
    assert not counts
    groups = BY[by]
    assert (result.passes, result.groups, result.pixels) == (0, len(set(groups.values())), 4 * 1440)
    assert set(pipeline.groups.states) == set(groups.values())
    for group, state in pipeline.groups.states.items():
        pixels = pixels_of(archive, group, groups)
        np.testing.assert_allclose(state.state["rx"]["mean"], pixels.mean(0), rtol=1e-14)
        np.testing.assert_allclose(state.state["rx"]["covariance"], np.cov(pixels.T), rtol=1e-12)
        assert state.reference.count == len(pixels) == state.provenance["pixel_count"]
        assert state.provenance["session_names"] == [n for n in groups if groups[n] == group]
    pipeline.save(tmp_path / "f.yaml")
    score(tmp_path / "f.yaml", archive, tmp_path / "s.zarr", client=client)
    for name, found in scores_of(tmp_path / "s.zarr").items():
        own = archive[name].cube.values.reshape(-1, 8).astype(float)
        expected = mahalanobis(own, pixels_of(archive, groups[name], groups))
        np.testing.assert_allclose(found.ravel(), expected, rtol=2e-6)


def states(pipeline, group=None):
    """All bits of what was fitted."""
    one = pipeline if group is None else pipeline.for_group(group)
    found = {f"{n}.{k}": v for n, node in one.nodes.items() for k, v in node.state.items()}
    found |= {
        f"{n}:{k}": v.numpy() for n in one.nodes for k, v in one.nodes[n].state_dict().items()
    }
    found |= one.reference.to_arrays()
    return {k: (np.asarray(v).dtype.str, np.asarray(v).tobytes()) for k, v in found.items()}


def unit_percentile():
    return chain(
        PerPixelUnitNorm(name="unit"),
        PercentileNormalizer(name="p", norm_mode="statistical"),
        RXGlobal(name="rx", loading=1e-6),
    )


@pytest.mark.parametrize("graph", [selector, rx_statistical])
def test_the_bits_and_the_passes_are_those_of_a_fit_of_the_group_alone(archive, client, graph):
    grouped, everything = graph(), graph()
    with counting(client, archive.path) as counts:
        result = fit(grouped, archive, background="sensor", fallback="archive", client=client)
    alone = fit(everything, archive, client=client)
    # The state of all pixels takes no pass of its own, and no block is read twice in one.
    assert result.passes == alone.passes == (graph is rx_statistical)
    assert set(counts.values()) <= {result.passes}
    assert len(counts) == 12 * result.passes
    assert states(grouped.pooled()) == states(everything)
    assert grouped.precision == everything.precision
    for sensor in ("FX10", "FX17"):
        single = graph()
        fit(single, archive, frames=f"where:sensor=='{sensor}'", client=client)
        assert states(grouped, sensor) == states(single)
        assert grouped.for_group(sensor).precision == single.precision


def test_behind_nodes_that_are_not_affine(archive, client):
    # Statistics of its own kind (histograms), then moments behind what they gave.
    grouped, single = unit_percentile(), unit_percentile()
    result = fit(grouped, archive, background="session", client=client)
    alone = fit(single, archive, frames="s2", client=client)
    assert result.passes == alone.passes
    assert states(grouped, "s2") == states(single)


def test_any_number_of_workers(archive, client):
    two, one = rx_statistical(), rx_statistical()
    fit(two, archive, background="session", client=client, task_bytes=20_000)
    with connect(workers=1) as other:
        fit(one, archive, background="session", client=other)
    for name in SENSORS:
        assert states(two, name) == states(one, name)


def test_files_give_back_every_bit(archive, client, tmp_path):
    pipeline = rx_statistical()
    fit(pipeline, archive, background="session", fallback="archive", client=client)
    pipeline.save(tmp_path / "f.yaml")
    again = Pipeline.from_yaml(tmp_path / "f.yaml")
    assert again.fitted
    assert (again.groups.by, again.groups.fallback) == ("session", "archive")
    assert states(again.pooled()) == states(pipeline.pooled())
    for name in SENSORS:
        assert states(again, name) == states(pipeline, name)
        assert again.for_group(name).precision == pipeline.for_group(name).precision
        assert again.for_group(name).provenance == pipeline.for_group(name).provenance
    assert "4 backgrounds, one per session, fallback archive" in repr(again)
    # The pipeline of one group is a pipeline like any other.
    again.for_group("s1").save(tmp_path / "one.yaml")
    alone = Pipeline.from_yaml(tmp_path / "one.yaml")
    assert alone.groups is None
    assert states(alone) == states(pipeline, "s1")


def test_only_what_changed_is_scored_again(archive, client, tmp_path):
    pipeline, store = rx_raw(), tmp_path / "s.zarr"
    fit(pipeline, archive, background="session", client=client)
    assert score(pipeline, archive, store, client=client).blocks == 12
    assert score(pipeline, archive, store, client=client).blocks == 0
    # The background of s1 is fitted on half of its lines; the others are what they were.
    other = rx_raw()
    chosen = ["!s1", "s1[0][y=0:16]"]
    fit(other, archive, frames=chosen, background="session", client=client)
    with counting(client, archive.path) as counts:
        result = score(other, archive, store, client=client)
    assert (result.blocks, result.up_to_date, result.stale) == (3, 3, ())
    assert {file.split("/cube/")[0].rsplit("/", 1)[1] for file in counts} == {"s1"}
    expected = mahalanobis(
        archive["s1"].cube.values.reshape(-1, 8).astype(float),
        archive["s1"].cube.values[0, :16].reshape(-1, 8).astype(float),
    )
    np.testing.assert_allclose(scores_of(store)["s1"].ravel(), expected, rtol=2e-6)
    told = zarr.open_group(store, mode="r")["s1"].attrs["background"]
    assert (told["by"], told["of"], told["state"]) == ("session", "s1", "s1")


def test_a_background_that_was_not_seen(archive, client, tmp_path):
    bare, pooled, named = rx_raw(), rx_raw(), rx_raw()
    options = {"frames": ["s0", "s1"], "background": "session", "client": client}
    fit(bare, archive, **options)
    store = tmp_path / "s.zarr"
    with pytest.raises(ConfigError, match=r"sessions s2 and s3: .* per session, and has none"):
        score(bare, archive, store, client=client)
    assert not store.exists()
    fit(pooled, archive, fallback="archive", **options)
    fit(named, archive, fallback="s0", **options)
    pixels = {n: archive[n].cube.values.reshape(-1, 8).astype(float) for n in SENSORS}
    both = np.concatenate([pixels["s0"], pixels["s1"]])
    for pipeline, stands_in in ((pooled, both), (named, pixels["s0"])):
        result = score(pipeline, archive, store, client=client)
        assert result.fallback == ("s2", "s3")
        assert "against the fallback, for lack of their own: s2 and s3" in str(result)
        found = scores_of(store)
        for name, background in (("s1", pixels["s1"]), ("s3", stands_in)):
            expected = mahalanobis(pixels[name], background)
            np.testing.assert_allclose(found[name].ravel(), expected, rtol=2e-6)
    moved = {s.session: s for s in drift(bare, archive).sessions}
    assert moved["s1"].moved.shift < 1e-9
    assert "no background for it ('s2')" in moved["s2"].reason
    moved = {s.session: s for s in drift(named, archive).sessions}
    assert moved["s0"].moved.shift < 1e-9 < moved["s3"].moved.shift
    assert moved["s3"].against == "s0"


def test_a_cube_is_never_scored_against_another_background(archive, client):
    pipeline = rx_raw()
    fit(pipeline, archive, background="sensor", client=client)
    cube = archive["s1"].cube
    expected = mahalanobis(
        cube.values.reshape(-1, 8).astype(float), pixels_of(archive, "FX17", SENSORS)
    )
    for one in (cube, cube.isel(frame=0)):
        np.testing.assert_allclose(pipeline.apply(one).values.ravel(), expected, rtol=2e-6)
    lost = cube.drop_attrs()
    with pytest.raises(PlanError, match=r"do not say which .*group="):
        pipeline.apply(lost)
    np.testing.assert_allclose(
        pipeline.apply(lost, group="FX17").values.ravel(), expected, rtol=2e-6
    )
    with pytest.raises(PipelineError, match=r"no background 'FX71'\. Did you mean 'FX17'"):
        pipeline.apply(cube, group="FX71")
    with pytest.raises(ConfigError, match="has none for NIR"):
        pipeline.apply(cube.assign_attrs(sensor="NIR"))
    with pytest.raises(PipelineError, match="a batch does not say of which"):
        pipeline.forward(batch={"cube": None})
    with pytest.raises(PipelineError, match="one background for everything"):
        rx_raw().for_group("FX17")
    by_day = rx_raw()
    fit(by_day, archive, background="attr:metadata.day", client=client)
    with pytest.raises(PlanError, match="assign_attrs"):
        by_day.apply(cube)
    dataset = archive["s3"]
    shown = by_day.apply(dataset.cube.assign_attrs(dataset.attrs)).values
    assert shown.tobytes() == by_day.apply(dataset.cube, group="3").values.tobytes()


def test_too_few_pixels_name_every_group(tmp_path, client):
    for i, lines in enumerate((40, 2, 40, 1)):
        write_npz(tmp_path / "in" / f"s{i}.npz", scene(i, lines=40)[0][:lines, :3])
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    with pytest.raises(DataError) as caught:
        fit(rx_raw(), tmp_path / "a.zarr", background="session", client=client)
    text = str(caught.value)
    assert "2 of 4 backgrounds (one per session) cannot be fitted: s1, s3. s1: rx: 6 valid" in text
    assert "--frames '!s1,!s3'" in text
    pipeline = rx_raw()
    fit(pipeline, tmp_path / "a.zarr", frames="!s1,!s3", background="session", client=client)
    assert list(pipeline.groups.states) == ["s0", "s2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "sesion"}, r"not one of archive, session.* Did you mean 'session'"),
        ({"background": "attr:"}, "not one of archive"),
        ({"fallback": "archive"}, "there is only one"),
        (
            {"background": "session", "fallback": "s9"},
            "fallback 's9' is no group; there are s0, s1",
        ),
        (
            {"background": "attr:operator"},
            r"s0, s1, s2 and s3 of 4 sessions state no 'operator'.* metadata\.day",
        ),
    ],
)
def test_what_names_no_background(archive, client, options, message):
    with pytest.raises(ConfigError, match=message):
        fit(rx_raw(), archive, client=client, **options)


def test_arrays_have_no_sessions(archive):
    with pytest.raises(ConfigError, match="an array has no sessions"):
        hb.fit(rx_raw(), archive["s0"].cube, background="session")


def cfar():
    return chain(RXGlobal(name="rx", eps=0.0), CFARThreshold(pfa=0.1, name="cfar"))


def test_backgrounds_whose_statistics_are_large_are_fitted_in_runs(
    archive, client, monkeypatch, tmp_path
):
    """Histograms of hundreds of sessions would not fit into memory together."""
    together, runs = cfar(), cfar()
    fit(together, archive, background="session", client=client)
    # Room for those of two sessions.
    monkeypatch.setattr(fit_waves, "MOST", 2 * 3 * 12 * 1440)
    planned = fit(runs, archive, background="session", dry_run=True, client=client)
    with counting(client, archive.path) as counts:
        result = fit(runs, archive, background="session", client=client)
    assert set(counts.values()) == {1}
    assert (result.passes, result.blocks, planned.blocks) == (1, 12, 12)
    for name in SENSORS:
        assert states(runs, name) == states(together, name)
    # A run that was finished before a fit was interrupted is not read again.
    again, supply = cfar(), Member.supply

    def stopped(member, found):
        if member.group == "s3" and any(need.kind == "histogram" for need in found):
            raise KeyboardInterrupt
        supply(member, found)

    with monkeypatch.context() as patch:
        patch.setattr(Member, "supply", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit(cfar(), archive, background="session", keep=tmp_path / "k", client=client)
    plan = fit(cfar(), archive, background="session", keep=tmp_path / "k", dry_run=True)
    result = fit(again, archive, background="session", keep=tmp_path / "k", client=client)
    assert (plan.kept, plan.blocks, result.kept, result.blocks) == (12, 0, 12, 0)
    assert states(again, "s3") == states(together, "s3")


def test_all_pixels_go_by_themselves_where_backgrounds_go_in_runs(archive, client, monkeypatch):
    together, runs = cfar(), cfar()
    fit(together, archive, background="session", fallback="archive", client=client)
    monkeypatch.setattr(fit_waves, "MOST", 3 * 3 * 12 * 1440)
    with counting(client, archive.path) as counts:
        result = fit(runs, archive, background="session", fallback="archive", client=client)
    assert (result.passes, set(counts.values())) == (2, {2})
    assert states(runs.pooled()) == states(together.pooled())
    assert states(runs, "s3") == states(together, "s3")


def test_each_background_has_its_own_threshold(archive, client, tmp_path):
    """In scores, decisions, files and words, also where an earlier fit gave the same."""
    pipeline = cfar()
    fit(pipeline, archive, frames="s1", client=client)
    before = pipeline.nodes["cfar"].hparams["threshold"]
    fit(pipeline, archive, background="session", fallback="archive", client=client)
    pipeline.save(tmp_path / "f.yaml")
    loaded = Pipeline.from_yaml(tmp_path / "f.yaml")
    thresholds = {}
    for name in SENSORS:
        own = archive[name].cube.values.reshape(-1, 8).astype(float)
        scores = np.sort(mahalanobis(own, own))
        for each in (pipeline, loaded):
            node = each.for_group(name).nodes["cfar"]
            # The smallest score that at most a tenth of all lies at or above.
            assert node.hparams["threshold"] == pytest.approx(scores[-144], rel=1e-6)
            assert node.hparams["threshold"] == float(node.threshold)
        thresholds[name] = float(node.threshold)
    assert thresholds["s1"] == before
    assert len(set(thresholds.values())) == 4
    loaded.for_group("s1").save(tmp_path / "one.yaml")
    assert Pipeline.from_yaml(tmp_path / "one.yaml").nodes["cfar"].hparams["threshold"] == before
    score(loaded, archive, tmp_path / "s.zarr", client=client)
    root = zarr.open_group(tmp_path / "s.zarr", mode="r")
    for name, limit in thresholds.items():
        assert root[name].attrs["background"]["arguments"] == {"cfar": {"threshold": limit}}
        flagged = root[name]["decisions"][:] == 1
        np.testing.assert_array_equal(flagged, root[name]["scores"][:] >= np.float32(limit))
        assert flagged.sum() == 144


def test_a_fit_to_an_array_forgets_the_backgrounds_before(archive, client):
    pipeline, single = rx_raw(), rx_raw()
    fit(pipeline, archive, background="session", client=client)
    cube = archive["s1"].cube
    for each in (pipeline, single):
        hb.fit(each, cube)
    assert pipeline.groups is None
    assert states(pipeline) == states(single)


def test_hundreds_of_backgrounds(tmp_path, client):
    """Each as exact as one alone, and none is looked for in the others."""
    rng = np.random.default_rng(5)
    cubes = rng.integers(0, 4000, size=(200, 4, 5, 3), dtype=np.uint16)
    for i, cube in enumerate(cubes):
        write_npz(tmp_path / "in" / f"n{i}.npz", cube)
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    archive, pipeline = open_archive(tmp_path / "a.zarr"), rx_raw()
    with counting(client, archive.path) as counts:
        result = fit(pipeline, archive, background="session", client=client)
    assert (result.passes, result.groups, len(counts)) == (0, 200, 0)
    pipeline.save(tmp_path / "f.yaml")
    # Half of symmetric and triangular matrices, and one tensor per quantity.
    assert (tmp_path / "f.pt").stat().st_size < 200 * 1500
    again = Pipeline.from_yaml(tmp_path / "f.yaml")
    for i in (0, 7, 199):
        pixels = cubes[i].reshape(-1, 3).astype(float)
        found = again.groups.states[f"n{i}"].state["rx"]
        np.testing.assert_allclose(found["mean"], pixels.mean(0), rtol=1e-14)
        np.testing.assert_allclose(found["covariance"], np.cov(pixels.T), rtol=1e-12)
    score(again, archive, tmp_path / "s.zarr", frames="glob:n1?", client=client)
    for name, found in scores_of(tmp_path / "s.zarr").items():
        own = cubes[int(name[1:])].reshape(-1, 3).astype(float)
        np.testing.assert_allclose(found.ravel(), mahalanobis(own, own), rtol=2e-6)


@pytest.fixture(scope="module")
def floats(client, tmp_path_factory):
    here = tmp_path_factory.mktemp("floats")
    for i in range(5):
        cube = scene(i, lines=16 + 8 * i, dtype="float32")[0] / 7
        write_npz(here / "in" / f"s{i}.npz", np.stack([cube, cube + i]))
    convert(here / "in", here / "a.zarr", client=client)
    return open_archive(here / "a.zarr")


@given(st.sets(st.integers(0, 4), min_size=1), st.data())
def test_sessions_merge_as_branches_of_one_tree(floats, picks, data):
    """What is kept of a session gives the bits that reading all rows at once gives."""
    names = [f"s{i}" for i in sorted(picks)]
    frames = {n: data.draw(st.sampled_from([(0,), (1,), (0, 1)])) for n in names}
    text = [f"{n}[{f}]" for n, chosen in frames.items() for f in chosen]
    sizes = {n: (2, floats.session(n).geometry.shape[0]) for n in floats}
    chosen: Selection = select(text, sizes)
    sessions = {n: floats.session(n) for n in names}
    kept = StoredStatistics(sessions, "valid", shared=True)
    for kind in ("moments", "extrema"):
        for _ in range(2):
            found = kept.of(chosen, kind).to_arrays()
            expected = stored_statistic(sessions, chosen, kind, "valid").to_arrays()
            assert {k: v.tobytes() for k, v in found.items()} == {
                k: np.asarray(v).tobytes() for k, v in expected.items()
            }


def test_a_state_whose_buffers_were_changed_is_not_used(archive, client):
    pipeline = rx_raw()
    fit(pipeline, archive, background="session", client=client)
    held = dict(pipeline.groups.states)
    spoiled = copy.deepcopy(held["s1"])
    spoiled.buffers["rx"]["mu"][0] += 1
    pipeline.groups = Groups("session", {**held, "s1": spoiled})
    assert pipeline.for_group("s0").nodes["rx"].exact_state() is not None
    node = pipeline.for_group("s1").nodes["rx"]
    assert node.exact_state() is None
    assert float(node.mu[0]) == float(spoiled.buffers["rx"]["mu"][0])
