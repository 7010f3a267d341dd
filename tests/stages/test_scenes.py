"""Global RX on real scenes through the command line, against published results and float64."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy.linalg import solve_triangular
from sklearn.metrics import roc_auc_score

from hsi_batch.cli.main import app

#: float64 and published areas under ROC, from the README of the scenes.
SCENES = {
    "abu-airport-1": (0.822085, (0.8221, 0.8219)),
    "abu-airport-2": (0.840381, (0.84038, 0.8404, 0.8403)),
    "abu-airport-3": (0.928811, (0.9287,)),
    "abu-urban-4": (0.988718, (0.9887,)),
    "abu-urban-5": (0.969206, (0.9692,)),
    "hydice-urban": (0.985689, (0.9857, 0.9855)),
    "envi-lhdata-100": (0.991006, (0.9910,)),
}
PIPELINES = Path(__file__).parents[2] / "workflows" / "pipelines"
RX = Path(__file__).parents[1] / "rx_raw.yaml"


def command(*arguments):
    """Run the command line in this process, on the cluster that is there; returns its stdout."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        app(list(map(str, arguments)), standalone_mode=False)
    return out.getvalue()


def process(*arguments):
    """Run the command line as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "hsi_batch", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def reference_scores(cube, *, minmax, eps):
    """Squared Mahalanobis distances in float64, by a route of its own (SVD-free, two-pass)."""
    x = cube.reshape(-1, cube.shape[-1]).astype(np.float64)
    if minmax:
        x = (x - x.min()) / (x.max() - x.min())
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / (len(x) - 1) + eps * np.eye(x.shape[1])
    lower = np.linalg.cholesky(covariance)
    whitened = solve_triangular(lower, centred.T, lower=True)
    return np.einsum("ij,ij->j", whitened, whitened).reshape(cube.shape[:2])


@pytest.fixture(scope="module")
def archive(tmp_path_factory, shared_data, client):
    folder = tmp_path_factory.mktemp("scenes")
    command(
        "convert", *(shared_data / f"{s}.npz" for s in SCENES), "--archive", folder / "a.zarr", "-q"
    )
    return folder / "a.zarr"


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("model", ["raw", "minmax"])
def test_auc_and_scores(archive, shared_data, tmp_path, scene, model):
    with np.load(shared_data / f"{scene}.npz") as file:
        cube, mask = file["cube"], file["mask"]
    run = process if scene == "hydice-urban" else command
    pipeline = {"raw": "rx_global.yaml", "minmax": "rx_statistical.yaml"}[model]
    eps = {"raw": 0.0, "minmax": 1e-6}[model]
    fitted, scores = tmp_path / "fitted.yaml", tmp_path / "scores.zarr"
    run(
        "fit", PIPELINES / pipeline, "--archive", archive, "--frames", scene, "--out", fitted,
        "--set", f"nodes.rx.hparams.eps={eps}", "--workers", 1,
    )  # fmt: skip
    out = run(
        "score", fitted, "--archive", archive, "--frames", scene, "--out", scores, "--json",
        "--output", "rx.scores", "--workers", 1,
    )  # fmt: skip
    summary = json.loads(out)
    reference = reference_scores(cube, minmax=model == "minmax", eps=eps)
    expected = roc_auc_score(mask.ravel(), reference.ravel())
    assert summary["metrics"]["auc"] == pytest.approx(expected, abs=1e-5)
    stored = zarr.open_group(scores, mode="r")[f"{scene}/scores"][0]
    # Stored as float32, within 1e-6 relative of the float64 scores.
    assert np.max(np.abs(stored - reference) / reference) < 1e-6
    if model == "raw":
        ours, published = SCENES[scene]
        assert summary["metrics"]["auc"] == pytest.approx(ours, abs=1e-5)
        assert min(abs(summary["metrics"]["auc"] - p) for p in published) < 2e-4
        n, channels = mask.size, cube.shape[-1]
        # The mean score over the pixels of the fit is known exactly.
        assert stored.astype(np.float64).mean() == pytest.approx(channels * (n - 1) / n, rel=1e-7)


def test_float64_is_chosen_for_most_and_said_so(archive, tmp_path):
    chosen = {}
    for scene in SCENES:
        text = command(
            "fit", RX, "--archive", archive, "--frames", scene,
            "--out", tmp_path / f"{scene}.yaml",
        )  # fmt: skip
        chosen[scene] = "float64" if "scores in float64 (float32 errs by" in text else "float32"
        # Converted archives hold the moments: no pixel is read.
        assert "0 passes over the pixels" in text
    assert sum(dtype == "float64" for dtype in chosen.values()) >= 5
