"""Documents checked against a model, every mistake reported at once."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hsi_batch.documents import Document, Location
from hsi_batch.errors import ConfigError, Problem, did_you_mean
from hsi_batch.kinds import mistaken
from hsi_batch.wording import complaint, mistakes

__all__ = ["validate"]

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], document: Document) -> M:
    """Check a document against a pydantic model.

    Raises
    ------
    hsi_batch.errors.ConfigError
        With one problem per mistake: file, line, what was found, what was expected, and the
        nearest valid name for keys that do not exist.
    """
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        found = "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(
            f"the file holds {found}; a mapping of keys was expected.",
            path=document.path,
        )
    if (other := mistaken(data, model.model_fields)) is not None:
        raise ConfigError(other[0], path=document.path, hint=other[1])
    problems: list[Problem] = []
    checked: M | None = None
    try:
        checked = model.model_validate(data)
    except ValidationError as error:
        told = mistakes(error.errors(), data)
        problems = [_problem(location, group, model, document) for location, group in told]
    if checked is None or document.problems:
        raise ConfigError.collect(document.merged(problems), path=document.path)
    return checked


def _problem(
    location: Location,
    details: list[ErrorDetails],
    model: type[BaseModel],
    document: Document,
) -> Problem:
    detail = details[0]
    where = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        text = f"unknown key {where!r}.{did_you_mean(str(location[-1]), known)}"
        if known and "Did you mean" not in text:
            text += f" Known here: {', '.join(sorted(known))}."
        return document.problem(text, location)
    if detail["type"] == "missing":
        return document.problem(f"key {where!r} is missing.", location[:-1])
    place = f"{where}: " if where else ""
    return document.problem(f"{place}{complaint(*details)}.", location)


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """Names of the fields that a model allows at a location."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            continue
        current = _model_in(fields[part].annotation)
    fields = getattr(current, "model_fields", {})
    return [info.alias or name for name, info in fields.items()]


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
