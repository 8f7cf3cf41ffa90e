"""The shop of the examples, trained once with tiny models under the names of the two small ones."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from hllm import artifacts
from hllm.sources.language_models import KIND

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, tiny_bert: Path) -> Path:
    """A cache in which `minilm-l6` and `smollm2-135m` are tiny: the default recipe trains in seconds."""
    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(2)
    deeper = BertConfig.from_pretrained(tiny_bert, num_hidden_layers=3)  # as many as the default recipe keeps
    with artifacts.writing(home / "models" / "minilm-l6", KIND, {}) as folder:
        BertModel(deeper).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    with artifacts.writing(home / "models" / "smollm2-135m", KIND, {}) as folder:
        for file in tiny_llama.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    return home


@pytest.fixture(scope="session")
def run_example(home: Path) -> Callable[..., dict]:
    """Run a program of `examples/` with these arguments; return its variables."""

    def run(name: str, *arguments: Path | str) -> dict:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HLLM_HOME", str(home))
            patch.setattr(sys, "argv", [name, *map(str, arguments)])
            return runpy.run_path(str(FOLDER / name), run_name="__main__")

    return run


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, run_example: Callable[..., dict]) -> Path:
    """The run that the first example makes."""
    folder = tmp_path_factory.mktemp("shop") / "run"
    run_example("fit_from_two_frames.py", folder)
    return folder
