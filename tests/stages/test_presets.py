"""However blocks are stored, statistics and scores have the same bits in every stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zarr
from counting import counting
from graphs import rx_per_frame, rx_raw, rx_statistical
from recordings import scene, write_npz
from typer.testing import CliRunner

from hsi_batch.archive import layout, open_archive
from hsi_batch.archive.storage import PRESETS
from hsi_batch.cli.main import app
from hsi_batch.errors import ConfigError
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score
from hsi_batch.stages.verify import verify

LINES, WIDTH, CHANNELS = 72, 40, 8


def recordings(folder, dtype="uint16"):
    """Two recordings of several frames, with labels, and pixels that are flagged."""
    for name, frames in (("a", 5), ("b", 2)):
        cubes, masks = zip(
            *(scene(i + frames, LINES, WIDTH, CHANNELS, dtype) for i in range(frames)), strict=True
        )
        cube = np.stack(cubes)
        cube[1, 20:23, 4:9] = 0
        write_npz(folder / f"{name}.npz", cube, mask=np.stack(masks))


def values_of(store):
    """All arrays of all sessions."""
    root = zarr.open_group(store, mode="r")
    return {
        f"{name}/{array}": values[:]
        for name, group in root.groups()
        for array, values in group.arrays()
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].tobytes() == values.tobytes(), name


def run(folder, archive, client, tag):
    found = {}
    for name, graph in {"rx": rx_statistical, "frame": rx_per_frame}.items():
        pipeline = graph()
        fit(pipeline, archive, client=client)
        result = score(pipeline, archive, folder / f"{tag}-{name}.zarr", client=client)
        assert result.failed == 0
        found |= {f"{name} {k}": v for k, v in values_of(folder / f"{tag}-{name}.zarr").items()}
        assert verify(folder / f"{tag}-{name}.zarr", deep=True, client=client).sound
    return found


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of two frames of ``recordings``, or of three blocks of one."""

    def set_blocks(blocks):
        block = 16 * WIDTH * CHANNELS * 2
        monkeypatch.setattr(layout, "SHARD_BYTES", blocks * block)

    set_blocks(11)
    return set_blocks


@pytest.mark.parametrize(
    ("dtype", "presets"), [("uint16", tuple(PRESETS)), ("float32", ("sharded", "small"))]
)
def test_presets_change_no_bit(tmp_path, client, small_shards, dtype, presets):
    recordings(tmp_path / "in", dtype)
    expected = {}
    for preset in presets:
        archive = tmp_path / f"{preset}.zarr"
        options = {"nodata": 0, "block_lines": 16, "preset": preset, "client": client}
        assert convert(tmp_path / "in", archive, **options).failed == 0
        assert verify(archive, deep=True, client=client).sound
        stored = {k: v for k, v in values_of(archive).items() if not k.endswith("source")}
        found = {**stored, **run(tmp_path, archive, client, preset)}
        expected = expected or found
        assert_same(found, expected)
        # Nothing is left to do.
        assert convert(tmp_path / "in", archive, **options).blocks == 0


@pytest.mark.parametrize(("blocks", "files"), [(11, 3 + 1), (3, 7 * 2), (10**4, 2)])
def test_shards_are_the_files(tmp_path, client, small_shards, blocks, files):
    small_shards(blocks)
    recordings(tmp_path / "in")
    archive = tmp_path / "a.zarr"
    convert(tmp_path / "in", archive, nodata=0, block_lines=16, preset="sharded", client=client)
    for name in ("cube", "label"):
        found = list(archive.glob(f"*/{name}/c.*"))
        assert len(found) == files
    pipeline = rx_raw()
    fit(pipeline, archive, client=client)
    score(pipeline, archive, tmp_path / "s.zarr", client=client)
    found = list(tmp_path.glob("s.zarr/*/scores/c.*"))
    assert len(found) == files
    assert not list(tmp_path.rglob("*.partial"))


def test_scores_of_a_part_of_a_shard_keep_the_rest(tmp_path, client, small_shards):
    recordings(tmp_path / "in")
    archive = tmp_path / "a.zarr"
    convert(tmp_path / "in", archive, block_lines=16, preset="sharded", client=client)
    pipeline = rx_raw()
    fit(pipeline, archive, client=client)
    score(pipeline, archive, tmp_path / "whole.zarr", client=client)
    for frames in ("a[1]", "a[0][y=16:32]", "b", "a[0:5]"):
        score(pipeline, archive, tmp_path / "parts.zarr", frames=frames, client=client)
        assert verify(tmp_path / "parts.zarr", deep=True, client=client).sound
    whole, parts = (values_of(tmp_path / f"{name}.zarr") for name in ("whole", "parts"))
    assert_same(parts, whole)


DRIVER = """
import os, signal, sys
from hsi_batch.archive import layout
from hsi_batch.stages.convert import convert
layout.SHARD_BYTES = int(sys.argv[2])

def die(progress):
    if progress.done >= 10:
        os.kill(os.getpid(), signal.SIGKILL)

convert(sys.argv[1] + "/in", sys.argv[1] + "/a.zarr", block_lines=16, preset="sharded", nodata=0,
        workers=2, observer=die, task_bytes=1)
"""


def test_a_killed_run_leaves_whole_shards(tmp_path, client, small_shards):
    small_shards(3)
    recordings(tmp_path / "in")
    options = {"nodata": 0, "block_lines": 16, "preset": "sharded", "client": client}
    convert(tmp_path / "in", tmp_path / "calm.zarr", **options)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DRIVER), tmp_path, str(layout.SHARD_BYTES)],
        capture_output=True,
        env={**os.environ},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    left = convert(tmp_path / "in", tmp_path / "a.zarr", **options)
    assert left.failed == 0
    assert 0 < left.blocks <= 7 * 5 - 10
    a, b = (values_of(tmp_path / f"{name}.zarr") for name in ("a", "calm"))
    assert_same(a, b)
    assert verify(tmp_path / "a.zarr", deep=True, client=client).sound
    assert not list((tmp_path / "a.zarr").rglob("*.partial"))


def test_a_shard_without_an_index_is_named_block_by_block(tmp_path, client, small_shards):
    recordings(tmp_path / "in")
    options = {"block_lines": 16, "preset": "sharded", "client": client}
    convert(tmp_path / "in", tmp_path / "a.zarr", **options)
    session = open_archive(tmp_path / "a.zarr")["a"]
    assert session.sizes["frame"] == 5
    shard = tmp_path / "a.zarr" / "a" / "cube" / "c.1.0.0.0"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    result = verify(tmp_path / "a.zarr", client=client)
    assert {str(d.place) for d in result.damages} == {
        f"a[{frame}][y={y}:{min(y + 16, LINES)}]" for frame in (2, 3) for y in range(0, LINES, 16)
    }


def test_another_preset_is_another_setting(tmp_path, client):
    recordings(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    # What was written before there were presets has none among its settings.
    settings = zarr.open_group(tmp_path / "a.zarr" / "a", mode="r").attrs["settings"]
    assert "preset" not in settings
    assert (
        convert(tmp_path / "in", tmp_path / "a.zarr", preset="balanced", client=client).failed == 0
    )
    again = convert(tmp_path / "in", tmp_path / "a.zarr", preset="small", client=client)
    assert again.changed == ("a", "b")
    (why,) = {s.why for s in again.plan.sessions}
    assert why == "it was converted with other settings (preset)"
    convert(tmp_path / "in", tmp_path / "a.zarr", preset="small", replace=True, client=client)
    cube = zarr.open_array(tmp_path / "a.zarr" / "a" / "cube", mode="r")
    assert cube.metadata.codecs[1].cname.value == "zstd"
    back = convert(tmp_path / "in", tmp_path / "a.zarr", client=client)
    assert {s.why for s in back.plan.sessions} == {why}


def test_presets_are_named_where_they_are_typed(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'small'"):
        convert(tmp_path, tmp_path / "a.zarr", preset="smalll")
    recordings(tmp_path / "in")
    arguments = ["convert", str(tmp_path / "in"), "--archive", str(tmp_path / "a.zarr")]
    refused = CliRunner().invoke(app, [*arguments, "--preset", "tiny", "--dry-run"])
    assert isinstance(refused.exception, ConfigError)
    assert "Presets are fast, balanced, small, sharded" in str(refused.exception)
    done = CliRunner().invoke(app, [*arguments, "--preset", "small", "--dry-run", "--json"])
    assert json.loads(done.stdout)["blocks"] == 7


def test_sharded_blocks_are_read_once_each(tmp_path, client, small_shards):
    recordings(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "a.zarr", block_lines=16, preset="sharded", client=client)
    pipeline = rx_statistical()
    with counting(client, tmp_path / "a.zarr") as counts:
        fit(pipeline, open_archive(tmp_path / "a.zarr"), client=client)
    # Seven frames of five blocks in four shards; nothing looks first whether a chunk is there.
    assert len(counts) == 4
    assert sum(counts.values()) == 7 * 5
