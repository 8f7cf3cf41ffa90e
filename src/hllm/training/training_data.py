"""TrainingData: the data set of a run as training reads it."""

# Proved by tests/training/test_training.py.

from dataclasses import dataclass, field
from pathlib import Path

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.data.tokens import TokenCache


@dataclass(frozen=True)
class TrainingData:
    """A data set, its split and its items' tokens."""

    dataset: Dataset
    split: Split
    tokens: TokenCache | None = None
    """None for a model that reads no text."""
    tokenizer: Path | None = None
    """The directory of the tokenizer that made the tokens; each checkpoint gets a copy."""
    backbones: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the language models that training began with, by tier; each checkpoint notes them."""
