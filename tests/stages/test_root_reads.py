"""The root gathers the metadata of all sessions: what reads it for each of them is quadratic."""

from __future__ import annotations

import numpy as np
import pytest
from counting import start, stop
from graphs import rx_statistical
from recordings import write_npz

import hsi_batch as hb
from hsi_batch.stages.mask import mask
from hsi_batch.stages.score import score
from hsi_batch.stages.verify import verify


def recordings(folder, numbers):
    rng = np.random.default_rng(0)
    for i in numbers:
        write_npz(folder / f"s{i:02d}.npz", rng.integers(0, 4000, (1, 16, 8, 3)).astype(np.uint16))


@pytest.fixture(scope="module")
def root_reads(client, tmp_path_factory):
    """How often the root is read here by what is done with 3 and with 15 sessions."""
    found = {}
    for number in (3, 15):
        folder = tmp_path_factory.mktemp("reads")
        archive, scores = folder / "a.zarr", folder / "s.zarr"
        roots = {str(archive / "zarr.json"), str(scores / "zarr.json")}
        pipeline = rx_statistical()

        def convert(numbers, folder=folder, archive=archive):
            recordings(folder / "in", numbers)
            hb.convert(folder / "in", archive, client=client)

        # Of the second runs of each the root is there, and full.
        convert([90])
        hb.fit(pipeline, archive, client=client)
        score(pipeline, archive, scores, client=client)
        for name, do in (
            ("convert", lambda: convert(range(number))),  # noqa: B023 - called at once
            ("score", lambda: score(pipeline, archive, scores, client=client)),  # noqa: B023
            ("mask", lambda: mask(archive, "left", "0:4", client=client)),  # noqa: B023
            ("verify", lambda: verify(archive, deep=True, client=client)),  # noqa: B023
            ("verify scores", lambda: verify(scores, deep=True, client=client)),  # noqa: B023
        ):
            start()
            try:
                do()
            finally:
                files = stop()
            found.setdefault(name, []).append(sum(file in roots for file in files))
    return found


@pytest.mark.parametrize("what", ["convert", "score", "mask", "verify", "verify scores"])
def test_the_root_is_read_as_often_for_many_sessions(root_reads, what):
    few, many = root_reads[what]
    assert few == many > 0
