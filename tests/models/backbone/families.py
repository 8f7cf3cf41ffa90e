"""Tiny models of every family that is known to work: three layers, random weights far enough from zero."""

from pathlib import Path

import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

VOCABULARY, POSITIONS = 20, 40
_ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_drawn = {"initializer_range": 0.2}
_shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": POSITIONS}
_wide = _ids | _drawn | _shape | {"intermediate_size": 32}
_grouped = _wide | {"num_key_value_heads": 2}
_gemma = _grouped | {"head_dim": 4}
# Windows shorter than the texts of the tests, so that they matter; every kind of layer among the first two.
_window = {"sliding_window": 3}
_encoder = _wide | {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}

DECODERS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_grouped),
    "qwen2": Qwen2Config(**_grouped, **_window, use_sliding_window=True, max_window_layers=1),
    "qwen3": Qwen3Config(**_gemma),
    "mistral": MistralConfig(**_grouped, **_window),
    "gemma": GemmaConfig(**_gemma),
    "gemma2": Gemma2Config(**_gemma, **_window, query_pre_attn_scalar=4, attn_logit_softcapping=0.5),
    "gemma3": Gemma3TextConfig(**_gemma, **_window, query_pre_attn_scalar=4, sliding_window_pattern=2),
    "phi3": Phi3Config(**_grouped, resid_pdrop=0.1),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=4, n_positions=POSITIONS, **_drawn,
                       bos_token_id=1, eos_token_id=2),
    "gpt-neox": GPTNeoXConfig(**_wide, hidden_dropout=0.1),
    "opt": OPTConfig(**_ids, **_shape, ffn_dim=32, word_embed_proj_dim=16, init_std=0.2, dropout=0.1, layerdrop=0.1),
    # The shape of OPT-350M, whose vectors enter and leave in half its width.
    "opt-narrow": OPTConfig(**_ids, **_shape, ffn_dim=32, word_embed_proj_dim=8, init_std=0.2, do_layer_norm_before=False),
}  # fmt: skip
ENCODERS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**_encoder),
    # As published: the padding index is 1, and positions begin behind it.
    "roberta": RobertaConfig(**_encoder | {"pad_token_id": 1}),
    "modernbert": ModernBertConfig(**_wide, local_attention=4, global_attn_every_n_layers=2, mlp_dropout=0.1,
                                   cls_token_id=1, sep_token_id=2),
    "distilbert": DistilBertConfig(vocab_size=VOCABULARY, dim=16, hidden_dim=32, n_layers=3, n_heads=4,
                                   max_position_embeddings=POSITIONS, **_drawn),
    "albert": AlbertConfig(**_encoder, embedding_size=8),
    # As EmbeddingGemma: a decoder's config with a switch that lets it read both ways.
    "embedding-gemma": Gemma3TextConfig(**_gemma, **_window, query_pre_attn_scalar=4, use_bidirectional_attention=True),
}  # fmt: skip
FAMILIES = DECODERS | ENCODERS
LEARNT_POSITIONS = {"gpt2": 40, "opt": 40, "opt-narrow": 40, "bert": 40, "roberta": 38, "distilbert": 40, "albert": 40}
"""The most positions of those with a table of them. Two of RoBERTa's rows are not positions."""


def save_family(name: str, folder: Path) -> Path:
    """Save a model of this family with random weights, as stock transformers does, and return its directory."""
    torch.manual_seed(0)
    AutoModel.from_config(FAMILIES[name]).save_pretrained(folder / name)
    return folder / name
