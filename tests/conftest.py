"""Tiny worlds: 12 users, 30 items, two-layer language models 16 wide, all made here."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hllm.api import Recommender
from hllm.batches.batch import SequenceBatch, sequence_batch
from hllm.batches.negatives import Negatives
from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.schema import DataConfig
from hllm.data.tokens import TokenCache
from hllm.models.tiers import History
from hllm.recipe.recipe import Recipe

NUM_USERS, NUM_ITEMS = 12, 30
WORDS = ["red", "green", "blue", "old", "new", "big", "small", "shoe", "hat", "coat", "title", "kind", ":", "summer"]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "[CLS]", "[SEP]"]


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    """The script that writes pages of the documentation; it keeps the plans of the recipes it has made."""
    spec = importlib.util.spec_from_file_location("generate", Path(__file__).parent.parent / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def quick_disk() -> Iterator[None]:
    """Leave out os.fsync, which takes 10 ms a file: no test cuts the power. tests/test_artifacts.py proves the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def clean_checkout() -> Iterator[None]:
    """Tests write to tmp_path: nothing new may lie in the working folder after a test."""
    folder = Path.cwd()
    before = set(os.listdir(folder))
    yield
    new = {name for name in os.listdir(folder) if not name.startswith(".")} - before
    assert not new, f"the test has written {sorted(new)} to {folder}, expected below tmp_path"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Write the row of docs/reliability.md that a test belongs to into its record: `pytest.mark.reliability(row)`."""
    for item in items:
        if mark := item.get_closest_marker("reliability"):
            item.user_properties.append(("row", mark.args[0]))


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Say how many trials a test marked `reliability` has made: `trials(100)`; without it, it counts as one."""
    return lambda number: request.node.user_properties.append(("trials", number))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def items() -> pl.DataFrame:
    """Ids "i0" … "i29"; titles of two words; every title distinct by its number of repeated words."""
    words = WORDS[:10]
    titles = [" ".join([words[n % 10], words[(n // 3) % 10], *["old"] * (n // 10)]) for n in range(NUM_ITEMS)]
    return pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(NUM_ITEMS)], "title": titles, "kind": ["hat", "coat", "shoe"] * 10}
    )


@pytest.fixture(scope="session")
def interactions() -> pl.DataFrame:
    """Each user walks round the catalogue, so that the next item can be learnt; lengths 6 to 17."""
    rows = [
        {"user_id": f"u{u}", "item_id": f"i{(3 * u + step) % 25}", "timestamp": 100 * step + u}
        for u in range(NUM_USERS)
        for step in range(6 + u)
    ]
    return pl.DataFrame(rows)


@pytest.fixture(scope="session")
def dataset(interactions: pl.DataFrame, items: pl.DataFrame) -> Dataset:
    return build_dataset(interactions, items, DataConfig())


def _tokenizer(wrapped: bool) -> PreTrainedTokenizerFast:
    vocabulary = {word: n for n, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if wrapped:
        pair = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
        tokenizer.post_processor = processors.BertProcessing(pair[1], pair[0])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        **({"cls_token": "[CLS]", "sep_token": "[SEP]"} if wrapped else {}),
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder's directory: 2 layers, width 16, grouped queries."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(wrapped=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder's directory: 2 layers, width 24, which differs from the decoder's."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=24, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, initializer_range=0.2, pad_token_id=3,
        architectures=["BertModel"],
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    _tokenizer(wrapped=True).save_pretrained(folder)
    return folder


def batch_of(windows: list[np.ndarray], shared: list[int], tokens: TokenCache | None = None) -> SequenceBatch:
    """A batch of windows whose times are their positions, with these negatives for all."""
    negatives = Negatives(np.array(shared, dtype=np.int64), None, np.ones(100))
    times = [np.arange(len(window)) for window in windows]
    return sequence_batch(
        windows, negatives, tokens,
        users=np.arange(len(windows)), times=times, actions=[np.zeros_like(t) for t in times],
    )  # fmt: skip


def history_of(embeddings: torch.Tensor, mask: torch.Tensor | None = None) -> History:
    """Histories of these item embeddings, one item a second; all positions real unless `mask` says otherwise."""
    mask = torch.ones(embeddings.shape[:2], dtype=torch.bool) if mask is None else mask
    return History(embeddings, mask, torch.arange(mask.shape[1]).expand(mask.shape))


def recipe_values(item_backbone: Path, user_backbone: Path) -> dict:
    """A two-stage recipe as TOML would give it; tests change what they need."""
    return {
        "about": "a tiny world",
        "precision": "fp32",
        "data": {},
        "model": {
            "max_history": 8,
            "item": {"kind": "llm", "backbone": str(item_backbone), "pooling": "mean", "whiten": True},
            "user": {"kind": "llm", "backbone": str(user_backbone)},
        },
        "stages": [
            {"name": "user", "item_tier": "frozen", "epochs": 2, "batch_size": 8, "learning_rate": 1e-2,
             "objective": {"kind": "next-item", "negatives": {"kind": "catalogue"}}},
            {"name": "both", "epochs": 2, "batch_size": 8, "learning_rate": 3e-3,
             "objective": {"kind": "next-item", "negatives": {"num_sampled": 8}}},
        ],
        "evaluation": {"bootstrap_samples": 50},
    }  # fmt: skip


@pytest.fixture(scope="session")
def recipe(tiny_llama: Path, tiny_bert: Path) -> Recipe:
    return Recipe.from_dict(recipe_values(tiny_bert, tiny_llama), where="test")


@pytest.fixture(scope="session")
def id_recipe(tiny_llama: Path) -> Recipe:
    values = recipe_values(tiny_llama, tiny_llama)
    values["model"]["item"] = {"kind": "id"}
    values["model"]["user"] = {"kind": "sasrec", "dim": 16, "num_heads": 2}
    values["stages"] = [
        {"epochs": 30, "batch_size": 8, "learning_rate": 1e-2, "objective": {"negatives": {"kind": "catalogue"}}},
    ]
    return Recipe.from_dict(values, where="test")


@pytest.fixture(scope="session")
def trained_folder(
    tmp_path_factory: pytest.TempPathFactory, interactions: pl.DataFrame, items: pl.DataFrame, recipe: Recipe
) -> Path:
    """A finished run. Tests that change something copy it first."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    Recommender.fit(interactions, items, recipe=recipe, out=folder)
    return folder


@pytest.fixture
def trained(trained_folder: Path) -> Recommender:
    return Recommender.load(trained_folder)


@pytest.fixture
def read_manifest():
    return lambda path: json.loads((path / "manifest.json").read_text())


@pytest.fixture
def reseal():
    """A forger's tool: change a manifest, hash every file anew, and seal it all."""

    def reseal(path: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        del manifest["sha256"]
        for name in manifest["files"]:
            if (path / name).is_file():
                manifest["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
        change(manifest)
        text = json.dumps(manifest, indent=1)
        seal = hashlib.sha256(text.encode()).hexdigest()
        (path / "manifest.json").write_text(text.removesuffix("\n}") + f',\n "sha256": "{seal}"\n}}')

    return reseal
