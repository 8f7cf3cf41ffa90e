"""Parts are named in one table: where each kind of item tier, user tier, objective and term lives.

The table holds names only. A part's file is imported when a recipe names its kind. A new part is a file with a `SPEC`
and one line here.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import model_validator
from typing_extensions import override

from hllm.config import Config
from hllm.errors import nearest

Facts = TypeVar("Facts")

PARTS: dict[str, dict[str, str]] = {
    "item": {
        "llm": "hllm.models.item.text:SPEC",
        "id": "hllm.models.item.ids:SPEC",
    },
    "user": {
        "llm": "hllm.models.user.llm:SPEC",
        "sasrec": "hllm.models.user.sasrec:SPEC",
        "bert4rec": "hllm.models.user.bert4rec:SPEC",
        "hstu": "hllm.models.user.hstu:SPEC",
        "gru4rec": "hllm.models.user.gru4rec:SPEC",
        "din": "hllm.models.user.din:SPEC",
    },
    "objective": {
        "next-item": "hllm.objectives.next_item:SPEC",
        "masked-item": "hllm.objectives.masked_item:SPEC",
        "ranking": "hllm.objectives.ranking:SPEC",
    },
    "term": {
        "next-item": "hllm.objectives.next_item:TERM",
    },
}
"""For each family, "module:name" of the Spec of each kind."""


@dataclass(frozen=True)
class Spec(Generic[Facts]):
    """All that others need to know of a part; it stands at the end of the part's file."""

    config: type["PartConfig"]
    """Its settings, with its `kind` as the default of the field `kind`."""
    build: Callable[..., Any]
    """Makes the part from its settings; the other arguments are the same for all kinds of a family."""
    facts: Facts
    """What it can do, whatever its settings; each family has a class for its facts."""


def spec(family: str, kind: str) -> Spec[Any]:
    """Return the Spec of a kind; ValueError with the nearest kind if there is none of this name."""
    kinds = PARTS[family]
    if kind not in kinds:
        known = ", ".join(f'"{name}"' for name in kinds)
        raise ValueError(f"there is no kind {kind!r}{nearest(kind, kinds)}; choose one of {known}")
    module, _, name = kinds[kind].partition(":")
    found: Spec[Any] = getattr(importlib.import_module(module), name)
    return found


class PartConfig(Config):
    """Base of the settings of all parts. A family is a subclass that names it; the settings of a kind derive from that.

    A field whose type is a family's class, as `SerializeAsAny[UserTierConfig]`, takes the settings of any of its kinds:
    `kind` says which.
    """

    family: ClassVar[str]
    """The row of `PARTS`."""
    kind: str
    """Which one of the family."""

    @model_validator(mode="wrap")
    @classmethod
    def _choose_by_kind(cls, values: Any, handler: Callable[[Any], Any]) -> Any:
        if not cls._is_family() or not isinstance(values, Mapping):
            return handler(values)
        if "kind" not in values:
            known = ", ".join(f'"{name}"' for name in PARTS[cls.family])
            raise ValueError(f"kind is missing; choose one of {known}")
        return spec(cls.family, str(values["kind"])).config.model_validate(values)

    @classmethod
    @override
    def variants(cls) -> tuple[type[Config], ...]:
        """Return the settings of every kind, if this is a family's class."""
        return tuple(spec(cls.family, kind).config for kind in PARTS[cls.family]) if cls._is_family() else (cls,)

    @classmethod
    def _is_family(cls) -> bool:
        return cls.model_fields["kind"].is_required()
