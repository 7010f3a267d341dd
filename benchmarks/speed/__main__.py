"""``python -m benchmarks.speed``: run the contests, print the bars, write the page."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.speed.harness import SCALES, Line
from benchmarks.speed.machine import described
from benchmarks.speed.report import show, write

FAMILIES = ("moments", "scores", "stages", "convert", "zero_pass", "scale", "many")
#: Families that measure one core.
_SINGLE = ("moments", "scores")


def main(
    size: Annotated[str, typer.Option(help=", ".join(SCALES))] = "full",
    only: Annotated[list[str] | None, typer.Option("--only", help=", ".join(FAMILIES))] = None,
    out: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
    results: Annotated[Path | None, typer.Option(help="JSON to write.")] = None,
    scratch: Annotated[Path | None, typer.Option(help="Folder for archives; 10 GB.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with 1 if a bar is missed.")
    ] = False,
) -> None:
    """Speed of hsi_batch beside its peers."""
    # A stand-in for torchvision, which cuvis-ai imports, as in the parity tests.
    sys.path.append(str(Path(__file__).parents[2] / "tests" / "parity" / "stub"))
    warnings.filterwarnings("ignore", module="(?!benchmarks)")
    scale = SCALES[size]
    head = {**described(), "size of the run": size}
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="hsi-batch-bench-", dir=scratch) as folder:
        for name in only or FAMILIES:
            begun = time.perf_counter()
            module = import_module(f"benchmarks.speed.{name}")
            found = _one_core(module, scale) if name in _SINGLE else module.run(scale, Path(folder))
            lines.extend(found)
            # What was measured is not lost with what comes after it.
            _keep(results, head, lines)
            typer.echo(f"{name}: {time.perf_counter() - begun:.0f} s", err=True)
    show(lines, head)
    if out is not None:
        write(lines, head, out, "make bench" if size == "full" else f"make bench-{size}")
    missed = [line for line in lines if line.met is False]
    judged = [line for line in lines if line.met is not None]
    typer.echo(f"{len(judged) - len(missed)} of {len(judged)} bars are met")
    if strict and missed:
        raise typer.Exit(1)


def _keep(results: Path | None, head: dict[str, str], lines: list[Line]) -> None:
    if results is not None:
        content = {"head": head, "lines": [asdict(line) for line in lines]}
        results.write_text(json.dumps(content, indent=1))


def _one_core(module: Any, scale: Any) -> list[Any]:
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return list(module.run(scale))
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
