"""What a training holds in memory does not depend on how much it trains on."""

import numpy as np
import pytest
from gradient_helpers import selection_pipeline
from recordings import write_npz

import hsi_batch as hb
from hsi_batch.data import ArchiveDataModule
from hsi_batch.engine.worker import memory_now, memory_peak, reset_peak
from hsi_batch.training import GradientTrainer, StatisticalTrainer, TrainerConfig

FRAME = (128, 128, 64)
FRAME_BYTES = int(np.prod(FRAME)) * 2
SMALL, LARGE = 25_000_000 // FRAME_BYTES, 200_000_000 // FRAME_BYTES


@pytest.fixture(scope="module")
def archive(tmp_path_factory, client):
    """200 MB of frames of 2 MB, each one block; the frames are not equal."""
    here = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(1)
    first = rng.integers(100, 4000, FRAME, dtype=np.uint16)
    mask = np.zeros(FRAME[:2], np.uint8)
    mask[40:60, 40:60] = 1
    for i in range(LARGE):
        path = here / "in" / f"f{i:03d}.npz"
        write_npz(path, first + np.uint16(i), mask=mask)
    hb.convert([here / "in"], here / "a.zarr", annotations="sibling", client=client)
    return here / "a.zarr"


def test_peak_memory_does_not_grow_with_the_archive(archive, client):
    pipeline = selection_pipeline()
    few = ArchiveDataModule(archive, train="glob:f00*")
    StatisticalTrainer(pipeline, few, client=client).fit()
    pipeline.unfreeze_nodes_by_name(["selector", "logit"])

    def growth(frames):
        names = [f"f{i:03d}" for i in range(frames)]
        run = GradientTrainer(
            pipeline,
            ArchiveDataModule(archive, train=names, num_workers=2),
            ["bce"],
            [],
            TrainerConfig(max_epochs=1),
            patch=[32, 32],
            patches_per_frame=2,
        )
        reset_peak()
        before = memory_now()
        assert run.fit().steps == frames
        return memory_peak() - before

    growth(SMALL)
    small, large = growth(SMALL), growth(LARGE)
    # Some blocks more or less are in the hands of the allocator, and of other threads of the tests.
    assert large < small + (LARGE - SMALL) * FRAME_BYTES / 10
