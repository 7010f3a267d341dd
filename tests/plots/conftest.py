"""An archive with labels, a pipeline that was fitted to it, its scores; figures that are closed."""

from types import SimpleNamespace

import matplotlib as mpl
import pytest
from graphs import chain
from plot_helpers import NAMES, NM
from recordings import scene, write_envi

import hsi_batch as hb
from hsi_batch.nodes import ArchiveQuantileDecider, MinMaxNormalizer, RXGlobal, SoftChannelSelector


@pytest.fixture(autouse=True)
def closed():
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="package")
def made(client, tmp_path_factory):
    """Three sessions, the first of which is the latest; one has flagged pixels."""
    here = tmp_path_factory.mktemp("plots")
    for i, name in enumerate(NAMES):
        cube, mask = scene(i, lines=44, samples=30)
        if name == "s1":
            cube[3, 4:9] = 0
        when = f"acquisition time = 2026-06-{(20, 10, 15)[i]:02d}T10:00:00Z\n"
        when += "data ignore value = 0\n"
        write_envi(here / "in" / f"{name}.hdr", cube, wavelength=NM, mask=mask, extra=when)
    converted = hb.convert(here / "in", here / "a.zarr", client=client)
    archive = hb.open_archive(here / "a.zarr")
    pipeline = chain(
        MinMaxNormalizer(name="norm"),
        SoftChannelSelector(3, name="selector", init_method="variance"),
        RXGlobal(name="rx", eps=0.0),
        ArchiveQuantileDecider(0.99, name="decider"),
    )
    fitted = hb.fit(pipeline, archive, frames="s0,s1", client=client)
    scored = hb.score(pipeline, archive, here / "s.zarr", client=client)
    return SimpleNamespace(
        here=here,
        archive=archive,
        pipeline=pipeline,
        converted=converted,
        fitted=fitted,
        scored=scored,
        client=client,
    )
