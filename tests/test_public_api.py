"""Everything public is documented: parameters, and an example that the doctests run."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from importlib import import_module

import pydantic
import pytest

from hsi_batch.nodes import node_classes

PACKAGES = (
    "hsi_batch",
    *(f"hsi_batch.{n}" for n in ["pipeline", "training", "data", "nodes", "statistics"]),
)
#: Examples that cannot run in a test, and why.
SKIPPED = {"connect": "starts a cluster of its own, which its tests do"}


def public():
    found = {}
    for package in PACKAGES:
        module = import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[value] = f"{package}.{name}"
    for name, cls in node_classes().items():
        found.setdefault(cls, f"hsi_batch.nodes.{name}")
    return [pytest.param(value, id=name) for value, name in found.items()]


PUBLIC = public()


def own_arguments(value):
    """Arguments that a user may give, without the name and the parent's own."""
    if inspect.isclass(value):
        if issubclass(value, enum.Enum):
            return []
        if issubclass(value, pydantic.BaseModel):
            return list(value.model_fields)
        if "__init__" not in vars(value) and not dataclasses.is_dataclass(value):
            return list(getattr(value, "_fields", ()))
    names = inspect.signature(value).parameters
    return [name for name in names if name not in ("self", "name", "args", "hparams")]


@pytest.mark.parametrize("value", PUBLIC)
def test_what_is_public_has_an_example_that_runs(value):
    text = inspect.cleandoc(value.__doc__ or "")
    section = re.search(r"^Examples\n-{8}\n(.*)", text, re.MULTILINE | re.DOTALL)
    assert section, "no section Examples"
    lines = [line for line in section[1].splitlines() if line.lstrip().startswith(">>> ")]
    run = [line for line in lines if "doctest: +SKIP" not in line]
    assert run or value.__name__ in SKIPPED, "no example that runs"


@pytest.mark.parametrize("value", PUBLIC)
def test_what_is_public_says_what_it_takes(value):
    text = inspect.cleandoc(value.__doc__ or "")
    if own_arguments(value):
        assert re.search(r"^(Parameters|Attributes)\n-+$", text, re.MULTILINE), own_arguments(value)


def without_words(value):
    """Arguments of a numpy docstring, of it and its public methods, that nothing is said about."""
    texts = [value.__doc__ or ""]
    if inspect.isclass(value):
        members = [m for name, m in vars(value).items() if not name.startswith("_")]
        functions = [getattr(m, "__func__", m) for m in members]
        texts += [m.__doc__ or "" for m in functions if inspect.isfunction(m)]
    section = re.compile(
        r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^[^\n]+\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL
    )
    parts = [part for text in texts for part in section.findall(inspect.cleandoc(text) + "\n")]
    return [entry for part in parts for entry in re.findall(r"^(\S.*)\n(?! )", part, re.MULTILINE)]


@pytest.mark.parametrize("value", PUBLIC)
def test_what_is_public_says_what_its_arguments_are(value):
    assert without_words(value) == []


def test_an_argument_without_words_is_noticed():
    def bad(one, two):
        """Do it.

        Parameters
        ----------
        one : int
        two : int
            The other.

        Examples
        --------
        x
        """

    assert without_words(bad) == ["one : int"]


@pytest.mark.parametrize("value", PUBLIC)
def test_public_methods_say_what_they_do(value):
    if inspect.isclass(value):
        for name, member in vars(value).items():
            held = member.fget if isinstance(member, property) else member
            held = getattr(held, "__func__", held)
            if not name.startswith("_") and inspect.isfunction(held):
                assert held.__doc__, name


def test_there_is_something_public():
    assert len(PUBLIC) > 170
    assert not [p.id for p in PUBLIC if "function" in p.id]
