"""The budgets of the house: how long files, packages and constructors may be, and where a module is proved."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import hllm

SRC = Path(hllm.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(SRC.rglob("*.py"))
MODULES = [file for file in FILES if not file.name.startswith("__")]
PACKAGES = sorted(file.parent for file in FILES if file.name == "__init__.py")

MAX_LINES, MAX_FILES, MAX_PACKAGE_LINES, MAX_ARGUMENTS = 400, 18, 3_000, 6
HEADLESS = re.compile(r"(What|How|Which|Where|Who|Whom|Those|When|Whether)\b")
PROVED = re.compile(r"^# Proved by (tests/\S+\.py(?:, tests/\S+\.py)*)\.$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(SRC.parent).as_posix()


def num_lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for file in FILES:
        yield from ((file, node) for node in ast.parse(file.read_text(encoding="utf-8")).body if is_class(node))


def is_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef)


def refuse(offenders: list[str], advice: str) -> None:
    if offenders:
        pytest.fail("\n  ".join([f"{len(offenders)} offenders:", *offenders, advice]), pytrace=False)


def test_the_house_is_where_the_tests_look():
    assert len(MODULES) > 200
    assert len(PACKAGES) > 20
    assert sum(1 for _ in classes()) > 200


def test_a_file_is_short_enough_to_be_one_concept():
    long = [f"{name_of(file)}: {num_lines(file)} lines" for file in FILES if num_lines(file) > MAX_LINES]
    refuse(long, f"A file has at most {MAX_LINES} lines: move a concept of its own into a file of its own.")


def test_a_package_has_few_files_at_its_top():
    counts = {package: sum(file.parent == package for file in MODULES) for package in PACKAGES if package.name != "cli"}
    full = [f"{name_of(package)}: {count} files" for package, count in counts.items() if count > MAX_FILES]
    refuse(full, f"A package has at most {MAX_FILES} files at its top: give those that belong together a folder.")


def test_a_package_without_folders_is_short():
    sizes = {
        package: sum(num_lines(file) for file in package.glob("*.py"))
        for package in PACKAGES
        if not any(other.parent == package for other in PACKAGES)
    }
    large = [f"{name_of(package)}: {size:,} lines" for package, size in sizes.items() if size > MAX_PACKAGE_LINES]
    refuse(large, f"A package has at most {MAX_PACKAGE_LINES:,} lines, or sub-folders: divide it.")


def test_a_constructor_takes_few_arguments():
    many = []
    for file, node in classes():
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                arguments = method.args
                count = len(arguments.posonlyargs) + len(arguments.args) - 1 + len(arguments.kwonlyargs)
                if count > MAX_ARGUMENTS:
                    many.append(f"{name_of(file)}: {node.name} takes {count}")
    refuse(many, f"A constructor takes at most {MAX_ARGUMENTS} arguments: pass the config, or a value that holds them.")


def test_a_public_class_name_occurs_once():
    places = defaultdict(list)
    for file, node in classes():
        if not node.name.startswith("_"):
            places[node.name].append(name_of(file))
    twice = [f"{name}: {', '.join(files)}" for name, files in places.items() if len(files) > 1]
    refuse(twice, "A public class name occurs once: rename all but one for what they are.")


def test_a_module_has_a_test_of_its_name_or_says_where_it_is_proved():
    unproved, missing = [], []
    for file in MODULES:
        place = file.relative_to(SRC)
        if (TESTS / place.parent / f"test_{place.name}").is_file():
            continue
        line = PROVED.search(file.read_text(encoding="utf-8"))
        if line is None:
            unproved.append(f"{name_of(file)}: tests/{place.parent.as_posix()}/test_{place.name} does not exist")
        else:
            tests = line[1].split(", ")
            missing += [f"{name_of(file)}: {test}" for test in tests if not (TESTS.parent / test).is_file()]
    refuse(unproved, 'Write that test, or a line "# Proved by tests/….py." below the docstring of the module.')
    refuse(missing, "These tests do not exist: name those that prove the module.")


def test_a_docstring_begins_with_a_sentence_that_has_a_subject():
    """ "What …" and "How …" without a subject took readers two readings."""
    headless = [
        f"{name_of(file)}: {getattr(node, 'name', 'the module')}: {text.splitlines()[0]}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node))
        if HEADLESS.match(text)
    ]
    refuse(headless, "Give the first sentence a subject and a verb, or make it an imperative.")
