"""The fitted state that each session is scored with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hsi_batch.archive.labels import label_stamp
from hsi_batch.archive.session import Session
from hsi_batch.files import digest_json
from hsi_batch.pipeline.cache import Packed, pack
from hsi_batch.pipeline.groups import POOLED, GroupState, group_of
from hsi_batch.pipeline.maps import MapSpec
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.backgrounds import states_of
from hsi_batch.stages.label_use import reads_labels

__all__ = ["ScoreStates", "pipeline_digest"]


class ScoreStates:
    """A pipeline and its backgrounds, as digests and as what travels to workers.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._digests: dict[str, str] = {}
        self._specs: list[list[str]] = []
        self._labels = False

    def store(self, specs: Sequence[MapSpec]) -> None:
        """Say what is stored; digests cover it."""
        self._specs = [list(map(str, spec)) for spec in specs]
        handed_on = any(self._pipeline.nodes[s.ref.node].is_source for s in specs)
        self._labels = handed_on or reads_labels(self._pipeline, {s.ref.node for s in specs})

    def of(self, group: str) -> Pipeline:
        """The pipeline with the state of one background; ``""`` is that of everything."""
        groups = self._pipeline.groups
        return self._pipeline if groups is None else groups.take(self._pipeline, group)

    def packed(self, group: str) -> Packed:
        """The same, for a worker."""
        return pack(self.of(group))

    def chosen(self, sessions: Mapping[str, Session]) -> dict[str, str]:
        """The background of each session.

        Raises
        ------
        hsi_batch.errors.ConfigError
            Sessions whose background is not known.
        """
        groups = self._pipeline.groups
        return dict.fromkeys(sessions, POOLED) if groups is None else states_of(groups, sessions)

    def fallen_back(self, sessions: Iterable[Session]) -> tuple[str, ...]:
        """Sessions that are scored against another background than their own."""
        groups = self._pipeline.groups
        if groups is None:
            return ()
        return tuple(
            s.name for s in sessions if group_of(groups.by, s.name, s.attrs) not in groups.states
        )

    def told(self, session: Session, group: str) -> dict[str, Any]:
        """The background of a session, as its scores state it."""
        groups = self._pipeline.groups
        if groups is None:
            return {}
        own = group_of(groups.by, session.name, session.attrs)
        held: GroupState | Pipeline = groups.states[group] if group else self._pipeline
        told: dict[str, Any] = {"by": groups.by, "of": own, "state": group or groups.fallback}
        told["precision"] = {name: p.dtype for name, p in held.precision.items()}
        written = (
            held.hparams
            if isinstance(held, GroupState)
            else {name: node.hparams for name, node in held.nodes.items()}
        )
        arguments = {
            name: {key: values[key] for key in node.FITTED_ARGUMENTS if key in values}
            for name, node in self._pipeline.nodes.items()
            if (values := written.get(name)) and node.FITTED_ARGUMENTS
        }
        return {"background": {**told, **({"arguments": arguments} if arguments else {})}}

    def digest(self, session: Session, group: str) -> str:
        """Digest of all that the scores of a session follow from."""
        if group not in self._digests:
            self._digests[group] = pipeline_digest(self.of(group))
        what: list[Any] = [self._digests[group], self._specs]
        stamp = label_stamp(session) if self._labels else None
        return digest_json([str(session.attrs.get("digest")), what, *([stamp] if stamp else [])])

    def digest_of(self, session: Session) -> str | None:
        """The same of any session; None for one whose background is not known."""
        groups = self._pipeline.groups
        if groups is None:
            return self.digest(session, POOLED)
        own = group_of(groups.by, session.name, session.attrs)
        state = None if own is None else groups.find(own)
        return None if state is None else self.digest(session, state)


def pipeline_digest(pipeline: Pipeline) -> str:
    """Digest of what decides the scores: graph, parameters, fitted state, precision."""
    content = pipeline.serialize()
    columns = None if pipeline.axis is None else pipeline.axis.columns
    return digest_json(
        [
            *([] if columns is None else [columns.tobytes().hex()]),
            content["nodes"],
            content["connections"],
            {name: node.buffer_digest() for name, node in pipeline.nodes.items()},
            {
                name: {k: v.tobytes().hex() for k, v in (node.exact_state() or {}).items()}
                for name, node in pipeline.nodes.items()
            },
            {name: p.dtype for name, p in pipeline.precision.items()},
        ]
    )
