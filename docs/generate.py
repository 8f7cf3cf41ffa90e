"""Write docs/settings.md from the config models: `python docs/generate.py`."""

import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hllm.training.recipe import Recipe

TARGET = Path(__file__).parent / "settings.md"
HEAD = """# Settings of a recipe

Made by `python docs/generate.py` from the config models in the code; do not edit. Any key can be changed on the
command line: `hllm train recipe.toml --out run --set model.max_history=100`.
"""


def settings() -> str:
    """Return the page: one table for each config model that a recipe can hold."""
    parts = [HEAD]
    for heading, model in _models("", "", Recipe):
        doc = (model.__doc__ or "").strip().splitlines()[0]
        rows = [f"| `{name}` | {_default(field)} | {_meaning(field)} |" for name, field in _plain_fields(model)]
        if rows:
            parts.append(f"## {heading or 'Top level'}\n\n{doc}\n\n| key | default | meaning |\n| --- | --- | --- |")
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _models(path: str, heading: str, model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """Return the headings and models of `model` and of all that it can hold, in order."""
    found = [(heading, model)]
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation)
        below = f"{path}.{name}" if path else name
        place = f"[[{below}]]" if typing.get_origin(field.annotation) is tuple else f"[{below}]"
        for sub in inner:
            kind = f', kind = "{sub.model_fields["kind"].default}"' if len(inner) > 1 else ""
            found += _models(below, place + kind, sub)
    return found


def _inner(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _inner(part)]


def _plain_fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [(n, f) for n, f in model.model_fields.items() if (not _inner(f.annotation) and n != "kind") or _choice(f)]


def _choice(field: FieldInfo) -> bool:
    """A `kind` that chooses between values of one model, not between models."""
    return typing.get_origin(field.annotation) is typing.Literal and len(typing.get_args(field.annotation)) > 1


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return "–" if value is None or isinstance(value, types.NoneType) else f"`{str(value).lower()}`"


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(settings(), encoding="utf-8")
