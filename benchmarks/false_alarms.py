"""Requested against achieved false-alarm rates on labelled scenes, as a page for the docs.

    python benchmarks/false_alarms.py SCENES [--out docs/false_alarms.md]

SCENES is a folder of recordings with labels (``.npz`` with ``cube`` and ``mask``). Scores are those
of global RX, thresholds those of ``CFARThreshold``; false alarms are counted among the pixels that
are labelled background.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from hsi_batch.errors import DataWarning
from hsi_batch.nodes import CFARThreshold, RXGlobal
from hsi_batch.stages.alarms import binomial_interval
from hsi_batch.statistics import Histogram, Moments

PFAS = (1e-3, 1e-4, 1e-5)
#: As in the shipped pipelines.
TAIL = 0.05
#: Which pixels the background and the threshold are fitted to, and which are counted.
PROTOCOLS = {
    "same": "fitted to the background that is counted",
    "halves": "fitted to a random half, counted in the other",
    "places": "fitted to the upper half, counted in the lower, and the reverse",
}
TEXT = """# Requested and achieved false-alarm rates on public scenes

Global RX and `CFARThreshold(method: auto, tail: {tail})` are fitted to pixels that are labelled
background (`fit --pixels labelled-normal`), and false alarms are counted among such pixels:
{pixels} in {scenes} scenes of 8 000 to 10 000 pixels. No scene has pixels enough to count 100 above
any of these thresholds, so every one is extrapolated from the upper {percent:g} % of the scores by
a generalised Pareto law. Made by
`python benchmarks/false_alarms.py SCENES --out docs/false_alarms.md`. On backgrounds of known law
the rates that are asked for are those that come, which is a test
(`tests/nodes/test_false_alarm_rates.py`); here is what comes of real ones.

All scenes together; in brackets the 95 % interval of the rate (Clopper and Pearson), which takes
pixels for independent, and neighbours are not:

{pooled}
{verdict}

False alarms of each scene ({expected} are expected at 1e-3, a tenth and a hundredth of it below):

{each}
What to make of it:

* Pixels that the fit has seen: {same} times as many as asked for at 1e-3, 1e-4 and 1e-5. At 1e-5
  fewer than one pixel is expected of all scenes together, so that figure is of a pixel or two.
* Other pixels of the same scene: {halves} times. A covariance of {least} bands or more from half
  as many pixels as the scene has fits these better than others, so others score higher.
* Pixels of other places: {places} times. They are of other materials, which the fit calls
  anomalous. No threshold knows what the fit has not seen: fit on frames like those that are scored,
  on a hundred pixels per band or more, and compare with labels (`hsi-batch evaluate --split`).
"""


def background_scores(cube: NDArray[Any], fitted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """RX scores ``(y, x)`` of a cube against some of its pixels, in float64."""
    node = RXGlobal(name="rx", eps=0.0)
    pixels = cube[fitted].astype(np.float64)
    node.fit(Moments.empty(cube.shape[2], "float64").update(pixels))
    centred = cube.reshape(-1, cube.shape[2]) - np.asarray(node.state["mean"])
    lower = np.linalg.cholesky(np.cov(pixels.T))
    whitened = np.linalg.solve(lower, centred.T)
    found: NDArray[np.float64] = (whitened**2).sum(0).reshape(cube.shape[:2])
    return found


def threshold(scores: NDArray[np.float64], pfa: float) -> float:
    """Of ``CFARThreshold`` for these scores."""
    node = CFARThreshold(pfa, "auto", tail=TAIL)
    histogram = Histogram.empty(1, "float32").update(scores.astype(np.float32)[:, None])
    with warnings.catch_warnings():
        # That a tail is heavy is part of what is measured.
        warnings.simplefilter("ignore", DataWarning)
        node.fit(histogram)
    return float(node.hparams["threshold"])


def folds(
    protocol: str, normal: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Pixels that are fitted to and pixels that are counted; each is counted once."""
    if protocol == "same":
        yield normal, normal
        return
    if protocol == "halves":
        first = np.random.default_rng(0).random(normal.shape) < 0.5
    else:
        first = np.zeros(normal.shape, dtype=bool)
        first[: len(normal) // 2] = True
    yield normal & first, normal & ~first
    yield normal & ~first, normal & first


def alarms(cube: NDArray[Any], normal: NDArray[np.bool_], protocol: str) -> dict[float, int]:
    """False alarms at each rate that is asked for."""
    found = dict.fromkeys(PFAS, 0)
    for fitted, judged in folds(protocol, normal):
        scores = background_scores(cube, fitted)
        for pfa in PFAS:
            least = threshold(scores[fitted], pfa)
            found[pfa] += int(np.count_nonzero(scores[judged].astype(np.float32) >= least))
    return found


def measure(scenes: Path) -> dict[str, tuple[int, int, dict[str, dict[float, int]]]]:
    """Of each scene: background pixels, bands, and false alarms by protocol."""
    found = {}
    for path in sorted(scenes.glob("*.npz")):
        with np.load(path) as stored:
            cube, normal = stored["cube"], stored["mask"] == 0
        counts = {protocol: alarms(cube, normal, protocol) for protocol in PROTOCOLS}
        found[path.stem] = (int(normal.sum()), cube.shape[2], counts)
    return found


def pooled(found: dict[str, tuple[int, int, dict[str, dict[float, int]]]]) -> dict[str, Any]:
    """Rate and interval of all scenes together, by protocol and rate that was asked for."""
    pixels = sum(one[0] for one in found.values())
    result: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        for pfa in PFAS:
            hits = sum(one[2][protocol][pfa] for one in found.values())
            result.setdefault(protocol, {})[pfa] = (
                hits,
                hits / pixels,
                binomial_interval(hits, pixels),
            )
    return result


def page(scenes: Path) -> str:
    """The page of the docs, in Markdown."""
    found = measure(scenes)
    whole = pooled(found)
    rows, within = [], []
    for protocol, words in PROTOCOLS.items():
        cells = []
        for pfa in PFAS:
            hits, rate, (low, high) = whole[protocol][pfa]
            cells.append(f"{rate:.2g} ({low:.2g} to {high:.2g}), {hits} pixels")
            if low <= pfa <= high:
                within.append((protocol, pfa))
        rows.append([words, *cells])
    verdict = "\n".join(
        f"* {words[0].upper()}{words[1:]}: what was asked for is within the interval at"
        f" {_listed([f'{p:g}' for q, p in within if q == protocol]) or 'none of them'}."
        for protocol, words in PROTOCOLS.items()
    )
    each = [
        [name, str(bands), *(
            " / ".join(str(counts[protocol][pfa]) for pfa in PFAS) for protocol in PROTOCOLS
        )]
        for name, (_, bands, counts) in found.items()
    ]  # fmt: skip
    times = {
        protocol: _listed([_times(whole[protocol][pfa][1] / pfa) for pfa in PFAS])
        for protocol in PROTOCOLS
    }
    return TEXT.format(
        **times,
        tail=TAIL,
        percent=100 * TAIL,
        pixels=f"{sum(one[0] for one in found.values()):,}".replace(",", " "),
        scenes=len(found),
        pooled=_table(["", *(f"{pfa:g} requested" for pfa in PFAS)], rows),
        verdict=verdict,
        expected=f"{min(o[0] for o in found.values()) / 1e3:.0f} to"
        f" {max(o[0] for o in found.values()) / 1e3:.0f}",
        least=min(one[1] for one in found.values()),
        each=_table(["scene", "bands", *(f"{p}, 1e-3 / 1e-4 / 1e-5" for p in PROTOCOLS)], each),
    )


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
