from pathlib import Path

import pytest

from hllm.config import Config
from hllm.errors import ConfigError


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
