import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hllm.config import Config
from hllm.errors import ConfigError
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig


class Inner(Config):
    learning_rate: float = 0.1
    names: tuple[str, ...] = ()


class Outer(Config):
    inner: Inner = Inner()
    stages: tuple[Inner, ...] = ()
    count: int = 1


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_a_file_and_its_overrides_become_one_config(tmp_path):
    path = write(tmp_path, "count = 2\n[[stages]]\nlearning_rate = 0.5\n")
    config = Outer.from_toml(path, ["inner.learning_rate=1e-3", "stages.0.names=['a', 'b']", "count=5"])
    assert config == Outer(
        inner=Inner(learning_rate=1e-3), stages=(Inner(learning_rate=0.5, names=("a", "b")),), count=5
    )


def test_an_override_that_is_not_toml_is_a_string(tmp_path):
    class Named(Config):
        path: str

    assert Named.from_toml(write(tmp_path, "path = 'x'"), ["path=some/dir"]).path == "some/dir"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[inner]\nlearning_rat = 1.0", r"unknown key 'inner\.learning_rat' \(did you mean 'learning_rate'\?\)"),
        ("[[stages]]\nlearnin_rate = 1.0", r"unknown key 'stages\.0\.learnin_rate' \(did you mean 'learning_rate'\?\)"),
        ("zzz = 1", r"unknown key 'zzz'; known here: count, inner, stages"),
        ("count = 'many'", r"'count': .*integer.*found 'many'"),
        ("count = ", r"is not valid TOML"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        Outer.from_toml(write(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("count", "not of the form"),
        ("stages.3.learning_rate=1", "no '3' to go into"),
        ("count.x=1", "is a value, not a table"),
    ],
)
def test_a_wrong_override_is_explained(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        Outer.from_toml(write(tmp_path, "count = 1\n[[stages]]\n"), [override])


def test_a_file_extends_another(tmp_path):
    """Tables are merged, one stage is changed in place, other lists are replaced, overrides come last."""
    (tmp_path / "base.toml").write_text(
        "count = 7\n[inner]\nlearning_rate = 0.3\nnames = ['a', 'b']\n"
        "[[stages]]\nlearning_rate = 0.1\nnames = ['c']\n[[stages]]\n"
    )
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "middle.toml").write_text("extends = '../base.toml'\n[inner]\nnames = ['z']\n")
    path = write(tmp_path, "extends = 'below/middle.toml'\n[stages.0]\nlearning_rate = 0.5\n")
    assert Outer.from_toml(path, ["count=8"]) == Outer(
        inner=Inner(learning_rate=0.3, names=("z",)),
        stages=(Inner(learning_rate=0.5, names=("c",)), Inner()),
        count=8,
    )
    replaced = write(tmp_path, "extends = 'base.toml'\n[[stages]]\nlearning_rate = 0.9\n")
    assert Outer.from_toml(replaced).stages == (Inner(learning_rate=0.9),)


def test_a_table_of_another_kind_starts_afresh(tmp_path):
    class Part(Config):
        kind: str
        width: int = 1

    class Whole(Config):
        part: Part

    (tmp_path / "base.toml").write_text("[part]\nkind = 'big'\nwidth = 9\n")
    same = write(tmp_path, "extends = 'base.toml'\n[part]\nkind = 'big'\n")
    assert Whole.from_toml(same).part == Part(kind="big", width=9)
    other = write(tmp_path, "extends = 'base.toml'\n[part]\nkind = 'small'\n")
    assert Whole.from_toml(other).part == Part(kind="small", width=1)


@pytest.mark.parametrize(
    ("base", "text", "message"),
    [
        ("", "extends = 'nothing.toml'", r"recipe\.toml extends .*nothing\.toml, which does not exist"),
        ("extends = 'recipe.toml'", "extends = 'base.toml'", r"base\.toml extends .*recipe\.toml, which extends it in"),
        ("", "extends = 'recipe.toml'", r"extends .*recipe\.toml, which extends it in turn"),
        ("count = ", "extends = 'base.toml'", r"base\.toml is not valid TOML"),
        ("[[stages]]", "extends = 'base.toml'\n[stages.1]", r"stages\.1 is not one of the 1 entries of the file"),
        ("", "extends = 'base.toml'\nzzz = 1", r"recipe\.toml: unknown key 'zzz'"),
    ],
)
def test_a_wrong_extension_is_explained(tmp_path, base, text, message):
    (tmp_path / "base.toml").write_text(base)
    with pytest.raises(ConfigError, match=message):
        Outer.from_toml(write(tmp_path, text))


def test_a_recipe_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no recipe .*nothing\.toml"):
        Outer.from_toml(tmp_path / "nothing.toml")


def test_configs_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        Inner().learning_rate = 1.0


def configs() -> list[type[Config]]:
    """Every table that a recipe may hold."""
    found, left = [], [Recipe]
    while left:
        table = left.pop()
        if table not in found:
            found.append(table)
            for field in table.model_fields.values():
                left += _tables(field.annotation)
    return found


def _tables(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return list(annotation.variants())
    return [table for inner in typing.get_args(annotation) for table in _tables(inner)]


def _choices(annotation: Any) -> list[Any]:
    """The values of a field that has few."""
    if annotation is bool:
        return [False, True]
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return []


def _others(table: type[Config], name: str) -> Iterator[Any]:
    """Values that are not a field's default; some of them may be of the wrong type, or out of bounds."""
    default = table.model_fields[name].default
    for value in (*_choices(table.model_fields[name].annotation), 3, 0.6, 1e-4, "b", ("b",), True, False):
        if value != default or type(value) is not type(default):
            yield value


def _accepted(table: type[Config], **values: Any) -> Config | str:
    """A table with these values, and with what must be given beside them; or the reason why there is none."""
    beside = {"item": {"kind": "id"}, "user": {"kind": "gru4rec"}, "backbone": "x", "fusion": "early"}
    fitting = {name: value for name, value in beside.items() if name in table.model_fields and name not in values}
    try:
        return table(**fitting, **values)
    except ValidationError as error:
        return str(error)


CONDITIONS = [(table, name) for table in configs() for name in table.effective_with]


@pytest.mark.parametrize(("table", "name"), CONDITIONS, ids=lambda value: getattr(value, "__name__", value))
def test_an_option_that_does_nothing_is_refused(table, name):
    """All pairs of a conditional option and a value of the option that it depends on."""
    other, values = table.effective_with[name]
    default = table.model_fields[other].default
    refused, taken = 0, 0
    for beside in _choices(table.model_fields[other].annotation) or [default, "categories"]:
        matters = beside in values if values else beside != default
        extra = {"beyond_accuracy": True} if other == "category_col" else {}
        for value in _others(table, name):
            found = _accepted(table, **{other: beside, name: value}, **extra)
            if isinstance(found, str):
                refused += f"{name} = " in found and "has no effect" in found
                assert not (matters and f"{name} = " in found and "has no effect" in found)
            elif getattr(found, name) != table.model_fields[name].default:
                assert matters, f"{name} = {value!r} is taken beside {other} = {beside!r}, where it does nothing"
                taken += 1
    assert taken
    assert refused


def test_every_option_that_is_for_one_kind_alone_says_so_where_it_is_checked():
    """Descriptions such as '"strides" only: …' and 'For kind = …' name a condition; each is declared."""
    said = {
        (table.__name__, name)
        for table in configs()
        for name, field in table.model_fields.items()
        if re.match(r'("[\w-]+"( and "[\w-]+")? only|For (kind|mask|pooling)\b|t of kind)', field.description or "")
    }
    declared = {(table.__name__, name) for table, name in CONDITIONS}
    assert said >= {("NegativesConfig", "exclude_own"), ("LossConfig", "cosine_threshold"), ("RankingConfig", "depth")}
    assert said <= declared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [{"start": "best"}]}, r'stages\.0\.start = "best" has no effect'),
        ({"stages": [{"objective": {"masked_share": 0.5}}]}, "unknown key 'stages.0.objective.masked_share'"),
        ({"stages": [{"objective": {"points": {}}}]}, "unknown key 'stages.0.objective.points'"),
        ({"stages": [{"item_learning_rate": 1e-3}]}, 'item_learning_rate needs model.item.kind = "llm"'),
        ({"model": {"similarity": "dot", "temperature": 0.05}}, "temperature = 0.05 has no effect beside"),
        (
            {"data": {"time_col": "", "time_unit": "ms"}},
            'time_unit and time_format have no effect beside time_col = ""',
        ),
        ({"data": {"filter": "one-pass"}}, "has no effect without min_user_interactions"),
        (
            {"stages": [{"objective": {"negatives": {"kind": "catalogue"}, "loss": {"log_q": True}}}]},
            'log_q has no effect beside negatives.kind = "catalogue"',
        ),
    ],
)
def test_options_of_two_tables_are_compared_too(change, message):
    values: dict[str, Any] = {
        "about": "x", "data": {}, "model": {"item": {"kind": "id"}, "user": {"kind": "sasrec"}}, "stages": [{}],
    }  # fmt: skip
    assert Recipe.from_dict(values, where="test")
    changed = {key: value | change.get(key, {}) if isinstance(value, dict) else value for key, value in values.items()}
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(changed | {"stages": change.get("stages", [{}])}, where="test")


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({}, "info-nce against mixed negatives (256)"),
        ({"item_tier": "frozen"}, "info-nce against mixed negatives (256), frozen items"),
        (
            {"objective": {"negatives": {"kind": "sampled", "per_position": True, "popularity_power": 0.5}}},
            "info-nce against sampled negatives (256, per_position = true, popularity_power = 0.5)",
        ),
        (
            {"objective": {"negatives": {"kind": "pooled", "exclude_own": False}, "loss": {"mask": "cosine"}}},
            'info-nce (mask = "cosine") against pooled negatives (256, exclude_own = false)',
        ),
        (
            {"objective": {"loss": {"log_q": "refined"}, "negatives": {"kind": "in-batch"}}},
            'info-nce (log_q = "refined") against in-batch negatives',
        ),
        (
            {"objective": {"loss": {"kind": "gbce", "calibration": 0.5}}},
            "gbce (calibration = 0.5) against mixed negatives (256)",
        ),
        (
            {"objective": {"kind": "masked-item", "masked_share": 0.4}},
            "masked items (masked_share = 0.4, last_share = 0.1): info-nce against mixed negatives (256)",
        ),
        ({"objective": {"kind": "ranking"}}, "labels of candidates"),
        (
            {
                "objective": {"kind": "ranking", "points": {"per_window": 3}},
                "terms": [{"kind": "next-item", "weight": 0.1}],
            },
            "labels of candidates (per_window = 3) + 0.1 × info-nce against mixed negatives (256)",
        ),
    ],
)
def test_a_stage_says_what_it_trains(stage, said):
    assert StageConfig.from_dict(stage, where="test").described == said
