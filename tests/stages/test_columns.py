"""Statistics of columns and classes: from the visit of the conversion, none of their own."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
import zarr
from commands import command
from counting import counting
from PIL import Image
from readers.envi_files import write_envi
from recordings import scene as recorded
from recordings import write_cu3s
from simulated_cuvis import Fault

from hsi_batch.archive import open_archive
from hsi_batch.errors import ConfigError, DataError, DataWarning, PlanError
from hsi_batch.nodes import CU3SDataNode, Destripe, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.mask import mask
from hsi_batch.stages.score import score
from hsi_batch.stages.verify import verify

LINES, SAMPLES, BANDS = 640, 48, 6


def scene(seed, kind="u2", width=SAMPLES):
    """Random lines with stripes of gain and offset, and flagged pixels."""
    rng = np.random.default_rng(seed)
    base = rng.multivariate_normal(np.zeros(BANDS), np.eye(BANDS) + 0.5, (LINES, width)) * 90
    striped = 2000 + base * rng.normal(1, 0.1, (width, BANDS)) + rng.normal(0, 60, (width, BANDS))
    cube = np.rint(striped).astype(kind) if kind == "u2" else striped.astype(kind)
    cube[rng.integers(0, LINES, 40), rng.integers(0, width, 40)] = 60000
    return cube


def pipeline(*nodes):
    made = Pipeline("p")
    chain = [CU3SDataNode(name="data"), *nodes]
    for before, after in pairwise(chain):
        made.connect(
            (
                before.outputs.cube,
                after.inputs.data if isinstance(after, RXGlobal) else after.inputs.cube,
            )
        )
    return made


def reference(cube):
    """Mean and deviation of columns by plain masked arrays, flagged pixels left out."""
    values = cube.astype(np.float64)
    flagged = (cube >= 60000).any(-1)
    masked = np.ma.array(values, mask=np.broadcast_to(flagged[..., None], values.shape))
    return flagged, np.asarray(masked.mean(0)), np.asarray(masked.std(0, ddof=1))


def matched(cube, flagged):
    """Moment matching with loops over columns."""
    keep = ~flagged
    out = np.empty(cube.shape)
    counts = keep.sum(0)
    means = np.array([cube[keep[:, x], x].mean(0) for x in range(cube.shape[1])])
    spreads = np.array([cube[keep[:, x], x].std(0, ddof=1) for x in range(cube.shape[1])])
    middle = (counts[:, None] * means).sum(0) / counts.sum()
    free = (counts - 1)[:, None]
    spread = np.sqrt((free * spreads**2).sum(0) / free.sum())
    for x in range(cube.shape[1]):
        out[:, x] = (cube[:, x] - means[x]) * spread / spreads[x] + middle
    return out


@pytest.fixture(scope="module", name="made")
def made_fixture(tmp_path_factory, client):
    """Rows per block (float) and per session (integers), with labels of three classes."""
    folder = tmp_path_factory.mktemp("columns")
    cubes = {"int": scene(1), "float": scene(2, "f4"), "wide": scene(3, "u2", 64)}
    labels = np.zeros((LINES, SAMPLES), np.uint8)
    labels[100:140, 10:20], labels[300:500, 30:40] = 3, 7
    labels[500:] = 0
    for name, cube in cubes.items():
        write_envi(folder, cube, name=name)
        if name != "wide":
            Image.fromarray(labels).save(folder / f"{name}_mask.png")
    convert(folder, folder / "a.zarr", client=client, saturation=60000, block_lines=64)
    return folder, cubes, labels


@pytest.mark.parametrize("name", ["int", "float"])
def test_moments_of_columns_are_those_of_the_valid_pixels(made, name):
    folder, cubes, _ = made
    flagged, mean, spread = reference(cubes[name])
    stored = open_archive(folder / "a.zarr")[name]["columns"]
    assert stored.dims == ("column_term", "x", "channel")
    count, first, second = stored.values
    np.testing.assert_array_equal(count[:, 0], (~flagged).sum(0))
    if name == "int":
        exact = np.where(flagged[..., None], 0, cubes[name].astype(np.int64))
        np.testing.assert_array_equal(first, exact.sum(0))
        np.testing.assert_array_equal(second, (exact**2).sum(0))
    else:
        np.testing.assert_allclose(first, mean, rtol=1e-13)
        np.testing.assert_allclose(np.sqrt(second / (count - 1)), spread, rtol=1e-10)


def test_no_bit_depends_on_blocks_tasks_or_workers(made, tmp_path, client):
    folder, _, _ = made
    first = open_archive(folder / "a.zarr")
    convert(
        [folder / "int.hdr", folder / "float.hdr"],
        tmp_path / "b.zarr",
        client=client,
        saturation=60000,
        block_lines=256,
        task_bytes=1,
    )
    second = open_archive(tmp_path / "b.zarr")
    for name in ("int", "float"):
        for array in ("columns", "moments_class", "extrema_class"):
            np.testing.assert_array_equal(first[name][array], second[name][array])


def test_a_conversion_reads_every_line_once(made, tmp_path, client, monkeypatch):
    from hsi_batch.stages import convert_blocks
    from hsi_batch.stages.convert_slices import slice_convert
    from hsi_batch.stages.slices import Slice

    seen = []
    given = convert_blocks.source_of

    class Counted:
        def __init__(self, frame):
            self.info, self._frame = frame.info, frame

        def read(self, start, stop):
            seen.extend(range(start, stop))
            return self._frame.read(start, stop)

    class Source:
        def __init__(self, source):
            self.frame = lambda index: Counted(source.frame(index))

    monkeypatch.setattr(convert_blocks, "source_of", lambda job: Source(given(job)))
    arguments = {"client": client, "saturation": 60000, "block_lines": 64}
    convert(made[0] / "int.hdr", tmp_path / "a.zarr", slices=1, **arguments)
    slice_convert(str(tmp_path / "a.zarr"), Slice(1, 1))
    convert(made[0] / "int.hdr", tmp_path / "a.zarr", finalise=True, **arguments)
    assert sorted(seen) == list(range(LINES))
    one, other = (open_archive(a)["int"] for a in (tmp_path / "a.zarr", made[0] / "a.zarr"))
    for name in ("columns", "moments_class", "extrema_class"):
        np.testing.assert_array_equal(one[name], other[name])


def test_where_they_would_not_be_small_they_are_not_kept(made, tmp_path, client):
    short = write_envi(tmp_path, made[1]["int"][:100], name="short")
    convert(short, tmp_path / "a.zarr", client=client)
    assert "columns" not in open_archive(tmp_path / "a.zarr")["short"]
    result = fit(pipeline(Destripe()), tmp_path / "a.zarr", client=client)
    assert result.passes == 1


@pytest.mark.parametrize("name", ["int", "float"])
def test_a_fit_on_a_class_takes_no_pass(made, client, name):
    folder, cubes, labels = made
    store = folder / "a.zarr"
    flagged, _, _ = reference(cubes[name])
    names = open_archive(store).session(name).classes
    for label, number in names.items():
        chosen = (labels == number) & ~flagged
        if not chosen.any():
            continue
        with counting(client, store) as reads:
            result = fit(
                p := pipeline(RXGlobal(name="rx", eps=0.0)),
                store,
                frames=name,
                pixels=f"class:{label}",
                client=client,
            )
        assert (result.passes, result.pixels, len(reads)) == (0, np.count_nonzero(chosen), 0)
        flat = cubes[name][chosen].astype(np.float64)
        np.testing.assert_allclose(p.nodes["rx"].state["mean"], flat.mean(0), rtol=1e-12)
        np.testing.assert_allclose(p.nodes["rx"].cov, np.cov(flat.T), rtol=1e-5)
    # A part of a frame is read.
    part = fit(
        pipeline(RXGlobal(eps=0.0)),
        store,
        frames=f"{name}[0][y=0:192]",
        pixels="class:3",
        client=client,
    )
    assert (part.passes, part.pixels) == (1, np.count_nonzero(((labels == 3) & ~flagged)[:192]))


def test_wrong_classes_are_refused_with_the_remedy(made, client):
    store = made[0] / "a.zarr"
    with pytest.raises(ConfigError, match=r"has a class 'clas 3'.*Did you mean 'class 3'"):
        fit(pipeline(RXGlobal()), store, frames="int", pixels="class:clas 3", client=client)
    with pytest.raises(ConfigError, match="--annotations"):
        fit(pipeline(RXGlobal()), store, frames="wide", pixels="class:3", client=client)
    with pytest.raises(ConfigError, match="class:NAME"):
        fit(pipeline(RXGlobal()), store, pixels="class:", client=client)


@pytest.mark.parametrize("name", ["int", "float"])
def test_destripe_is_fitted_without_a_pass(made, tmp_path, client, name):
    folder, cubes, _ = made
    store = folder / "a.zarr"
    flagged, _, _ = reference(cubes[name])
    known = matched(cubes[name].astype(np.float64), flagged)
    with counting(client, store) as reads:
        alone = fit(p := pipeline(Destripe(name="even")), store, frames=name, client=client)
    assert (alone.passes, len(reads)) == (0, 0)
    done = score(p, store, tmp_path / "s.zarr", frames=name, outputs=["even.cube"], client=client)
    assert done.failed == 0
    found = zarr.open_group(tmp_path / "s.zarr", mode="r")[f"{name}/even.cube"][0]
    np.testing.assert_allclose(found[~flagged], known[~flagged], rtol=1e-6)
    # What is fitted behind it takes the one pass.
    both = fit(
        q := pipeline(Destripe(name="even"), RXGlobal(name="rx", eps=0.0)),
        store,
        frames=name,
        client=client,
    )
    assert both.passes == 1
    flat = known[~flagged]
    np.testing.assert_allclose(q.nodes["rx"].state["mean"], flat.mean(0), rtol=1e-6)
    score(q, store, tmp_path / "r.zarr", frames=name, client=client)
    scores = zarr.open_group(tmp_path / "r.zarr", mode="r")[f"{name}/scores"][0]
    apart = flat - flat.mean(0)
    rx = np.einsum("ij,jk,ik->i", apart, np.linalg.inv(np.cov(flat.T)), apart)
    np.testing.assert_allclose(scores[~flagged], rx, rtol=1e-3)
    lazy = q.apply(open_archive(store)[name].cube).compute()
    np.testing.assert_array_equal(lazy[0], scores)


def test_of_a_part_the_columns_are_read(made, client):
    folder, cubes, _ = made
    result = fit(
        p := pipeline(Destripe(name="even")),
        folder / "a.zarr",
        frames="int[0][y=0:128]",
        client=client,
    )
    assert result.passes == 1
    part = cubes["int"][:128].astype(np.float64)
    flagged = (part >= 60000).any(-1)
    known = matched(part, flagged)
    state = p.nodes["even"].state
    np.testing.assert_allclose((part * state["gain"] + state["offset"])[~flagged], known[~flagged])


def test_widths_that_differ_are_refused_or_have_their_own(made, tmp_path, client):
    store = made[0] / "a.zarr"
    with pytest.raises(DataError, match=r"48 and of 64 samples.*--background sensor"):
        fit(pipeline(Destripe()), store, frames="int,wide", client=client)
    each = fit(
        p := pipeline(Destripe(name="even")),
        store,
        frames="int,wide",
        background="session",
        client=client,
    )
    assert (each.passes, each.groups) == (0, 2)
    p.save(tmp_path / "p.yaml")
    again = Pipeline.from_yaml(tmp_path / "p.yaml")
    assert again.for_group("wide").nodes["even"].width == 64
    outputs = {"outputs": ["even.cube"], "client": client}
    done = score(again, store, tmp_path / "s.zarr", frames="int,wide", **outputs)
    assert (done.failed, done.blocks) == (0, 20)
    fit(q := pipeline(Destripe(name="even")), store, frames="int", client=client)
    with pytest.raises(PlanError, match=r"64 columns; even .Destripe. was fitted on 48"):
        score(q, store, tmp_path / "t.zarr", frames="wide", **outputs)


def test_show_names_columns_that_stand_out(tmp_path, client):
    rng = np.random.default_rng(5)
    stripes = rng.normal(0, 3, (SAMPLES, BANDS))
    cube = np.rint(2000 + rng.normal(0, 90, (LINES, SAMPLES, BANDS)) + stripes).astype(np.uint16)
    cube[:, 31] = 900
    cube[:, 12] += 3000
    write_envi(tmp_path, cube, name="belt")
    convert(tmp_path, tmp_path / "a.zarr", client=client)
    done = command("show", tmp_path / "a.zarr" / "belt").checked()
    assert "1 dead (31); 1 hot (12); stripes of" in done.out
    assert "--dead-columns 12,31" in done.out
    assert verify(tmp_path / "a.zarr", deep=True, client=client).sound


def test_frames_that_come_later_take_statistics_and_masks_with_them(tmp_path, client):
    frames = [recorded(i)[0] for i in range(5)]
    path = tmp_path / "s.cu3s"
    write_cu3s(path, frames, faults=[Fault("get_mesu", frame=2)])
    store = tmp_path / "a.zarr"
    convert(path, store, client=client)
    left = np.stack([frame for i, frame in enumerate(frames) if i != 2]).astype(np.int64)
    dataset = open_archive(store)["s"]
    np.testing.assert_array_equal(dataset["columns"][0, :, 0], left.shape[0] * left.shape[1])
    np.testing.assert_array_equal(dataset["columns"][1], left.sum((0, 1)))
    mask(store, "left", "0:10", client=client)
    stamp, raw = path.stat(), path.read_bytes()
    write_cu3s(path, frames)
    path.write_bytes(path.read_bytes().ljust(len(raw), b"\0"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.warns(DataWarning, match=r"mask left of session s was taken out.*--from '0:10'"):
        again = convert(path, store, only_failed=True, client=client)
    assert (again.blocks, again.failed) == (1, 0)
    group = zarr.open_group(store, mode="r")["s"]
    assert not [name for name in group.array_keys() if "mask" in name or name == "columns"]
    result = fit(p := pipeline(Destripe(name="even")), store, client=client)
    assert result.passes == 1
    # Nodes see reflectance, stored in ten-thousandths.
    whole = np.stack(frames).reshape(-1, *frames[0].shape[1:]) * 1e-4
    known = matched(whole, np.zeros(whole.shape[:2], bool))
    state = p.nodes["even"].state
    np.testing.assert_allclose(whole * state["gain"] + state["offset"], known, rtol=1e-9)
    with pytest.raises(ConfigError, match="have no mask 'left'"):
        fit(pipeline(RXGlobal()), store, pixels="mask:left", client=client)
    assert verify(store, deep=True, client=client).sound


def test_blocks_without_labels_add_nothing_to_classes(tmp_path, client):
    found = [recorded(i) for i in range(2)]
    path = write_cu3s(tmp_path / "s.cu3s", [f for f, _ in found], masks=[m for _, m in found])
    notes = path.with_suffix(".json")
    content = json.loads(notes.read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] < 1]
    notes.write_text(json.dumps(content))
    convert(path, tmp_path / "a.zarr", client=client)
    held = open_archive(tmp_path / "a.zarr")
    assert "columns" not in held["s"]
    labels = held["s"].label.values
    assert (labels[1] == -1).all()
    number = int(labels.max())
    result = fit(
        p := pipeline(RXGlobal(name="rx", loading=0.1)),
        tmp_path / "a.zarr",
        pixels=f"class:{number}",
        client=client,
    )
    assert (result.passes, result.pixels) == (0, np.count_nonzero(labels == number))
    cube = held["s"].cube.values[labels == number] * 1e-4
    np.testing.assert_allclose(p.nodes["rx"].state["mean"], cube.mean(0), rtol=1e-12)
