"""A pipeline in a notebook: its graph, what it was fitted on, what the fit has settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsi_batch.markup import Raw, card, fold, table
from hsi_batch.pipeline.outline import outline
from hsi_batch.pipeline.picture import inline_picture
from hsi_batch.pipeline.reference import fit_tags
from hsi_batch.wording import counted

if TYPE_CHECKING:
    from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["pipeline_card"]


def pipeline_card(pipeline: Pipeline) -> str:
    """HTML of a pipeline; nothing is computed but the picture."""
    waiting = [
        name
        for name, node in pipeline.nodes.items()
        if not node.fitted and name not in getattr(pipeline.groups, "nodes", ())
    ]
    state = f"{', '.join(waiting)} to be fitted" if waiting else "ready to score"
    told = (tag.partition(": ") for tag in fit_tags((), pipeline.provenance))
    facts: list[tuple[str, object]] = [
        (name.replace("-", " "), text) for name, _, text in told if name != "fitted-data"
    ]
    if pipeline.groups is not None:
        facts.append(("backgrounds", str(pipeline.groups)))
    facts += [(name, text) for name, text in pipeline.in_words().items()]
    facts += [(name, f"scores in {chosen}") for name, chosen in pipeline.precision.items()]
    drawn = Raw(inline_picture(outline(pipeline))) if pipeline.nodes else None
    return card(
        "Pipeline",
        f"{pipeline.name}: {counted(len(pipeline.nodes), 'node')}, {state}",
        drawn,
        table(facts),
        fold("as text", repr(pipeline)),
    )
