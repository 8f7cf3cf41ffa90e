"""Write the generated pages: `python docs/generate.py`.

docs/settings.md comes from the config models, docs/recipes.md from the recipes, and the map in CONTRIBUTING.md from the
packages' docstrings, in the order of the layers that pyproject.toml has for the import contracts.
"""

import ast
import functools
import inspect
import os
import re
import tempfile
import tomllib
import types
import typing
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hllm.config import Config
from hllm.jobs.planning.plan import Plan, plan_recipe
from hllm.parts import PartConfig
from hllm.recipe.recipe import Recipe
from hllm.sources.data_sets import FETCH
from hllm.sources.language_models import SOURCES

TARGET = Path(__file__).parent / "settings.md"
RECIPES_TARGET = Path(__file__).parent / "recipes.md"
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "recipes"
SOURCE = ROOT / "src" / "hllm"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
MAP_START, MAP_END = "<!-- the map: made by `python docs/generate.py` -->\n\n", "\n<!-- the end of the map -->\n"
RESULTS = FOLDER / "results.toml"
H200_FLOPS = 790e12  # a second, in bf16 products of matrices
HEAD = """# Settings of a recipe

Made by `python docs/generate.py` from the config models in the code; do not edit. Any key can be changed on the
command line: `hllm train recipe.toml --out run --set model.max_history=100`.
"""


def settings() -> str:
    """Return the page: one table for each config model that a recipe can hold."""
    parts = [HEAD]
    places: dict[type[BaseModel], dict[str, None]] = {}  # a model that stands in several places has one table
    for heading, model in _models("", "", Recipe):
        places.setdefault(model, {})[heading] = None
    for model, headings in places.items():
        heading = ", ".join(headings)
        doc = inspect.getdoc(model) or ""
        rows = [f"| `{name}` | {_default(field)} | {_meaning(field)} |" for name, field in _plain_fields(model)]
        parts.append(f"## {heading or 'Top level'}\n\n{doc}\n")
        if rows:
            parts[-1] += "\n| key | default | meaning |\n| --- | --- | --- |"
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


RECIPES_HEAD = f"""# Recipes

Made by `python docs/generate.py` from the files in `recipes/` and from `recipes/results.toml`; do not edit. A recipe
runs with `hllm train RECIPE --out RUN`; `hllm train RECIPE --dry-run` estimates it for your machine and data.

Parameters, operations and memory are estimates by the same code, from published sizes of the data, with every text as
long as `prompt.max_tokens` allows: real texts are shorter, and cheaper. Memory is that of one step on a GPU in bf16.
Hours are those of one H200 ({H200_FLOPS / 1e12:.0f} TFLOP/s in products of matrices) at {{efficiency:.0%}} of its rate.
What a recipe needs and `hllm` cannot fetch is in **bold**; a dry run says where to put it. A result is what was
measured with this code, by the command in `recipes/results.toml`; where there is none, nothing was. Protocol: each
user's last item of the test part, the full catalogue ranked without what the user had seen, ties shared, one seed, 95 %
intervals over users ([how](evaluation.md)).

The paper is HLLM, [arXiv 2409.12740](https://arxiv.org/abs/2409.12740). Its tables 13 and 14 are of data that are not
public.
"""


def recipes() -> str:
    """Return the page: one table for each folder of recipes."""
    results = tomllib.loads(RESULTS.read_text(encoding="utf-8"))
    folders: dict[str, list[str]] = {}
    efficiency = 0.0
    for path in recipe_files():
        name = path.relative_to(FOLDER).as_posix()
        plan, recipe = plan_of(path)
        efficiency = plan.efficiency
        place = "recipes" + ("" if "/" not in name else "/" + name.rpartition("/")[0])
        folders.setdefault(place, []).append(_recipe_row(name, recipe, plan, results.get(name, {}).get("metrics", "–")))
    parts = [RECIPES_HEAD.format(efficiency=efficiency)]
    for folder, rows in folders.items():
        header = "| recipe | what | needs | parameters | operations | memory | H200 hours | result |"
        parts.append(f"## {folder}\n\n{header}\n|{' --- |' * header.count(' | ')} --- |\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def contributing() -> str:
    """Return CONTRIBUTING.md with the map made anew."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    before, rest = text.split(MAP_START)
    return before + MAP_START + house_map() + MAP_END + rest.split(MAP_END)[1]


def house_map() -> str:
    """Return a table of all packages, from the top floor down, each with the first sentence of its docstring."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    floors = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = ["| package or module | what it is for |\n| --- | --- |"]
    for floor in floors:
        rows += [row for name in re.findall(r"\w+", floor) for row in _rooms(SOURCE / name)]
    return "\n".join(rows) + "\n"


def _rooms(path: Path) -> list[str]:
    """Return a package's row and those of the packages inside it, or a module's row."""
    home = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not home.exists():
        return []  # a layer that may be absent
    doc = " ".join((ast.get_docstring(ast.parse(home.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=\.)\s", doc)[0]
    inner = sorted(folder.parent for folder in path.glob("*/__init__.py"))
    name = path.relative_to(SOURCE).as_posix()
    return [f"| `{name}` | {sentence} |", *(row for folder in inner for row in _rooms(folder))]


def recipe_files() -> list[Path]:
    """Return every recipe: those in the folder itself first, then folder by folder."""
    found = [path for path in FOLDER.rglob("*.toml") if path != RESULTS]
    return sorted(found, key=lambda path: (len(path.relative_to(FOLDER).parts) > 1, path))


@functools.cache
def plan_of(path: Path) -> tuple[Plan, Recipe]:
    """Return the estimate of a recipe, the same on every machine: as if nothing had been fetched, and its settings."""
    recipe = Recipe.from_toml(path)
    with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, {"HLLM_HOME": empty}):
        return plan_recipe(recipe, path.parent, measure=False), recipe


def needs_of(recipe: Recipe) -> list[str]:
    """Return the data set and the language models that must be at hand; a User LLM from scratch need not be."""
    tiers = (recipe.model.item.language_model, recipe.model.user.language_model)
    models = [model.backbone for model in tiers if model is not None and model.needs_files]
    return list(dict.fromkeys([str(recipe.data.source), *models]))


def _recipe_row(name: str, recipe: Recipe, plan: Plan, result: str) -> str:
    needs = [name if name in FETCH | SOURCES else f"**{name}**" for name in needs_of(recipe)]
    memory = max(sum(stage.memory_bytes.values()) for stage in plan.stages)
    hours = plan.flops / (H200_FLOPS * plan.efficiency) / 3600
    cells = [
        f"[{name.rpartition('/')[2].removesuffix('.toml')}](../recipes/{name})",
        recipe.about,
        ", ".join(needs),
        f"{plan.parameters / 1e6:,.1f} M",
        _operations(plan.flops),
        f"{memory / 1e9:,.1f} GB",
        f"{hours:,.0f}" if hours >= 1 else "< 1",
        result,
    ]
    return "| " + " | ".join(cells) + " |"


def _operations(flops: float) -> str:
    if flops >= 1e20:
        return f"{flops / 1e18:,.0f} EFLOP"
    return f"{flops / 1e18:.2g} EFLOP" if flops >= 1e17 else f"{flops / 1e15:.2g} PFLOP"


def _models(path: str, heading: str, model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """Return the headings and models of `model` and of all that it can hold, in order."""
    found = [(heading, model)]
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation)
        below = f"{path}.{name}" if path else name
        place = f"[[{below}]]" if typing.get_origin(field.annotation) is tuple else f"[{below}]"
        for sub in inner:
            kind = f', kind = "{sub.model_fields["kind"].default}"' if issubclass(sub, PartConfig) else ""
            found += _models(below, place + kind, sub)
    return found


def _inner(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        if issubclass(annotation, Config):
            return list(annotation.variants())
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
    import coverage  # beside this file, as are the next
    import notebook
    import reliability

    coverage.TARGET.write_text(coverage.coverage(), encoding="utf-8")
    notebook.TARGET.write_text(notebook.notebook(), encoding="utf-8")
    reliability.TARGET.write_text(reliability.page(reliability.stored()), encoding="utf-8")
    TARGET.write_text(settings(), encoding="utf-8")
    RECIPES_TARGET.write_text(recipes(), encoding="utf-8")
    CONTRIBUTING.write_text(contributing(), encoding="utf-8")
