"""How often a fit of each shipped graph reads the pixels: the plan, the run, and the files."""

from pathlib import Path

import pytest
import yaml
from counting import counting
from recordings import scene, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.documents import Document
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.workflow import shipped

FOLDER = shipped() / "pipelines"
#: Every graph has a line here.
PASSES = {
    "pca": 0,
    # Only the spread of the scores needs pixels.
    "rx_statistical": 1,
    "channel_selector": 1,
    # The spread of unit spectra, then the mean of the embeddings.
    "deep_svdd": 2,
    # Only the tail of the scores needs pixels.
    "rx_global": 1,
    "local_rx": 1,
    "lad": 1,
    "pca_residual": 1,
    # Two rounds, and the tail.
    "robust_rx": 3,
}
#: Blocks of a window node come with the lines around them, so some are read more than once.
WINDOW = {"local_rx"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory, client):
    folder = tmp_path_factory.mktemp("passes")
    for i in range(2):
        cube, mask = scene(i, lines=64, samples=40, bands=12)
        write_npz(folder / "in" / f"s{i}.npz", cube, mask=mask)
    convert(folder / "in", folder / "a.zarr", block_lines=32, client=client)
    return open_archive(folder / "a.zarr")


def test_every_shipped_graph_is_in_the_table():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PASSES)


@pytest.mark.parametrize("name", PASSES)
def test_plan_run_and_files_agree(archive, client, name):
    pipeline = Pipeline.from_yaml(FOLDER / f"{name}.yaml")
    if name == "robust_rx":
        # As many rounds as may be, however alike they are.
        pipeline.nodes["rx"].tolerance = 0.0
    with counting(client, archive.path) as counts:
        result = fit(pipeline, archive, client=client)
    assert result.plan.passes == PASSES[name]
    assert result.passes == PASSES[name]
    stored = {str(f): f.stat().st_size for f in archive.path.rglob("cube/c.*")}
    whole = sum(stored.values())
    read = sum(stored[str(Path(file))] * times for file, times in counts.items())
    if name in WINDOW:
        # A block of 32 lines comes with up to 10 on either side.
        assert PASSES[name] * whole <= read <= 2 * PASSES[name] * whole
    else:
        assert read == PASSES[name] * whole


@pytest.mark.parametrize("name", ["rx_statistical", "channel_selector", "rx_global", "lad"])
def test_without_what_looks_at_scores_nothing_is_read(archive, client, name):
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    looks = {"ScoreToLogit", "BinaryDecider", "CFARThreshold", "AnomalyDetectionMetrics"}
    content["nodes"] = [n for n in content["nodes"] if n["class_name"] not in looks]
    left = {node["name"] for node in content["nodes"]}
    content["connections"] = [
        edge
        for edge in content["connections"]
        if all(edge[end].partition(".")[0] in left for end in ("source", "target"))
    ]
    pipeline = Pipeline.from_document(Document(content, {}))
    assert plan_fit(pipeline, ("moments", "extrema")).passes == 0
    with counting(client, archive.path) as counts:
        assert fit(pipeline, archive, client=client).passes == 0
    assert not counts
