"""How often a fit reads the pixels: counted at the files, not believed from the plan."""

import shutil

import numpy as np
import pytest
from counting import counting
from graphs import chain, pca, rx_raw, rx_statistical, selector
from recordings import scene, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.nodes import PerPixelUnitNorm, RXGlobal, ZScoreNormalizerGlobal
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit

BLOCKS = 3 * 7


@pytest.fixture
def archive(tmp_path, client):
    for i in range(3):
        cube, mask = scene(i, lines=112, samples=64)
        write_npz(tmp_path / "in" / f"s{i}.npz", cube, mask=mask)
    convert(tmp_path / "in", tmp_path / "a.zarr", block_lines=16, client=client)
    return open_archive(tmp_path / "a.zarr")


def without_statistics(archive, *names):
    for session in archive:
        for name in names or ("moments", "extrema", "sample"):
            shutil.rmtree(archive.path / session / name)
    return open_archive(archive.path)


def reads(pipeline, archive, client, **options):
    with counting(client, archive.path) as counts:
        result = fit(pipeline, archive, client=client, **options)
    # Each block as often as any other.
    assert len(set(counts.values())) <= 1
    total = sum(counts.values())
    assert total % BLOCKS == 0
    return result.passes, total // BLOCKS


def unit_zscore():
    return chain(
        PerPixelUnitNorm(name="unit"), ZScoreNormalizerGlobal(name="z"), RXGlobal(name="rx")
    )


@pytest.mark.parametrize(
    ("graph", "stored", "unstored"),
    [
        (selector, 0, 1),
        (rx_raw, 0, 1),
        (pca, 0, 1),
        # The spread of the scores needs pixels.
        (rx_statistical, 1, 2),
        # Behind a node that is not affine: one pass serves both.
        (unit_zscore, 1, 1),
    ],
)
def test_passes(archive, client, graph, stored, unstored):
    assert reads(graph(), archive, client) == (stored, stored)
    assert reads(graph(), without_statistics(archive), client) == (unstored, unstored)


def test_subsets_and_labelled_normal_read_nothing(archive, client):
    with counting(client, archive.path) as counts:
        one = fit(selector(), archive, frames="s1", client=client)
        two = fit(selector(), archive, frames="!s1", client=client)
        normal = fit(selector(), archive, pixels="labelled-normal", client=client)
    assert not counts
    assert one.pixels + two.pixels == 3 * 112 * 64
    labelled = sum(int((scene(i, lines=112, samples=64)[1] > 0).sum()) for i in range(3))
    assert normal.pixels == 3 * 112 * 64 - labelled
    assert (one.passes, two.passes, normal.passes) == (0, 0, 0)


def test_lines_of_a_frame_need_a_pass_over_their_blocks_only(archive, client):
    pipeline = rx_raw()
    with counting(client, archive.path) as counts:
        result = fit(pipeline, archive, frames="s1[0][y=20:60]", client=client)
    assert result.passes == 1
    # Lines 20 to 60 touch the blocks that begin at 16, 32 and 48.
    assert sorted(counts.values()) == [1, 1, 1]
    pixels = scene(1, lines=112, samples=64)[0][20:60].reshape(-1, 8).astype(np.float64)
    assert result.pixels == len(pixels)
    np.testing.assert_allclose(pipeline.nodes["rx"].state["mean"], pixels.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(
        pipeline.nodes["rx"].state["covariance"], np.cov(pixels.T), rtol=1e-10
    )


def test_without_the_labelled_anomalies_is_what_a_pass_would_give(archive, client):
    stored, passed = rx_raw(), rx_raw()
    fit(stored, archive, pixels="labelled-normal", client=client)
    bare = without_statistics(archive, "moments_normal", "extrema_normal")
    fit(passed, bare, pixels="labelled-normal", client=client)
    for key, value in stored.nodes["rx"].state.items():
        np.testing.assert_array_equal(value, passed.nodes["rx"].state[key])
    pixels = np.concatenate(
        [cube[mask == 0] for cube, mask in (scene(i, lines=112, samples=64) for i in range(3))]
    ).astype(np.float64)
    np.testing.assert_allclose(stored.nodes["rx"].state["mean"], pixels.mean(axis=0), rtol=1e-13)


def test_scoring_reads_each_block_once(archive, client, tmp_path):
    from hsi_batch.stages.score import score

    pipeline = rx_statistical()
    fit(pipeline, archive, client=client)
    with counting(client, archive.path) as counts:
        score(pipeline, archive, tmp_path / "s.zarr", client=client)
    assert len(counts) == BLOCKS
    assert set(counts.values()) == {1}
    with counting(client, archive.path) as counts:
        score(pipeline, archive, tmp_path / "s.zarr", client=client)
    assert not counts
