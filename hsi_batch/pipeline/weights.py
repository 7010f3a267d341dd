"""Fitted weights on disk: ``.pt`` files that cuvis-ai reads, with our float64 state beside."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError, HsiBatchWarning
from hsi_batch.nodes import ChannelAxis, Node, RXGlobal
from hsi_batch.nodes.annealed import Annealed
from hsi_batch.pipeline.axes import buffer_problems
from hsi_batch.pipeline.buffers import set_buffers
from hsi_batch.pipeline.groups import Groups
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.reference import Reference
from hsi_batch.pipeline.stacked import groups_from_plain, groups_to_plain

if TYPE_CHECKING:
    from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["dump_weights", "load_weights"]

#: Key of our own part of the file; cuvis-ai reads ``state_dict`` and ``metadata`` only.
KEY = "hsi_batch"
_FORMAT = 1
#: With one state per group, which older versions would pass over without a word.
_GROUPED = 2


def dump_weights(pipeline: Pipeline, metadata: Mapping[str, Any], digest: str = "") -> bytes:
    """Contents of a ``.pt`` file: buffers per node, metadata, and what was fitted in float64.

    With them goes the digest of the YAML beside it, if there is one.
    """
    ours: dict[str, Any] = {
        "format": _FORMAT if pipeline.groups is None else _GROUPED,
        "fitted": [n for n, node in pipeline.nodes.items() if node.fitted],
        "state": {},
        "digest": {},
        "schedule": {
            n: node.schedule() for n, node in pipeline.nodes.items() if isinstance(node, Annealed)
        },
        "precision": {name: p.to_dict() for name, p in pipeline.precision.items()},
        "provenance": pipeline.provenance,
        **({"yaml": digest} if digest else {}),
    }
    if pipeline.reference is not None:
        ours["reference"] = {
            k: torch.from_numpy(np.array(v)) for k, v in pipeline.reference.to_arrays().items()
        }
    for name, node in pipeline.nodes.items():
        state = node.exact_state()
        if state is not None:
            ours["state"][name] = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
            ours["digest"][name] = node.buffer_digest()
    if pipeline.axis is not None:
        wavelength = pipeline.axis.wavelength
        ours["axis"] = {
            "size": pipeline.axis.size,
            "wavelength": None if wavelength is None else torch.from_numpy(wavelength.copy()),
        }
        if pipeline.axis.columns is not None:
            ours["axis"]["columns"] = torch.from_numpy(pipeline.axis.columns.copy())
    if pipeline.groups is not None:
        ours["groups"] = groups_to_plain(pipeline.groups)
    content = {
        "state_dict": {n: dict(node.state_dict()) for n, node in pipeline.nodes.items()},
        "metadata": dict(metadata),
        KEY: ours,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load_weights(pipeline: Pipeline, source: bytes | str | os.PathLike[str]) -> str | None:
    """Set buffers and fitted state from a ``.pt`` file, ours or cuvis-ai's.

    Returns the digest of the YAML that it was written with, if it states one.

    Only tensors and plain values are unpickled. A node counts as fitted if the file says so, or,
    in files of cuvis-ai, if its buffers differ from those of a new node.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Not a weights file, a damaged one, or one of another pipeline or number of channels.
    """
    path = None if isinstance(source, bytes) else os.fspath(source)
    content = _content(source, path)
    stored = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(stored, dict) or not all(
        isinstance(v, dict) and all(isinstance(name, str) for name in (k, *v))
        for k, v in stored.items()
    ):
        raise ConfigError(
            "the file holds no `state_dict` per node.",
            path=path,
            hint="Name a file that a pipeline was saved to.",
        )
    ours = _ours(content.get(KEY), path)
    unknown = sorted(set(stored) - set(pipeline.nodes))
    if unknown:
        raise ConfigError(
            f"the weights are of another pipeline: nodes {unknown} are not in"
            f" {pipeline.name!r} ({', '.join(pipeline.nodes)}).",
            path=path,
            hint="Load the weights that were saved with this YAML.",
        )
    for name, node in pipeline.nodes.items():
        if name in stored:
            set_buffers(node, stored[name], path)
        if ours is None:
            node.mark_fitted(name in stored and _looks_fitted(node))
            notice = node.foreign_notice() if isinstance(node, RXGlobal) else None
            if notice is not None:
                warnings.warn(notice, HsiBatchWarning, stacklevel=3)
            continue
        node.mark_fitted(name in stored and name in ours.fitted)
        if name in ours.state and ours.digest.get(name) == node.buffer_digest():
            node.restore_state(ours.state[name])
        if isinstance(node, Annealed) and name in ours.schedule:
            node.restore_schedule(ours.schedule[name])
    if ours is None:
        pipeline.groups = None
        return None
    pipeline.precision = ours.precision
    pipeline.provenance = ours.provenance
    pipeline.reference = ours.reference
    pipeline.groups = ours.groups
    if ours.axis is not None:
        pipeline.resolve(ours.axis)
        problems = buffer_problems(pipeline)
        if problems:
            raise ConfigError.collect(problems, path=path)
    return ours.yaml


def _content(source: bytes | str | os.PathLike[str], path: str | None) -> Any:
    try:
        raw = source if isinstance(source, bytes) else Path(source).read_bytes()
        # Torch does not look at the checksums that it writes, and unpacks whatever it is given.
        with zipfile.ZipFile(io.BytesIO(raw)) as entries:
            if sum(entry.file_size for entry in entries.infolist()) > len(raw):
                raise ValueError("it unpacks to more than it holds")  # noqa: TRY301
            damaged = entries.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")  # noqa: TRY301
        content: Any = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        if any(
            t.numel() * t.element_size() > t.untyped_storage().nbytes() for t in _tensors(content)
        ):
            # Views that repeat a few bytes would take memory once they are copied.
            raise ValueError("a tensor is larger than what is stored of it")  # noqa: TRY301
    except FileNotFoundError:
        raise ConfigError(
            "there is no such weights file.", path=path, hint="Name it, or fit the pipeline."
        ) from None
    except pickle.UnpicklingError:
        raise ConfigError(
            "this is not a weights file that can be read safely: it holds more than tensors and"
            " plain values, or is damaged.",
            path=path,
            hint="A file of weights is written beside the YAML by hsi-batch fit.",
        ) from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way it likes
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"this is not a weights file that can be read safely: {why}",
            path=path,
            hint="A file of weights is written beside the YAML by hsi-batch fit.",
        ) from None
    return content


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


class _Ours(NamedTuple):
    """Our own part of a file, read."""

    fitted: list[str]
    state: dict[str, dict[str, NDArray[Any]]]
    digest: dict[str, str]
    schedule: dict[str, dict[str, float]]
    precision: dict[str, Precision]
    provenance: dict[str, Any]
    axis: ChannelAxis | None
    reference: Reference | None
    groups: Groups | None
    yaml: str | None


def _ours(raw: Any, path: str | None) -> _Ours | None:
    if raw is None:
        return None
    found = raw.get("format") if isinstance(raw, dict) else None
    if found not in (_FORMAT, _GROUPED):
        raise ConfigError(
            f"the weights are in format {found!r}; this version reads {_FORMAT} and {_GROUPED}.",
            path=path,
            hint="Use the version of hsi_batch that wrote them, or fit again.",
        )
    try:
        axis = raw.get("axis")
        wavelength = None if axis is None else axis["wavelength"]
        columns = None if axis is None else axis.get("columns")
        reference = raw.get("reference")
        return _Ours(
            list(raw["fitted"]),
            {n: {k: v.numpy() for k, v in s.items()} for n, s in raw["state"].items()},
            dict(raw["digest"]),
            # Files of versions that trained nothing have none.
            {n: dict(values) for n, values in raw.get("schedule", {}).items()},
            {n: Precision(**p) for n, p in raw["precision"].items()},
            dict(raw["provenance"]),
            None
            if axis is None
            else ChannelAxis(
                int(axis["size"]),
                None if wavelength is None else np.asarray(wavelength.numpy()),
                None if columns is None else np.asarray(columns.numpy()),
            ),
            None
            if reference is None
            else Reference.from_arrays({k: v.numpy() for k, v in reference.items()}),
            groups_from_plain(raw["groups"]) if found == _GROUPED else None,
            None if raw.get("yaml") is None else str(raw["yaml"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the part {KEY!r} of the weights is damaged ({error!r}).", path=path, hint="Fit again."
        ) from None


def _looks_fitted(node: Node) -> bool:
    with torch.random.fork_rng(devices=[]):
        fresh = type(node)(**node.hparams).state_dict()
    stored = node.state_dict()
    return node.default_is_fitted or any(
        stored[k].shape != fresh[k].shape
        or not torch.equal(torch.nan_to_num(stored[k]), torch.nan_to_num(fresh[k]))
        for k in fresh
    )
