"""The config of a language model: read from its directory, checked, and cut to its first layers."""

# Proved by tests/models/backbone/test_backbone.py.

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from hllm.errors import ConfigError
from hllm.models.backbone.directory import CONFIG, names_in, require_settings


def load_config(path: Path | dict[str, Any]) -> Any:
    """Return the config in a model directory, or of values; ConfigError unless it is of a model of text alone."""
    if isinstance(path, dict):
        return AutoConfig.for_model(**path)
    names = names_in(path)
    if CONFIG not in names:
        raise ConfigError(f"{path} is not a Hugging Face model directory: it has no config.json")
    if "adapter_config.json" in names:  # transformers would add it in silence
        raise ConfigError(
            f"{path} holds a LoRA adapter beside its weights: make it part of them (merge_and_unload of peft, then "
            "save_pretrained), or remove adapter_config.json to take the model without it"
        )
    require_settings(path)
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a wrong value fails in as many ways as there are values
        raise ConfigError(f"{path}/config.json is not a config that transformers knows: {error}") from None
    _require_text(config, path)
    return config


def cut(config: Any, num_layers: int) -> None:
    """Keep the first layers. ConfigError where the config says more of each layer than can be cut here."""
    config.num_hidden_layers = num_layers
    if len(getattr(config, "layer_types", None) or ()) > num_layers:
        config.layer_types = config.layer_types[:num_layers]
    try:
        type(config).from_dict(config.to_dict())  # as a checkpoint will be read
    except (ValueError, StrictDataclassError) as error:
        raise ConfigError(
            f"a model of type {config.model_type!r} cannot be cut to {num_layers} layers; leave num_layers out: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from None


def _require_text(config: Any, path: Path) -> None:
    """Raise ConfigError unless this is a language model or an encoder of text alone."""
    is_text_model = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if not is_text_model or config.is_encoder_decoder or not hasattr(config, "num_hidden_layers"):
        raise ConfigError(
            f"the model in {path} is of type {config.model_type!r}, which is neither a causal language model nor a "
            "bidirectional encoder of text alone; choose a model such as smollm2-135m or minilm-l6"
        )
    if not config.num_hidden_layers >= 1:
        raise ConfigError(f"{path}/config.json says num_hidden_layers = {config.num_hidden_layers}; expected 1 or more")
