"""The only door to transformers: any causal LM or bidirectional encoder as a network over embeddings.

A backbone has no LM head. Word embeddings are optional: the user tier reads item vectors, not words.
Weights come from safetensors only, nothing is downloaded, and no code from a model directory is run.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from hllm import artifacts
from hllm.data.tokens import Tokenize
from hllm.errors import CheckpointError, ConfigError

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "added_tokens.json",
)


class Backbone(nn.Module):
    """A transformer over embeddings, right-padded."""

    def __init__(self, network: nn.Module, config: Any, *, causal: bool) -> None:
        super().__init__()
        self.network: Any = network
        self.config = config
        self.causal = causal

    @property
    def width(self) -> int:
        """Return the size of its input and output vectors."""
        return int(self.config.hidden_size)

    def embed(self, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position width"]:
        """Return the word embeddings of tokens."""
        embedded: Tensor = self.network.get_input_embeddings()(tokens)
        return embedded

    def forward(
        self, embeddings: Float[Tensor, "batch position width"], mask: Bool[Tensor, "batch position"]
    ) -> Float[Tensor, "batch position width"]:
        """Return the last hidden states, after the final norm; meaningless where the mask is False.

        A causal network needs no mask: padding is on the right, where no real position can see it.
        """
        attention_mask = None if self.causal else mask.long()
        hidden: Tensor = self.network(inputs_embeds=embeddings, attention_mask=attention_mask).last_hidden_state
        return hidden

    def drop_word_embeddings(self) -> None:
        """Remove the word embeddings, for a tier that reads no words."""
        self.network.set_input_embeddings(None)


def load_backbone(path: Path, *, num_layers: int | None, pretrained: bool) -> Backbone:
    """Load the network in a Hugging Face directory in fp32, without its head.

    `num_layers` keeps only the first layers; None keeps all. `pretrained=False` takes the shape and fresh
    weights. Dropout is off, so that a cached item vector equals a live one. Raises ConfigError for a
    directory that is no such model, or fewer layers than asked; CheckpointError for missing weights.
    """
    config = _load_config(path)
    depth = int(config.num_hidden_layers)
    if num_layers is not None and not 1 <= num_layers <= depth:
        raise ConfigError(
            f"num_layers is {num_layers}, but the model in {path} has {depth} layers; choose 1 to {depth}"
        )
    config.num_hidden_layers = num_layers or depth
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "resid_pdrop",
                 "embd_pdrop", "attn_pdrop", "hidden_dropout"):  # fmt: skip
        if hasattr(config, name):
            setattr(config, name, 0.0)
    options = {"dtype": torch.float32, "attn_implementation": _attention()}
    if not pretrained:
        network = AutoModel.from_config(config, **options)
    else:
        with _quiet():
            try:
                network, report = AutoModel.from_pretrained(
                    path,
                    config=config,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                    **options,
                )
            except OSError as error:
                raise CheckpointError(f"{path} holds no safetensors weights that fit its config: {error}") from None
        missing = [name for name in report["missing_keys"] if not name.startswith("pooler")]
        if missing:
            raise CheckpointError(
                f"the weights in {path} lack {len(missing)} of the network's tensors; first: {', '.join(missing[:3])}"
            )
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # BERT's classification head over [CLS]; the tiers pool for themselves
    network.config.use_cache = False
    return Backbone(network, network.config, causal=_is_causal(config))


def save_backbone_config(backbone: Backbone, folder: Path) -> None:
    """Write the network's config, from which `load_backbone(pretrained=False)` rebuilds its shape."""
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(backbone.config).to_dict()
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")


def tokenizer_files(source: Path) -> list[str]:
    """Return the names of the tokenizer's files in a model directory; none if it has no tokenizer."""
    return [name for name in _TOKENIZER_FILES if (source / name).is_file()]


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files, so that a checkpoint can read new text without the original model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in tokenizer_files(source):
        (folder / name).write_bytes((source / name).read_bytes())


def load_tokenizer(path: Path, max_tokens: int) -> tuple[Tokenize, str]:
    """Return a function from texts to at most `max_tokens` ids each, and the fingerprint of both.

    The tokenizer's own special tokens are added as it was trained with; text that spells one, such as
    "</s>" or "[SEP]", is read as ordinary characters.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no tokenizer: {error}") from None

    def tokenize(texts: Any) -> list[list[int]]:
        encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens, split_special_tokens=True)
        ids: list[list[int]] = encoded["input_ids"]
        # A tokenizer without special tokens makes nothing of some texts (spaces, say): give the model one token.
        return [row or [tokenizer.eos_token_id or 0] for row in ids]

    hashes = [artifacts.sha256_of(path / name) for name in tokenizer_files(path)]
    return tokenize, artifacts.fingerprint([hashes, max_tokens, transformers.__version__])


def _load_config(path: Path) -> Any:
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path} is not a Hugging Face model directory: it has no config.json")
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ConfigError(f"{path}/config.json is not a config that transformers knows: {error}") from None


def _is_causal(config: Any) -> bool:
    """Models that come with a masked-LM head are bidirectional; of the others, those with an LM head are causal."""
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return False
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return True
    raise ConfigError(f"{config.model_type!r} is neither a causal language model nor a bidirectional encoder")


def _attention() -> str:
    """On a CPU, torch's fused attention is slow in its backward pass at the lengths of items and histories.

    Two AMX cores, two layers in the shape of SmolLM2, bf16 autocast: 512 × 12 tokens in 1.72 s fused and 0.97 s
    plain, 64 × 50 in 0.73 s and 0.57 s (benchmarks/precision.py).
    """
    return "sdpa" if torch.cuda.is_available() else "eager"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' report of unused weights: the head and the layers beyond num_layers are meant to be."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
