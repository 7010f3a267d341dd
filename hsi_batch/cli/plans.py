"""Plans as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsi_batch.wording import counted, sized

if TYPE_CHECKING:
    from hsi_batch.stages.convert import ConvertResult
    from hsi_batch.stages.convert_plan import ConvertPlan
    from hsi_batch.stages.fit_result import FitResult
    from hsi_batch.stages.score_plan import ScorePlan
    from hsi_batch.stages.score_result import ScoreResult
    from hsi_batch.training.plan import TrainPlan, TrainSketch

__all__ = [
    "convert_plan_text",
    "fit_plan_data",
    "fit_plan_text",
    "score_plan_text",
    "train_plan_data",
    "train_plan_text",
]

#: Memory of a worker before the first block: as measured, without and with torch.
_BASE_MB = {"convert": 140, "score": 350}
_SHOWN = 20


def _work(planned: ConvertPlan | FitResult | ScorePlan) -> str:
    blocks, tasks = counted(planned.blocks, "block"), counted(planned.tasks, "task")
    return f"{blocks} in {tasks}, {sized(planned.bytes)}"


def _memory(stage: str, needed: int) -> str:
    base = _BASE_MB[stage]
    return f"about {base + needed / 1e6:.0f} MB per worker (base {base} MB + {sized(needed)})"


def convert_plan_text(result: ConvertResult) -> str:
    """What a conversion would do."""
    plan = result.plan
    assert plan is not None
    counts = ", ".join(f"{n} {status}" for status, n in plan.counts().items()) or "nothing"
    lines = [f"{counts}; {_work(plan)}"]
    if plan.blocks:
        lines.append(f"  memory: {_memory('convert', plan.worker_bytes)}")
    lines.extend(
        f"  {s.status:8} {s.name} ({counted(len(s.todo), 'block')}) from {s.path}"
        for s in plan.sessions[:_SHOWN]
    )
    if len(plan.sessions) > _SHOWN:
        lines.append(f"  and {len(plan.sessions) - _SHOWN} more sessions")
    lines.extend(f"  skip     {path}: {reason}" for path, reason in plan.skipped[:_SHOWN])
    lines.extend(f"  broken   {reason}" for _, reason in plan.broken[:_SHOWN])
    return "\n".join(lines)


def fit_plan_text(result: FitResult) -> str:
    """What a fit would read."""
    many = f"; {counted(result.groups, 'background')}, one per {result.background}"
    text = (
        f"{counted(result.frames, 'frame')} of {counted(result.sessions, 'session')}"
        f"{many if result.groups else ''}; {result.plan}\n"
        f"  reads {_work(result)}\n"
    )
    if result.kept or result.redone:
        new = result.blocks - result.redone
        text += (
            f"  blocks: {new} new, {result.redone} redo, {result.kept} skip (statistics kept by"
            " an interrupted run)\n"
        )
    return text + f"  memory: {_memory('score', result.worker_bytes)}"


def fit_plan_data(result: FitResult) -> dict[str, Any]:
    """What a fit would read, for machines."""
    plan = result.plan
    assert plan is not None
    return {
        "sessions": result.sessions,
        "frames": result.frames,
        "background": result.background,
        "backgrounds": result.groups or 1,
        "passes": plan.passes,
        "blocks": result.blocks,
        "tasks": result.tasks,
        "bytes": result.bytes,
        "skip": result.kept,
        "redo": result.redone,
        "worker_bytes": result.worker_bytes,
        "nodes": [
            *(
                {"node": n.name, "needs": str(n.need), "through": list(n.via), "pass": n.reading}
                for n in plan.nodes
            ),
            *(
                {"node": s.name, "needs": "stream of frames", "through": [], "pass": s.reading}
                for s in plan.streams
            ),
        ],
    }


def score_plan_text(result: ScoreResult) -> str:
    """What a scoring run would do."""
    plan = result.plan
    assert plan is not None
    counts: dict[str, int] = {}
    for session in plan.sessions:
        counts[session.status] = counts.get(session.status, 0) + 1
    shown = ", ".join(f"{n} {status}" for status, n in counts.items())
    lines = [f"{', '.join(result.outputs)}: sessions: {shown}; {_work(plan)}"]
    if plan.blocks:
        lines.append(f"  memory: {_memory('score', plan.worker_bytes)}")
    if plan.by_frame:
        lines.append(f"  whole frames per worker, because of {', '.join(plan.by_frame)}")
    lines.extend(
        f"  {planned.status:8} {planned.name} ({counted(len(planned.todo), 'block')})"
        for planned in plan.sessions[:_SHOWN]
    )
    if len(plan.sessions) > _SHOWN:
        lines.append(f"  and {len(plan.sessions) - _SHOWN} more sessions")
    return "\n".join(lines)


def train_plan_data(planned: TrainPlan | TrainSketch) -> dict[str, Any]:
    """What a training would do, for machines."""
    fit = getattr(planned, "fit", None)
    return {**planned.to_dict(), "fit": None if fit is None else fit_plan_data(fit)}


def train_plan_text(planned: TrainPlan | TrainSketch) -> str:
    """What a training would do, its fit first."""
    fit = getattr(planned, "fit", None)
    return str(planned) if fit is None else f"{fit_plan_text(fit)}\n{planned}"
