"""Workflows whose archive and scores lie elsewhere, and scoring over storage that fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from object_storage import SECRET, TOKEN, Flaky, contents, files_of, tell

import hsi_batch as hb
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.verify import verify

PIPELINE = Path(__file__).parents[2] / "workflows" / "pipelines" / "rx_statistical.yaml"
WORKFLOW = """\
archive: {at}/a
sources: in
pipeline: rx.yaml
fit: {{out: fitted.yaml}}
score: {{out: {at}/s}}
report: r.html
"""


@pytest.mark.parametrize("scheme", ["", "icechunk+"])
def test_a_workflow(hsi, workers, s3, made_recordings, tmp_path, scheme):
    shutil.copy(PIPELINE, tmp_path / "rx.yaml")
    (tmp_path / "w.yaml").write_text(WORKFLOW.format(at=f"{scheme}{s3}"))
    done = hsi("run", tmp_path / "w.yaml", "--json")
    assert done.code == 0, done.err
    assert (done.json["convert"]["blocks"], done.json["score"]["blocks"]) == (2, 2)
    again = hsi("run", tmp_path / "w.yaml", "--json").json
    assert again["convert"]["up_to_date"] == 2
    assert again["score"]["blocks"] == 0
    assert again["report"]["up_to_date"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "in",
        "rx.yaml",
        "w.yaml",
        "fitted.yaml",
        "fitted.pt",
        "r.html",
    }
    kept = b"".join([*files_of(tmp_path).values(), *files_of(s3).values()])
    assert SECRET.encode() not in kept
    assert TOKEN.encode() not in kept


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_flaky_storage_changes_no_score(workers, server, s3, made_recordings, tmp_path, seed):
    archive, fitted = f"{s3}/a.zarr", tmp_path / "f.yaml"
    hb.convert(made_recordings, archive, block_lines=16, client=workers)
    fit_file(PIPELINE, archive, tmp_path / "calm.yaml", client=workers)
    calm = hb.score(tmp_path / "calm.yaml", archive, tmp_path / "s.zarr", client=workers)
    with Flaky(server.url, seed) as flaky:
        tell(workers, {"AWS_ENDPOINT_URL": flaky.url})
        try:
            fit_file(PIPELINE, archive, fitted, client=workers)
            scored = hb.score(fitted, archive, f"{s3}/s.zarr", client=workers)
        finally:
            tell(workers, server.environment())
        assert set(flaky.met) == {"passed", *Flaky.FATES}, flaky.met
    assert (scored.failed, scored.blocks, scored.metrics) == (0, 6, calm.metrics)
    assert contents(f"{s3}/s.zarr") == contents(tmp_path / "s.zarr")
    assert verify(f"{s3}/s.zarr", deep=True, client=workers).sound
