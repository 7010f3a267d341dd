"""``nodes``, ``graph``: what there is to build with, and what was built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hsi_batch.cli.options import Json, Quiet, plain

if TYPE_CHECKING:
    from rich.tree import Tree

    from hsi_batch.nodes.described import Described, Port
    from hsi_batch.pipeline.outline import Outline

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("nodes")(nodes)
    app.command("graph")(graph)


def nodes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A class, or a word to look for.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the node library, or show one class with its ports, parameters and formula.

    A word that no class is called lists those with it in their name or summary.

    Example: hsi-batch nodes RXGlobal
    """
    from hsi_batch.nodes import node_class, node_classes
    from hsi_batch.nodes.described import described

    known = sorted(node_classes())
    exact = {each.lower(): each for each in known}.get((name or "").lower())
    found: list[Described] = []
    if exact is None:
        found = [each for each in map(described, known) if _mentions(each, name or "")]
    if name is None or (found and not _is_class(name)):
        if as_json:
            typer.echo(json.dumps({"nodes": [plain(each) for each in found]}, indent=2))
        elif not quiet:
            _list(found)
        return
    one = described(exact or node_class(name).__name__)
    if as_json:
        typer.echo(json.dumps(plain(one), indent=2))
    elif not quiet:
        typer.echo(_page(one))


def _mentions(each: Described, word: str) -> bool:
    return word.lower() in f"{each.name}\n{each.summary}".lower()


def _is_class(name: str) -> bool:
    from hsi_batch.errors import PipelineError
    from hsi_batch.nodes import node_class

    try:
        node_class(name)
    except PipelineError:
        return False
    return True


def _console() -> Any:
    from rich.console import Console

    console = Console()
    # In a pipe a table is as wide as it needs to be.
    return console if console.is_terminal else Console(width=max(200, console.width))


def _list(found: list[Described]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("node", "what it does", "scope", "fitted from"):
        table.add_column(column, no_wrap=column == "node", overflow="fold")
    for each in found:
        table.add_row(
            each.name, _escaped(each.summary), ", ".join(each.scope), "; ".join(each.fitted_from)
        )
    _console().print(table)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _page(one: Described) -> str:
    """One class, as plain text."""
    facts = {
        "scope": ", ".join(one.scope),
        "folds": f"yes, it is {one.folds}" if one.folds else "",
        "fitted from": "; ".join(one.fitted_from),
        "runs in": ", ".join(one.stages),
    }
    lines = [one.name, "=" * len(one.name), "", one.summary]
    lines += ["", one.text] if one.text else []
    lines += ["", *(f"{label}: {text}" for label, text in facts.items() if text)]
    for title, ports in (("Inputs", one.inputs), ("Outputs", one.outputs)):
        lines += ["", title, "-" * len(title), *(map(_port, ports) if ports else ("none",))]
    lines += ["", "Parameters", "----------"]
    for parameter in one.parameters:
        default = "" if parameter.default is None else f" = {parameter.default}"
        lines.append(f"{parameter.name}{default}  ({parameter.type})")
        lines += [f"    {parameter.description}"] if parameter.description else []
    return "\n".join([*lines, *([] if one.parameters else ["none"])])


def _port(port: Port) -> str:
    notes = {"optional": port.optional, "any number": port.variadic}
    said = ", ".join(note for note, holds in notes.items() if holds)
    head = f"{port.name}  {port.dtype} {port.shape}" + (f", {said}" if said else "")
    return f"{head}\n    {port.description}" if port.description else head


def graph(
    pipeline: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.svg", help="Write a picture (SVG).")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show a graph: nodes, connections, shapes, scopes, and what is or will be fitted.

    Example: hsi-batch graph workflows/pipelines/rx_statistical.yaml --out rx.svg
    """
    from hsi_batch.errors import ConfigError
    from hsi_batch.files import write_atomically
    from hsi_batch.pipeline import Pipeline
    from hsi_batch.pipeline.outline import outline
    from hsi_batch.stages.outputs import check_place

    if out is not None and out.suffix.lower() != ".svg":
        raise ConfigError(f"--out {out}: the picture is an SVG file; give it that suffix.")
    if out is not None:
        check_place(out)
    found = outline(Pipeline.from_yaml(pipeline))
    if out is not None:
        from hsi_batch.pipeline.picture import picture

        write_atomically(out, picture(found))
    if as_json:
        typer.echo(json.dumps(plain(found), indent=2))
    elif out is not None and not quiet:
        typer.echo(f"{found.name}: {out}")
    elif not quiet:
        console = _console()
        for tree in _trees(found):
            console.print(tree, soft_wrap=True)


def _trees(found: Outline) -> list[Tree]:
    """Nodes below what feeds them; one with several feeders stands below the last of them."""
    from rich.tree import Tree

    boxes = {box.name: box for box in found.boxes}
    order = {name: i for i, name in enumerate(boxes)}
    title = Tree(f"[bold]{_escaped(found.name)}[/bold]")
    trees: dict[str, Tree] = {}
    for name, box in boxes.items():
        edges = [line for line in found.lines if line.target.node == name]
        feeders = sorted({line.source.node for line in edges}, key=order.__getitem__)
        above = trees[feeders[-1]] if feeders else title
        facts = ", ".join(box.facts)
        label = f"[bold]{_escaped(name)}[/bold] {box.cls} [dim]({_escaped(facts)})[/dim]"
        for line in edges:
            label += _escaped(f"\n{line.target.port} <- {line.source}: {line.dtype} {line.shape}")
        trees[name] = above.add(label)
    return [title]
