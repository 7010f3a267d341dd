"""Local, robust and target detectors on an archive: blocks, invalid pixels, repeated passes."""

import numpy as np
import pytest
import zarr
from distributed import Client
from graphs import chain
from recordings import scene, write_npz

from hsi_batch.nodes import MNF, LocalRX, MatchedFilter, RobustRX, RXGlobal
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score

NODATA = 65535


@pytest.fixture
def threads():
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


@pytest.fixture
def recorded(tmp_path):
    """Two recordings; the second with pixels that hold no data."""
    first, second = (scene(seed, lines=70, samples=60, bands=4)[0] for seed in (1, 2))
    second[np.random.default_rng(0).random(second.shape[:2]) < 0.1] = NODATA
    write_npz(tmp_path / "in" / "a.npz", first)
    write_npz(tmp_path / "in" / "b.npz", second)
    return first, second


def archived(tmp_path, client, lines):
    store = tmp_path / f"a{lines}.zarr"
    convert(tmp_path / "in", store, block_lines=lines, nodata=NODATA, client=client)
    return store


def scored(node, store, client, **options):
    pipeline = chain(node)
    result = fit(pipeline, store, client=client, **options)
    target = store.with_suffix(".scores")
    score(pipeline, store, target, client=client)
    return result, [zarr.open_group(target, mode="r")[n]["scores"][0] for n in "ab"]


def local(cube, shared, guard, outer, shrinkage):
    wide, good = cube.astype(float), (cube != NODATA).all(axis=2)
    out = np.full(good.shape, np.nan)
    for y, x in zip(*np.nonzero(good), strict=True):
        mask = good.copy()
        mask[max(0, y - guard) : y + guard + 1, max(0, x - guard) : x + guard + 1] = False
        window = np.s_[max(0, y - outer) : y + outer + 1, max(0, x - outer) : x + outer + 1]
        ring = wide[window][mask[window]]
        away = wide[y, x] - ring.mean(axis=0)
        covariance = (1 - shrinkage) * np.cov(ring.T) + shrinkage * shared
        out[y, x] = away @ np.linalg.solve(covariance, away)
    return out


def test_local_rx(tmp_path, recorded, threads):
    valid = np.concatenate([c[(c != NODATA).all(axis=2)] for c in recorded]).astype(float)
    expected = [local(c, np.cov(valid.T), 1, 4, 0.2) for c in recorded]
    for lines in (16, "frame"):
        store = archived(tmp_path, threads, lines)
        result, found = scored(LocalRX(3, 9, shrinkage=0.2, name="rx"), store, threads)
        assert result.passes == 0
        for image, truth in zip(found, expected, strict=True):
            np.testing.assert_allclose(image, truth, rtol=1e-6)


def test_robust_rx_and_shrinkage_give_the_same_bits_for_any_blocks(tmp_path, recorded, threads):
    for make, passes in (
        (lambda: RobustRX(rounds=3, tolerance=0.0, name="rx"), 3),
        (lambda: RXGlobal(eps=0.0, shrinkage="ledoit-wolf", name="rx"), 1),
    ):
        seen = []
        for lines in (16, "frame"):
            store = tmp_path / f"a{lines}.zarr"
            node = make()
            result, found = scored(
                node, store if store.exists() else archived(tmp_path, threads, lines), threads
            )
            assert result.passes == passes
            seen.append((node.state["covariance"].tobytes(), *(image.tobytes() for image in found)))
        assert seen[0] == seen[1]


def test_noise_and_targets(tmp_path, recorded, threads):
    store = archived(tmp_path, threads, 16)
    node = MNF(name="mnf")
    pipeline = chain(node, MatchedFilter([[3.0, 1.0, 0.5, 0.0]], name="mf"))
    result = fit(pipeline, store, client=threads)
    assert result.passes == 1
    steps = []
    for cube in recorded:
        good = (cube != NODATA).all(axis=2)
        steps.append(np.diff(cube.astype(float), axis=1)[good[:, 1:] & good[:, :-1]])
    noise = np.cov(np.concatenate(steps).T) / 2
    np.testing.assert_allclose(node.state["noise"], noise, rtol=1e-9, atol=1e-6)
