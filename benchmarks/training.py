"""What gradient training adds to the statistical fit on held-out regions, as a table for the docs.

    python benchmarks/training.py SCENES [--seeds 3] [--out docs/training_scenes.md]

SCENES is a folder of recordings with labels (``.npz`` with ``cube`` and ``mask``). Each scene is
cut into strips of lines, some left out at each cut, which are for train, val and test in turn. The
shipped trainruns are trained on them for every fold and seed. No line of the test strips takes part
in fit, training, or the choice of a state or threshold.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
import yaml

import hsi_batch as hb
from hsi_batch.training.trained_run import train
from hsi_batch.workflow import shipped

#: Strips of a scene; strip ``j`` is, in fold ``f``, for ``ROLES[(j + f) % 3]``. The second number
#: is for scenes in which with the first a role would have no targets, in all folds.
STRIPS = (6, 9)
ROLES = ("train", "val", "test")
#: Lines that are left out on both sides of a cut, so that targets on it are in one strip at most.
GAP = 2
METHODS = {"channel_selector": "Channel selection", "deep_svdd": "Deep SVDD"}
MEASURES = {"average_precision": "average precision", "iou": "IoU"}
TEXT = """# Gradient training on public scenes

What training adds to the statistical fit, on regions that neither has seen. Each scene is cut
into {counts} strips of lines, {gap} lines left out on both sides of a cut; strip j is in fold f for
train, val or test, as (j + f) mod 3 is 0, 1 or 2. There are 9 strips where with 6 a role has no
targets; folds in which one has none are left out{left_out}. The shipped trainruns
(`workflows/trainruns`) are fitted and trained on the train strips. The val strips choose the epoch,
as the trainruns say, and the thresholds, as fitted and as trained (`calibrate: true`): what is
compared is what training is worth, not what labels for a threshold are. The test strips are looked
at once. Seeds: {seeds}. Made by
`python benchmarks/training.py SCENES --seeds {count} --out docs/training_scenes.md`.

Values are those of the test strips, means over the runs of a scene, as fitted and as trained; the
last column of a pair counts the runs in which training was better.

{tables}

What to make of it:

* Channel selection: on strips that were not seen, average precision is better in {ap_selector},
  IoU in {iou_selector}. Seeds only order its frames and change little; folds differ much, as val
  chooses by a few tens of pixels.
* RX is trained along, with some 20 000 parameters on tens of anomalous pixels. What is won is
  mostly a detector for these targets, not a choice of channels: 40 to 60 steps of 0.01 move a logit
  by 0.6 at most, and a weight at temperatures of 4 to 5 by a tenth.
* Deep SVDD: average precision is better in {ap_svdd}, IoU in {iou_svdd}: it is not
  improved. Its loss knows no labels and draws all spectra together, rare ones too. Seeds draw its
  weights.
* Rate and temperatures of the channel selection were chosen on the synthetic scenes of the demo.
  That its logits are in units of the deviation of the scores (`standardize: true`) was found on val
  strips of abu-airport-1 and abu-urban-4, which are test strips of other folds: without it,
  thresholds near a probability of 1 could not be told apart, and IoU fell where ranking improved.
  On the other scenes nothing was looked at before these tables.
"""


class Found(NamedTuple):
    """One training: scene, trainrun, and each measure as fitted and as trained."""

    scene: str
    method: str
    fold: int
    seed: int
    values: dict[str, list[float]]


def strips(path: Path, folder: Path, count: int) -> dict[str, int]:
    """Write the strips of a scene as recordings; gives the anomalous pixels of each by name."""
    folder.mkdir()
    with np.load(path) as stored:
        arrays: dict[str, Any] = {key: stored[key] for key in ("cube", "mask", "wavelengths")}
    height = arrays["cube"].shape[0]
    found = {}
    for i in range(count):
        first, last = (height * k // count for k in (i, i + 1))
        lines = slice(first + GAP * (i > 0), last - GAP * (i < count - 1))
        cut = {key: arrays[key][lines] for key in ("cube", "mask")}
        if arrays["wavelengths"].size:
            cut["wavelengths"] = arrays["wavelengths"]
        name = f"{path.stem}-{i}"
        np.savez(folder / f"{name}.npz", **cut)
        found[name] = int((cut["mask"] > 0).sum())
    return found


def folds(targets: dict[str, int]) -> list[dict[str, list[str]]]:
    """The strips of each role, for every fold in which all three have anomalous pixels."""
    found = []
    for fold in range(len(ROLES)):
        split: dict[str, list[str]] = {role: [] for role in ROLES}
        for j, name in enumerate(targets):
            split[ROLES[(j + fold) % len(ROLES)]].append(name)
        if all(any(targets[name] for name in names) for names in split.values()):
            found.append(split)
    return found


def run(name: str, archive: Path, folder: Path, split: dict[str, list[str]], seed: int) -> Any:
    """Train a shipped trainrun on some strips, choose by others, and measure the rest."""
    content = yaml.safe_load((shipped() / "trainruns" / f"{name}.yaml").read_text())
    content["data"]["params"] = {"archive": str(archive), **split}
    content["output_dir"] = str(folder / "outputs")
    content["training"]["seed"] = seed
    content["calibrate"] = True
    for node in content["pipeline"]["nodes"]:
        if "seed" in node.get("hparams", {}):
            node["hparams"]["seed"] = seed
    path = folder / "trainrun.yaml"
    path.write_text(yaml.safe_dump(content))
    return train(path, out=folder / "trained.yaml", force=True)


def measured(path: Path, seeds: int, known: list[Found], log: Path | None) -> Iterator[Found]:
    """All trainings of a scene; those that are known are not done again."""
    done = {found[:4]: found for found in known}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for count in STRIPS:
            source, store = folder / f"in{count}", folder / f"a{count}.zarr"
            if splits := folds(strips(path, source, count)):
                break
        for method, fold, seed in itertools.product(METHODS, range(len(splits)), range(seeds)):
            key = path.stem, method, fold, seed
            if key not in done:
                if not store.exists():
                    hb.convert([source], store)
                result = run(method, store, folder, splits[fold], seed)
                pair = [result.before["test"].metrics, result.after["test"].metrics]
                values = {
                    measure: [metrics[f"metrics_anomaly/{measure}"] for metrics in pair]
                    for measure in MEASURES
                }
                done[key] = Found(*key, values)
                line = json.dumps(done[key]._asdict())
                typer.echo(line, err=True)
                if log is not None:
                    with log.open("a") as file:
                        file.write(f"{line}\n")
            yield done[key]


def table(found: list[Found], method: str) -> str:
    """One method, a line per scene."""
    head = ["scene"]
    for words in MEASURES.values():
        head += [f"{words}, fitted", "trained", "better"]
    lines = [head, ["---"] * len(head)]
    own = [f for f in found if f.method == method]
    for scene in dict.fromkeys(f.scene for f in own):
        runs = [f for f in own if f.scene == scene]
        line = [scene]
        for measure in MEASURES:
            pairs = np.array([f.values[measure] for f in runs])
            line += [f"{value:.3f}" for value in pairs.mean(axis=0)]
            line.append(f"{int((pairs[:, 1] > pairs[:, 0]).sum())} of {len(runs)}")
        lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def by_seed(found: list[Found], method: str) -> str:
    """One method, a line per seed: means over all scenes and folds."""
    lines = [["seed", "runs"], ["---"] * (2 + 3 * len(MEASURES))]
    for words in MEASURES.values():
        lines[0] += [f"{words}, fitted", "trained", "better"]
    for seed in sorted({f.seed for f in found}):
        runs = [f for f in found if (f.method, f.seed) == (method, seed)]
        line = [str(seed), str(len(runs))]
        for measure in MEASURES:
            pairs = np.array([f.values[measure] for f in runs])
            line += [f"{value:.3f}" for value in pairs.mean(axis=0)]
            line.append(f"{int((pairs[:, 1] > pairs[:, 0]).sum())} of {len(runs)}")
        lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def share(found: list[Found], method: str, measure: str) -> str:
    """In how many of its runs training was better."""
    pairs = [f.values[measure] for f in found if f.method == method]
    return f"{sum(after > before for before, after in pairs)} of {len(pairs)} runs"


def page(found: list[Found], left_out: list[str]) -> str:
    """The page of the docs, in Markdown."""
    seeds = sorted({f.seed for f in found})
    tables = [
        f"## {title}\n\n{table(found, name)}\nBy seed, over all scenes:\n\n{by_seed(found, name)}"
        for name, title in METHODS.items()
    ]
    return TEXT.format(
        gap=GAP,
        counts=" or ".join(map(str, STRIPS)),
        left_out=f"; so all of {', '.join(left_out)}" if left_out else "",
        seeds=", ".join(map(str, seeds)),
        count=len(seeds),
        tables="\n".join(tables).rstrip(),
        ap_selector=share(found, "channel_selector", "average_precision"),
        iou_selector=share(found, "channel_selector", "iou"),
        ap_svdd=share(found, "deep_svdd", "average_precision"),
        iou_svdd=share(found, "deep_svdd", "iou"),
    )


def main(
    scenes: Path,
    seeds: Annotated[int, typer.Option(help="Trainings of each split.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    log: Annotated[Path | None, typer.Option(help="Keep and reuse results: lines of JSON.")] = None,
) -> None:
    """Print or write the page."""
    lines = log.read_text().splitlines() if log is not None and log.exists() else []
    known = [Found(**json.loads(line)) for line in lines]
    found: list[Found] = []
    with hb.connect(workers=1):
        paths = sorted(scenes.glob("*.npz"))
        for path in paths:
            found += measured(path, seeds, known, log)
    measurable = {f.scene for f in found}
    text = page(found, [path.stem for path in paths if path.stem not in measurable])
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text)


if __name__ == "__main__":
    typer.run(main)
