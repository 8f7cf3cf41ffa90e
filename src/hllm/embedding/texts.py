"""New items, known only by their text: they are read by the Item LLM of a checkpoint."""

# Proved by tests/test_api.py.

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from hllm.batches.batch import text_batch
from hllm.data.arguments import as_texts
from hllm.data.prompt import PromptConfig, render_fields, render_text
from hllm.data.tokens import Tokenize
from hllm.embedding.encode import encode_items, encode_texts
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.recommender import SequentialRecommender
from hllm.precision import Precision

ItemText = str | Mapping[str, Any]
"""A new item: free text such as "title: Alien; year: 1979", or a mapping of its fields."""


@final
@dataclass(frozen=True)
class ItemReader:
    """Reads the texts of items as the model read the catalogue's."""

    model: SequentialRecommender
    tokenize: Tokenize
    prompt: PromptConfig
    fields: tuple[str, ...]
    """The columns that the model was trained to read."""
    device: torch.device
    precision: Precision

    @classmethod
    def open(
        cls,
        model: SequentialRecommender,
        tokenizer: Path,
        prompt: PromptConfig,
        fields: tuple[str, ...],
        *,
        device: torch.device,
        precision: Precision,
    ) -> "ItemReader":
        """Load the tokenizer in the folder `tokenizer`, once."""
        return cls(
            model,
            load_tokenizer(tokenizer, prompt.max_tokens, cut_closing=prompt.cut_closing)[0],
            prompt,
            fields,
            device,
            precision,
        )

    def read(self, texts: Iterable[ItemText]) -> Float[Tensor, "text dim"]:
        """Return the embeddings of a few texts, in fp32, not normalised; ConfigError if there are none."""
        return self.read_rendered(
            [
                render_text(text, self.fields, self.prompt)
                if isinstance(text, str)
                else render_fields(text, self.fields, self.prompt)
                for text in as_texts(texts, name="texts")
            ]
        )

    def read_rendered(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Return the embeddings of a few texts as `data.prompt` renders them."""
        return encode_items(self.model, text_batch(self.tokenize(texts)), device=self.device, precision=self.precision)

    def read_many(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Return the same for many texts, a batch at a time, with progress."""
        return encode_texts(self.model, texts, self.tokenize, device=self.device, precision=self.precision)
