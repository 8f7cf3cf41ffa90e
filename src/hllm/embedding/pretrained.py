"""Make item vectors by a pre-trained text encoder as it is, once; they are kept beside the downloads."""

import warnings
from pathlib import Path

from hllm import artifacts
from hllm.data.dataset import Dataset
from hllm.data.prompt import PromptConfig, render
from hllm.data.tokens import token_cache
from hllm.embedding.encode import encode_catalogue
from hllm.embedding.table import ItemEmbeddingTable, save_items
from hllm.errors import CheckpointError, HllmWarning
from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.directory import weight_names
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.item.text import TextItemEncoder
from hllm.precision import choose_device
from hllm.sources.language_models import resolve_backbone


def pretrained_table(
    dataset: Dataset, backbone: str, *, prompt: PromptConfig | None = None, base: Path | None = None
) -> ItemEmbeddingTable:
    """Return the mean over the tokens of each item's text, in fp32, as the encoder gives them without any training.

    `backbone` is a model's name or directory, relative ones from `base` (the working folder). The text is that of
    `prompt`, by default the fields' values without their names. The vectors are kept in $HLLM_HOME/vectors and read
    from there when model and texts are the same. Raises ConfigError for a model that is not at hand.
    """
    prompt = prompt or PromptConfig(field_names=False)
    path = resolve_backbone(backbone, base or Path.cwd())
    tokenize, tokenizer = load_tokenizer(path, prompt.max_tokens, cut_closing=prompt.cut_closing)
    texts = render(dataset.items, dataset.text_cols, prompt)
    weights = [(name, artifacts.sha256_of(path / name)) for name in weight_names(path)]
    source = artifacts.fingerprint([texts, tokenizer, weights, "mean"])
    folder = artifacts.home() / "vectors" / f"{path.name}-{source[:16]}"
    if (folder / "table").is_dir():
        try:
            return ItemEmbeddingTable.load(folder / "table", checkpoint=source)
        except CheckpointError as error:
            warnings.warn(f"{error}. They are made again", HllmWarning, stacklevel=2)
    tokens = token_cache(folder / "tokens", texts, tokenize, tokenizer=tokenizer)
    network = load_backbone(path, num_layers=None, pretrained=True)
    encoder = TextItemEncoder(network, network.width, pooling="mean", whiten=False, train_word_embeddings=False)
    device = choose_device()
    vectors = encode_catalogue(
        encoder.to(device).eval().pool, dataset.num_items, tokens, device=device, precision="fp32"
    )
    save_items(folder / "table", dataset.item_ids, vectors, checkpoint=source)
    return ItemEmbeddingTable.load(folder / "table", checkpoint=source)
