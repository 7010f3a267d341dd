"""The page of YAML files, from their JSON Schemas."""

from __future__ import annotations

from typing import Any

from hsi_batch.checking import KINDS, schema

__all__ = ["page"]


def page() -> str:
    """All keys of all kinds of files, in Markdown."""
    lines = [
        "# YAML files",
        "",
        "Keys of every file that is read, from the schemas that `hsi-batch schema KIND` prints;"
        " `hsi-batch check FILE` tells what is wrong with one, by line."
        " Graphs are explained in [Pipelines](../pipelines.md).",
        "",
    ]
    for kind in KINDS:
        found = schema(kind)
        lines += [f"## {kind.capitalize()} files", ""]
        lines += _keys(found, kind)
        for name, part in sorted(found.get("$defs", {}).items()):
            if part.get("properties"):
                lines += [f"### {name} ({kind}) {{ #{kind}-{name.lower()} }}", ""]
                lines += _keys(part, kind)
            elif part.get("enum"):
                lines += [f"### {name} ({kind}) {{ #{kind}-{name.lower()} }}", ""]
                lines += ["One of " + ", ".join(f"`{v}`" for v in part["enum"]) + ".", ""]
    return "\n".join(lines)


def _keys(part: dict[str, Any], kind: str) -> list[str]:
    lines = [_cell(part["description"].partition("\n\n")[0]), ""] if part.get("description") else []
    if not part.get("properties"):
        choices = [_type(each, kind) for each in part.get("anyOf", part.get("oneOf", ()))]
        return [*lines, *(["Either of " + ", ".join(choices) + "."] if choices else []), ""]
    required = set(part.get("required", ()))
    lines += ["| key | type | default | what it is |", "| --- | --- | --- | --- |"]
    for key, entry in part["properties"].items():
        default = "must be given" if key in required else _default(entry)
        cells = [f"`{key}`", _type(entry, kind), default, _cell(entry.get("description", ""))]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _default(entry: dict[str, Any]) -> str:
    value = entry.get("default")
    if value in (None, "", [], {}):
        return ""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return _cell(f"`{shown}`") if len(shown) < 60 else ""


def _type(entry: dict[str, Any], kind: str) -> str:
    if "$ref" in entry:
        name = entry["$ref"].rpartition("/")[2]
        return f"[{name}](#{kind}-{name.lower()})"
    if "enum" in entry or "const" in entry:
        return " or ".join(f"`{v}`" for v in entry.get("enum", [entry.get("const")]))
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in entry:
            kinds = dict.fromkeys(_type(each, kind) for each in entry[choice])
            kinds.pop("nothing", None)
            return " or ".join(kinds)
    words = {"object": "mapping", "array": "list", "null": "nothing", "string": "text"}
    word = words.get(str(entry.get("type")), str(entry.get("type", "any")))
    if word == "list" and isinstance(entry.get("items"), dict) and entry["items"]:
        return f"list of {_type(entry['items'], kind)}"
    return word


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
