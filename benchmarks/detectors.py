"""The shipped detectors on labelled scenes, as tables for the docs: ROC areas, false alarms.

    python benchmarks/detectors.py SCENES [--out docs/detectors.md]

SCENES is a folder of recordings with labels (``.npz`` with ``cube`` and ``mask``). Every detector
is fitted to each scene alone and scored on it, through the archive, as the command line does it.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import zarr

import hsi_batch as hb
from hsi_batch.errors import DataError, DataWarning
from hsi_batch.nodes import CFARThreshold
from hsi_batch.statistics import Histogram
from hsi_batch.workflow import shipped

DETECTORS = {
    "rx_global": "Global RX",
    "local_rx": "Local RX",
    "robust_rx": "Robust RX",
    "lad": "LAD",
    "pca_residual": "PCA residual",
    "deep_svdd": "Deep SVDD",
}
#: How a threshold for global RX is found, and the rate that is asked for.
METHODS: dict[str, tuple[str, dict[str, Any], float]] = {
    "empirical, 1 %": ("rx_global", {"method": "empirical"}, 0.01),
    "gpd, 1 %": ("rx_global", {"method": "gpd", "tail": 0.05}, 0.01),
    "gpd": ("rx_global", {"method": "gpd", "tail": 0.05}, 0.001),
    "chi2 of mean and variance": ("rx_global", {"method": "chi2"}, 0.001),
    "f": ("rx_global", {"method": "f"}, 0.001),
    "f, local RX": ("local_rx", {"method": "f", "dof": 10, "background_pixels": 416}, 0.001),
}
TEXT = """# Detectors on public scenes

Each detector is fitted to one scene and scored on it, by the pipelines in `workflows/pipelines` as
they are: no labels are used but to count. The scenes are small (8 000 to 10 000 pixels) and cut out
around their anomalies; on recordings of your own expect other figures, and another order. Made by
`python benchmarks/detectors.py SCENES --out docs/detectors.md`.

## Which ones are found

Area under the ROC curve over all pixels; 1 is perfect, 0.5 is chance.

{areas}
What a newcomer wants to know:

* Start with global RX (`rx_global`, what `quickstart` uses). It has no settings, its scores are
  fitted without reading a pixel, and its values here agree with those published for these scenes.
* Small targets before a background that changes from place to place: local RX. It is slow, and its
  windows must fit the targets (`guard` at least as wide as a target). Its ten components and
  windows 5 and 21 were **chosen among a few on these very scenes**, so its figures are optimistic.
* Large or many targets pull the background towards themselves: robust RX. `keep` and `rounds` were
  **chosen among a few on these very scenes**, too.
* The ten components of the PCA residual are the number that local RX has. LAD has no settings.
  Neither was tuned.
* Deep SVDD is not trained: its projection is random by its seed. Its figures are those of the
  start, not of the method.

## How many false alarms there are

All but Deep SVDD end in `CFARThreshold` with `pfa: 0.001`, `method: gpd`. This is the share of the
pixels that are labelled background which is flagged, divided by `pfa`: 1 is what was asked for.

{shipped}
Below 1 is what is to be expected: the fit does not know the labels, so anomalies count among the
{least} to {most} pixels of the tail. Ten pixels of 10 000 are expected, so these figures are
scattered by a third even if all is right.

The same for other ways to find the threshold, for global RX where not said otherwise; `pfa` is
0.001, or 1 % where said (`empirical` refuses less from 10 000 pixels, and this from 8 000):

{methods}
`chi2` and `f` are the laws of Gaussian background. They need no pass over the pixels (connect the
input `background`), and on real scenes they flag {worst}: real background is a mixture of
materials with heavy tails. A covariance of each pixel's surroundings does not mend that (last
column). Without that input they take a pass, and the fit warns where the scores deny the law.

No method knows what the fit has not seen. With global RX and its threshold fitted to the upper half
of a scene and scored on the lower half, {halves} times as many background pixels are flagged
as were asked for (`gpd`, 1 %): fit on frames like those that are scored.
"""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


class _Scene:
    """One scene, its archive and what was found in it."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.name = path.stem
        with np.load(path) as stored:
            self.target = stored["mask"] > 0
            self.channels = stored["cube"].shape[2]
        self.folder = folder
        self.archive = folder / f"{self.name}.zarr"
        hb.convert(path, self.archive)
        self.areas: dict[str, float] = {}
        self.scores: dict[str, Any] = {}
        self.flagged: dict[str, float] = {}

    def run(self, name: str) -> None:
        """Fit and score one pipeline."""
        pipeline = hb.Pipeline.from_yaml(shipped() / "pipelines" / f"{name}.yaml")
        hb.fit(pipeline, self.archive)
        store = self.folder / f"{self.name}-{name}.zarr"
        result = hb.score(pipeline, self.archive, store)
        self.areas[name] = result.metrics["auc"]
        found: Any = zarr.open_group(store, mode="r")[self.name]
        self.scores[name] = np.asarray(found["scores"][0])
        self.flagged[name] = float((np.asarray(found["decisions"][0])[~self.target] == 1).mean())

    def rate(self, name: str, options: dict[str, Any], pfa: float) -> float | None:
        """Share of background that a threshold of these options flags; None if refused."""
        scores = self.scores[name]
        if options["method"] == "f":
            options = {"dof": self.channels, **options}
        try:
            threshold = _threshold(scores, pfa, options)
        except DataError:
            return None
        return float((scores[~self.target] >= threshold).mean())

    def other_half(self) -> float:
        """Share of the background of the lower half that is flagged by a fit to the upper one."""
        middle = self.target.shape[0] // 2
        halves = [f"{self.name}[0][y=0:{middle}]", f"{self.name}[0][y={middle}:]"]
        pipeline = hb.Pipeline.from_yaml(shipped() / "pipelines" / "rx_global.yaml")
        pipeline.nodes["decider"].pfa = 0.01
        hb.fit(pipeline, self.archive, frames=halves[0])
        store = self.folder / f"{self.name}-half.zarr"
        hb.score(pipeline, self.archive, store, frames=halves[1])
        found: Any = zarr.open_group(store, mode="r")[self.name]
        decided = np.asarray(found["decisions"][0])[middle:]
        return float((decided[~self.target[middle:]] == 1).mean())


def _threshold(scores: Any, pfa: float, options: dict[str, Any]) -> float:
    node = CFARThreshold(pfa, **options)
    valid = scores[np.isfinite(scores)].reshape(-1, 1)
    with warnings.catch_warnings():
        # That laws do not hold is what is measured.
        warnings.simplefilter("ignore", DataWarning)
        node.fit(Histogram.empty(1, "float32").update(valid))
    return float(node.threshold)


def _times(rate: float | None, pfa: float) -> str:
    if rate is None:
        return "refused"
    return f"{rate / pfa:.0f}" if rate >= 10 * pfa else f"{rate / pfa:.1f}"


def _between(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}"


def page(scenes: Path) -> str:
    """The page of the docs, in Markdown."""
    done: list[_Scene] = []
    halves = []
    with tempfile.TemporaryDirectory() as folder, hb.connect():
        for path in sorted(scenes.glob("*.npz")):
            scene = _Scene(path, Path(folder))
            for name in DETECTORS:
                scene.run(name)
            halves.append(scene.other_half() / 0.01)
            done.append(scene)
            typer.echo(f"{scene.name}: {scene.areas}", err=True)
    own = {name: title for name, title in DETECTORS.items() if name != "deep_svdd"}
    laws = [(s.rate(*METHODS["f"]) or 0) / 0.001 for s in done]
    tails = [round(s.target.size * 0.05) for s in done]
    return TEXT.format(
        areas=_table(
            ["scene", *DETECTORS.values()],
            [[s.name, *(f"{s.areas[name]:.4f}" for name in DETECTORS)] for s in done],
        ),
        shipped=_table(
            ["scene", *own.values()],
            [[s.name, *(_times(s.flagged[name], 0.001) for name in own)] for s in done],
        ),
        methods=_table(
            ["scene", *METHODS],
            [[s.name, *(_times(s.rate(*m), m[2]) for m in METHODS.values())] for s in done],
        ),
        least=min(tails),
        most=max(tails),
        worst=f"{_between(laws)} times `pfa`",
        halves=_between(halves),
    )


def main(
    scenes: Path, out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None
) -> None:
    """Print or write the page."""
    text = page(scenes)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text)


if __name__ == "__main__":
    typer.run(main)
