"""The table of parts is whole, and nothing outside a part's own file tests its kind or its class."""

import ast
import dataclasses
import importlib
import inspect
import typing
from pathlib import Path

import pytest

import hllm
from hllm.batches.negatives import NegativesConfig
from hllm.config import Config
from hllm.data.split import SplitConfig
from hllm.errors import ConfigError
from hllm.losses.contrastive import LossConfig
from hllm.models.build import ModelConfig
from hllm.parts import PARTS, Spec, spec

SOURCE = Path(hllm.__file__).parent
ALL = [(family, kind) for family, kinds in PARTS.items() for kind in kinds]


def home(family: str, kind: str) -> Path:
    """Return the file of a part."""
    module = PARTS[family][kind].partition(":")[0]
    return SOURCE / Path(*module.split(".")[1:]).with_suffix(".py")


@pytest.mark.parametrize(("family", "kind"), ALL)
def test_each_line_of_the_table_names_a_spec_whose_settings_have_that_kind(family, kind):
    found = spec(family, kind)
    assert isinstance(found, Spec)
    assert found.config.model_fields["kind"].default == kind
    assert found.config.family == family
    assert dataclasses.is_dataclass(found.facts)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.build = None


@pytest.mark.parametrize("family", PARTS)
def test_the_facts_of_a_family_are_of_one_class(family):
    assert len({type(spec(family, kind).facts) for kind in PARTS[family]}) <= 1


def test_reading_the_table_imports_no_part():
    module = importlib.import_module("hllm.parts")
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name for name in imported if name.startswith("hllm.")} == {"hllm.config", "hllm.errors"}


def test_settings_are_chosen_by_their_kind_and_come_back_whole():
    values = {"item": {"kind": "id", "dim": 5}, "user": {"kind": "hstu", "dim": 8, "time_bias": True}}
    config = ModelConfig.from_dict(values, where="test")
    assert type(config.user) is spec("user", "hstu").config
    assert config.user.dim == 8
    kept = config.model_dump(mode="json")
    assert kept["user"] | {"dim": 8, "time_bias": True, "kind": "hstu"} == kept["user"]
    assert ModelConfig.from_dict(kept, where="again") == config


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"kind": "sasrek"}, r"user.*there is no kind 'sasrek' \(did you mean 'sasrec'\?\); choose one of \"llm\""),
        ({"dim": 8}, r"user.*kind is missing; choose one of \"llm\", \"sasrec\""),
        ({"kind": "sasrec", "dimm": 8}, r"unknown key 'user.dimm' \(did you mean 'dim'\?\)"),
        ({"kind": "sasrec", "dim": 0}, "'user.dim': Input should be greater than or equal to 1, found 0"),
        ("sasrec", "'user': Input should be a valid dictionary"),
    ],
)
def test_a_wrong_part_is_explained(user, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict({"item": {"kind": "id"}, "user": user}, where="test")


def test_a_field_of_a_family_can_hold_the_settings_of_each_of_its_kinds():
    for family in PARTS:
        of_kinds = [spec(family, kind).config for kind in PARTS[family]]
        for config in of_kinds:
            (base,) = [c for c in config.__mro__ if getattr(c, "family", None) == family and c.variants() != (c,)]
            assert list(base.variants()) == of_kinds
            assert issubclass(base, Config)


# Nothing outside a part's own file tests its kind or its class


def classes_of_parts() -> dict[str, Path]:
    """Return the names of the classes that the files of parts define, and of tiers that wrap one, with their files."""
    wrappers = (SOURCE / "models" / "item").glob("*.py")
    files = {home(family, kind) for family, kind in ALL} | set(wrappers)
    return {
        node.name: file
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }


def class_tests(tree: ast.AST, names: set[str]) -> list[str]:
    """Return the lines that ask, by `isinstance` or `case`, whether something is of one of these classes."""
    tests = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            asked = node.args[1]
        elif isinstance(node, ast.MatchClass):
            asked = node.cls
        else:
            continue
        if names & {name.id for name in ast.walk(asked) if isinstance(name, ast.Name)}:
            tests.append(f"{node.lineno}: {ast.unparse(node)}")
    return tests


def kind_tests(tree: ast.AST, kinds: set[str]) -> list[str]:
    """Return the lines that compare a `kind` with one of these names, by an operator or by `match`."""

    def strings(nodes: list[ast.expr]) -> set[str]:
        return {
            n.value
            for node in nodes
            for n in ast.walk(node)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        }

    def reads_kind(node: ast.expr) -> bool:
        if isinstance(node, ast.Call) and node.args:  # values.get("kind"), getattr(x, "kind")
            return "kind" in strings(node.args)
        if isinstance(node, ast.Subscript):
            return strings([node.slice]) == {"kind"}
        return isinstance(node, ast.Attribute) and node.attr == "kind"

    tests = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(map(reads_kind, sides)) and kinds & strings([side for side in sides if not reads_kind(side)]):
                tests.append(f"{node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Match) and reads_kind(node.subject):
            cases = {c.value for case in node.cases for c in ast.walk(case.pattern) if isinstance(c, ast.Constant)}
            if kinds & cases:
                tests.append(f"{node.lineno}: match {ast.unparse(node.subject)}")
    return tests


def test_nobody_asks_for_the_class_of_a_part():
    homes, found = classes_of_parts(), []
    for file in sorted(SOURCE.rglob("*.py")):
        foreign = {name for name, own in homes.items() if own != file}
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(SOURCE)}:{line}" for line in class_tests(tree, foreign)]
    assert not found, "ask the facts of the part, or give it an operation"


def kinds_and_homes() -> list[tuple[str, Path]]:
    """Return the kinds of parts, of losses, negatives and splits, each with the file that may ask for it."""
    splits = typing.get_args(typing.get_args(SplitConfig)[0])
    others = [
        (kind, Path(inspect.getfile(config)))
        for config in (LossConfig, NegativesConfig, *splits)
        for kind in typing.get_args(config.model_fields["kind"].annotation)
    ]
    assert len(others) >= 5 + 2 + len(splits), "each has its kinds"
    return [(kind, home(family, kind)) for family, kind in ALL] + others


def test_nobody_asks_for_the_kind_of_a_part():
    found, homes = [], kinds_and_homes()
    for file in sorted(SOURCE.rglob("*.py")):
        foreign = {kind for kind, own in homes if own != file} - {kind for kind, own in homes if own == file}
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(SOURCE)}:{line}" for line in kind_tests(tree, foreign)]
    assert not found, "ask the facts of the part, or give it an operation"


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("isinstance(tier, DIN)", True),
        ("isinstance(tier, int | DIN)", True),
        ("isinstance(tier, UserEncoder)", False),
        ("match tier:\n    case DIN(): pass", True),
        ("tier.kind == 'din'", True),
        ("'din' != config.user.kind", True),
        ("tier.kind in ('llm', 'sasrec')", True),
        ("values.get('kind') == 'din'", True),
        ("values['kind'] == 'din'", True),
        ("match tier.kind:\n    case 'din': pass", True),
        ("split.kind == 'temporal'", True),
        ("manifest.kind != kind", False),
        ("model.user.facts.retrieves", False),
    ],
)
def test_the_scan_sees_what_it_looks_for(line, caught):
    tree = ast.parse(line)
    kinds = {kind for kind, _ in kinds_and_homes()}
    assert bool(class_tests(tree, set(classes_of_parts())) or kind_tests(tree, kinds)) == caught
