"""Shapes outline known language models, or make them afresh, without their weights."""

# Proved by tests/models/backbone/test_backbone.py.

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A model's shape, as values of a Hugging Face config, and where its weights are published."""

    config: dict[str, Any]
    repository: str
    """On huggingface.co."""
    how: str = "with config.json, the safetensors weights and the tokenizer"
    """Files that a directory of it must hold."""


_AS_LLAMA = (
    "as a Llama model: config.json with model_type llama and the sizes of the original, and safetensors in which each "
    "W_pack is split into q_proj, k_proj and v_proj and lm_head is left out; and the tokenizer as tokenizer.json"
)
_BERT = {"model_type": "bert", "vocab_size": 30_522, "max_position_embeddings": 512}

# Sizes: the models' own config.json.
SHAPES = {
    "tinyllama-1.1b": Shape(
        {
            "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32,
            "num_key_value_heads": 4, "intermediate_size": 5632, "vocab_size": 32_000, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2048,
        },
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    ),
    "baichuan2-7b": Shape(
        {
            "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "intermediate_size": 11_008, "vocab_size": 125_696, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 4096,
        },
        "baichuan-inc/Baichuan2-7B-Base",
        _AS_LLAMA,
    ),
    "bert-base": Shape(
        _BERT | {
            "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        },
        "google-bert/bert-base-uncased",
    ),
    "bert-large": Shape(
        _BERT | {
            "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
        },
        "google-bert/bert-large-uncased",
    ),
    "minilm-l6": Shape(
        _BERT | {
            "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
            "layer_norm_eps": 1e-12,
        },
        "sentence-transformers/all-MiniLM-L6-v2",
    ),
    "smollm2-135m": Shape(
        {
            "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49_152, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 8192, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        },
        "HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}  # fmt: skip
