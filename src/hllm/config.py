"""Config reads TOML into pydantic models: an error names the place and the nearest key, `--set a.b=value` overrides."""

import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hllm.errors import ConfigError, nearest

Model = TypeVar("Model", bound="Config")


class Config(BaseModel):
    """Base of every config model: immutable, unknown keys are errors, the line beneath a field describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="strings")

    effective_with: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {}
    """For each field that matters only beside some values of another field: the other field, and these values.

    Beside other values it must be left at its default: an option that does nothing is refused. No values: all but the
    other field's default.
    """

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> "Config":
        fields = type(self).model_fields
        for name, (other, values) in self.effective_with.items():
            found, default = getattr(self, other), fields[other].get_default(call_default_factory=True)
            if getattr(self, name) == fields[name].get_default(call_default_factory=True):
                continue
            if found not in values if values else found == default:
                wanted = " or ".join(f"{other} = {_as_toml(value)}" for value in values) or other
                raise ValueError(
                    f"{name} = {_as_toml(getattr(self, name))} has no effect "
                    + (f"beside {other} = {_as_toml(found)}; it is for {wanted}" if values else f"without {wanted}")
                    + ": leave it out"
                )
        return self

    def said(self, *, without: Sequence[str] = ()) -> str:
        """Return the options that are not at their defaults, such as "log_q = true", for tables; "" if all are."""
        defaults = {
            name: field.get_default(call_default_factory=True) for name, field in type(self).model_fields.items()
        }
        values = {name: getattr(self, name) for name in defaults if name not in without}
        return ", ".join(f"{name} = {_as_toml(value)}" for name, value in values.items() if value != defaults[name])

    @classmethod
    def from_dict(
        cls: type[Model], values: dict[str, Any], *, where: str, overrides: Sequence[str] = (), base: Path | None = None
    ) -> Model:
        """Validate `values` with `overrides` ("a.b=value") on top of them, which are put into `values`.

        Folders that they are taken from start at `base`, if it is given. ConfigError lists every fault with its path
        and, for unknown keys, the nearest.
        """
        for override in overrides:
            _override(values, override)
        try:
            return cls.model_validate(values, context={"base": base or Path()})
        except ValidationError as error:
            lines = [_explain(cls, fault) for fault in error.errors()]
            raise ConfigError(f"{where}: " + "; ".join(lines)) from None

    @classmethod
    def variants(cls) -> tuple[type["Config"], ...]:
        """Return the models that a field of this type can hold: this one alone, unless it stands for a family."""
        return (cls,)

    @classmethod
    def from_toml(cls: type[Model], path: Path, overrides: Sequence[str] = ()) -> Model:
        """Read a TOML file (or JSON, by its ending) and what it extends; apply `overrides` ("a.b=value") on top.

        `extends = "other.toml"`, a path from the file's own folder, starts from the values of another file: tables
        are merged key by key, `[stages.0]` is merged into the first stage, anything else (`[[stages]]`, say) takes
        the old value's place. An override's value is read as TOML if it can be (numbers, true, lists), otherwise as
        a plain string.
        """
        values = _read(path, ())
        for override in overrides:
            _override(values, override)
        return cls.from_dict(values, where=str(path), base=path.parent)


def _as_toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _read(path: Path, extended_by: tuple[Path, ...]) -> dict[str, Any]:
    """Return the values of a file, laid over those of the file that it extends."""
    if path.resolve() in extended_by:
        raise ConfigError(f"{extended_by[-1]} extends {path}, which extends it in turn; one of them must stand alone")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{extended_by[-1]} extends {path}, which does not exist; the path starts at the file's own folder"
            if extended_by
            else f"there is no recipe {path}; the examples are in recipes/"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text: {error}") from None
    try:
        values: dict[str, Any] = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from None
    base = values.pop("extends", None)
    if base is None:
        return values
    merged: dict[str, Any] = laid_over(_read(path.parent / str(base), (*extended_by, path.resolve())), values)
    return merged


def laid_over(base: Any, values: Any, where: str = "") -> Any:
    """Return `values` laid over `base`; a table whose `kind` changes keeps nothing of the base."""
    if isinstance(base, dict) and isinstance(values, dict):
        if values.get("kind", base.get("kind")) != base.get("kind"):
            return values
        return base | {key: laid_over(base.get(key), value, f"{where}{key}.") for key, value in values.items()}
    if isinstance(base, list) and isinstance(values, dict):
        merged = list(base)
        for key, value in values.items():
            if not key.isdigit() or int(key) >= len(base):
                raise ConfigError(f"{where}{key} is not one of the {len(base)} entries of the file that is extended")
            merged[int(key)] = laid_over(base[int(key)], value, f"{where}{key}.")
        return merged
    return values


def _override(values: dict[str, Any], override: str) -> None:
    """Set one dotted key of `values` in place; list entries are addressed by number: stages.0.epochs=2."""
    key, equals, raw = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not of the form key.subkey=value")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, last = key.split(".")
    node: Any = values
    for name in parents:
        node = _child(node, name, override)
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            raise ConfigError(f"--set {override!r}: {last!r} is not one of the {len(node)} entries of that list")
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"--set {override!r}: {'.'.join(parents)} is a value, not a table")


def _child(node: Any, name: str, override: str) -> Any:
    if isinstance(node, dict):
        return node.setdefault(name, {})
    if isinstance(node, list) and name.isdigit() and int(name) < len(node):
        return node[int(name)]
    raise ConfigError(f"--set {override!r}: there is no {name!r} to go into")


def _explain(model: type[BaseModel], fault: Any) -> str:
    location = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, fault["loc"])
        hint = nearest(str(fault["loc"][-1]), known)
        return f"unknown key {location!r}{hint}" + ("" if hint else f"; known here: {', '.join(sorted(known))}")
    if fault["type"] == "missing":
        return f"{location!r} is missing"
    found = f", found {fault['input']!r}" if not isinstance(fault["input"], dict | list) else ""
    return f"{location or 'the file'!r}: {fault['msg'].removeprefix('Value error, ')}{found}"


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> set[str]:
    """Return the field names that would have been accepted where `location` ends."""
    models = {model}
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        inner = {sub for m in models if part in m.model_fields for sub in _models_in(m.model_fields[part].annotation)}
        # The tag of a union ("llm") names no field: stay, with the model of this kind.
        models = inner or {m for m in models if _is_of_kind(m, part)} or models
    return {name for m in models for name in m.model_fields}


def _is_of_kind(model: type[BaseModel], tag: str) -> bool:
    return "kind" in model.model_fields and tag in typing.get_args(model.model_fields["kind"].annotation)


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if typing.get_origin(annotation) is None and isinstance(annotation, type):
        if issubclass(annotation, Config):
            return set(annotation.variants())
        return {annotation} if issubclass(annotation, BaseModel) else set()
    return {model for inner in typing.get_args(annotation) for model in _models_in(inner)}
