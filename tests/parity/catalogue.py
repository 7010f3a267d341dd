"""Names of cuvis-ai: where each node class is, its arguments and ports.

``python tests/parity/catalogue.py > hsi_batch/pipeline/cuvis_ai_0_19_3.json`` in the parity
environment writes the table that saving in the dialect of cuvis-ai goes by; a parity test compares
the table with the packages.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any


def catalogue() -> dict[str, dict[str, Any]]:
    """Path, arguments (True where one must be given), their defaults, ports (True where
    optional) and the number of their axes, by class.
    """
    import cuvis_ai
    from cuvis_ai_core.node import Node

    found = {}
    for module in pkgutil.walk_packages(cuvis_ai.__path__, "cuvis_ai."):
        for name, cls in vars(importlib.import_module(module.name)).items():
            own = inspect.isclass(cls) and cls.__module__ == module.name
            if own and issubclass(cls, Node) and not name.startswith("_"):
                found[name] = described(cls)
    return dict(sorted(found.items()))


def described(cls: type) -> dict[str, Any]:
    """One class."""
    arguments: dict[str, bool] = {}
    defaults: dict[str, Any] = {}
    for depth, base in enumerate(cls.__mro__):
        if base.__name__ == "Node":
            break
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        for p in parameters:
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) or p.name == "name":
                continue
            if p.name not in arguments and p.default is not p.empty:
                defaults[p.name] = plain(p.default)
            # What a base needs, its subclass gives, or hands on what it is given.
            arguments.setdefault(p.name, depth == 0 and p.default is p.empty)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    for name in missing(cls, [name for name, needed in arguments.items() if needed]):
        arguments[name] = True
    return {
        "path": f"{cls.__module__}.{cls.__name__}",
        "arguments": arguments,
        "defaults": defaults,
        "inputs": {name: bool(spec.optional) for name, spec in cls.INPUT_SPECS.items()},
        "outputs": {name: bool(spec.optional) for name, spec in cls.OUTPUT_SPECS.items()},
        "axes": {
            name: len(spec.shape)
            for specs in (cls.INPUT_SPECS, cls.OUTPUT_SPECS)
            for name, spec in specs.items()
        },
    }


def missing(cls: type, needed: list[str]) -> list[str]:
    """Arguments of bases that a class does not give and that have no default."""
    if inspect.isabstract(cls):
        return []
    try:
        # Any number will do: what is wrong with it is said after what is missing.
        cls(**dict.fromkeys(needed, 1))
    except TypeError as error:
        said = str(error).partition("required positional argument")[2]
        return re.findall(r"'(\w+)'", said) if "__init__() missing" in str(error) else []
    except Exception:  # noqa: BLE001 - whatever a class says of the number
        return []
    return []


def plain(value: Any) -> Any:
    """A default as YAML has it."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def as_json(found: dict[str, dict[str, Any]]) -> str:
    """One class a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent / "stub"))
    sys.stdout.write(as_json(catalogue()))
