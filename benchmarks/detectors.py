"""Areas under the ROC curve of the shipped detectors on labelled scenes, as a table for the docs.

    python benchmarks/detectors.py SCENES [--out docs/detectors.md]

SCENES is a folder of recordings with labels (``.npz`` with ``cube`` and ``mask``). Every detector
is fitted to each scene alone and scored on it, through the archive, as the command line does it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

import hsi_batch as hb
from hsi_batch.workflow import shipped

DETECTORS = {
    "rx_global": "Global RX",
    "local_rx": "Local RX",
    "robust_rx": "Robust RX",
    "lad": "LAD",
    "pca_residual": "PCA residual",
    "deep_svdd": "Deep SVDD",
}
HEAD = """# Detectors on public scenes

Area under the ROC curve over all pixels, each detector fitted to the one scene and scored on it, by
the pipelines in `workflows/pipelines` as they are. Made by
`python benchmarks/detectors.py SCENES --out docs/detectors.md`.

The settings of `local_rx` and `robust_rx` were chosen among a few on these very scenes, so their
figures are optimistic; no other setting was tuned. Deep SVDD is not trained: its projection is
random by its seed. The values of Global RX agree with those published for these scenes.

"""


def table(scenes: Path) -> str:
    """Rows of AUCs in Markdown."""
    lines = [
        f"| scene | {' | '.join(DETECTORS.values())} |",
        f"| --- {'| --- ' * len(DETECTORS)}|",
    ]
    with tempfile.TemporaryDirectory() as folder, hb.connect():
        for scene in sorted(scenes.glob("*.npz")):
            archive = Path(folder) / f"{scene.stem}.zarr"
            hb.convert(scene, archive)
            cells = []
            for name in DETECTORS:
                pipeline = hb.Pipeline.from_yaml(shipped() / "pipelines" / f"{name}.yaml")
                hb.fit(pipeline, archive)
                store = Path(folder) / f"{scene.stem}-{name}.zarr"
                result = hb.score(pipeline, archive, store, outputs=[_scores(pipeline)])
                cells.append(f"{result.metrics['auc']:.4f}")
            lines.append(f"| {scene.stem} | {' | '.join(cells)} |")
            typer.echo(lines[-1], err=True)
    return "\n".join(lines) + "\n"


def _scores(pipeline: hb.Pipeline) -> str:
    (found,) = [name for name, node in pipeline.nodes.items() if "scores" in node.OUTPUT_SPECS]
    return f"{found}.scores"


def main(
    scenes: Path, out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None
) -> None:
    """Print or write the table."""
    text = HEAD + table(scenes)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text)


if __name__ == "__main__":
    typer.run(main)
