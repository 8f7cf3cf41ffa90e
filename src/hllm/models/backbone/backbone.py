"""The door to transformers: any causal LM or bidirectional encoder as a network over embeddings.

A backbone has no LM head. Word embeddings are optional: the user tier reads item vectors, not words.
Weights come from safetensors only, nothing is downloaded, and no code from a model directory is run.
"""

import copy
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING
from transformers.pytorch_utils import Conv1D

from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.configs import cut, load_config
from hllm.models.backbone.facts import BackboneFacts
from hllm.models.backbone.key_values import KeysAndValues, behind, can_read_behind, keep, read_suffixes
from hllm.models.backbone.last_layer import end_early, let_end_early, only_at
from hllm.models.backbone.opening import open_network
from hllm.models.backbone.packs import can_read_packed, read_packed
from hllm.models.backbone.positions import longest_sequence, name_of_the_first, positions_from_the_end
from hllm.models.backbone.rms_norm import speed_up_norms
from hllm.models.backbone.rows import PackedRow, kernel_agrees, let_read_rows, read_row, read_rows


class Backbone(nn.Module):
    """A transformer over embeddings, right-padded.

    Whatever enters, words, [ITEM] vectors or item vectors, enters at one place: where the network adds its positions
    or runs its first layer. Gemma multiplies its words by the root of its width before that place; `embed` does so.
    """

    def __init__(self, network: Any, config: Any) -> None:
        super().__init__()
        self.network: Any = network.eval()
        self.config = config
        words = self.network.get_input_embeddings()
        self.input_width = int(words.embedding_dim)
        """Size of the vectors that enter; ALBERT's and ELECTRA's differ from those that leave."""
        self.word_scale = float(getattr(words, "scalar_embed_scale", 1.0))
        """`embed` multiplies words by it."""
        self.max_positions = longest_sequence(network)
        """The longest sequence it can read; None if it computes its positions and so has no bound."""
        self.end: int | None = None
        """Length to which `end_at` has set all sequences; None: they begin at position 0."""
        self.first_position = 0  # by the network's own name for it
        self.compiled = False
        """Whether torch compiles the layers; see `compiled.py`."""
        self.facts = _facts_of_type(network)
        """Abilities of the network. Until `probe` or `use` they are those of its type, and it is the stock network."""

    @torch.no_grad()
    def probe(self, *, fast: bool = True) -> None:
        """Try what the network can do, once it has weights, and use what makes it fast; an outline is not tried.

        With `fast` = False it stays the stock network.
        """
        network, width = self.network, self.input_width
        if next(network.parameters()).is_meta:
            return
        if fast:
            speed_up_norms(network)
        self.facts = _probe(network, width)
        if fast:
            causal = self.facts.causal
            self.facts = replace(
                self.facts,
                fast=True,
                ends_early=let_end_early(network, self._run_whole, width),
                reads_behind=causal and can_read_behind(network, width),
                packs=causal and can_read_packed(network, width),
                rows=let_read_rows(network, width) if causal and torch.cuda.is_available() else None,
            )

    def use(self, facts: BackboneFacts) -> None:
        """Take over what `probe` found in a network of the same weights, and use what makes it fast."""
        self.facts = facts
        if not facts.fast or next(self.network.parameters()).is_meta:
            return
        speed_up_norms(self.network)
        if facts.ends_early:
            end_early(self.network)
        if facts.causal and torch.cuda.is_available():
            if facts.rows is None:
                self.facts = replace(facts, rows=let_read_rows(self.network, self.input_width))
            elif facts.rows:
                read_rows(self.network)

    @property
    def width(self) -> int:
        """Return the size of the network's states."""
        return self.facts.width

    @property
    def causal(self) -> bool:
        """Return whether a position sees nothing behind it."""
        return self.facts.causal

    @property
    def reads_behind(self) -> bool:
        """Return whether texts with the same beginning can share what is computed of it."""
        return self.facts.reads_behind and self.end is None

    def embed(self, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position input"]:
        """Return the word embeddings of tokens."""
        embedded: Tensor = self.network.get_input_embeddings()(tokens)
        return embedded

    def forward(
        self, embeddings: Float[Tensor, "batch position input"], mask: Bool[Tensor, "batch position"]
    ) -> Float[Tensor, "batch position width"]:
        """Return the last hidden states, after the final norm; meaningless where the mask is False.

        A causal network needs no mask: padding is on the right, where no real position can see it.
        """
        if self.packs(embeddings):
            states = read_packed(self.network, embeddings, mask)
            if states is not None:
                return states
        if self.reads_rows(embeddings.device):  # where nobody looks at a mask or positions
            row = PackedRow.of(torch.full(mask.shape[:1], mask.shape[1]), 0, embeddings.device)
            return read_row(self.network, embeddings.flatten(0, 1), row).view(*mask.shape, -1)
        return self._run(embeddings, mask)

    def packs(self, embeddings: Float[Tensor, "batch position input"]) -> bool:
        """Return whether sequences of all lengths may come together: several short ones are then read as one row."""
        return self.facts.packs and embeddings.device.type == "cpu" and self.end is None

    def _run_whole(self, embeddings: Tensor) -> Tensor:
        return self._run(embeddings, torch.ones(embeddings.shape[:2], dtype=torch.bool))

    def _run(self, embeddings: Tensor, mask: Tensor, prefix: KeysAndValues | None = None) -> Tensor:
        attention_mask = None if self.causal else mask.long()
        past = {} if prefix is None else behind(prefix, embeddings)
        if self.end is not None:
            past = {"position_ids": self.first_position + positions_from_the_end(mask, self.end)}
        hidden: Tensor = self.network(inputs_embeds=embeddings, attention_mask=attention_mask, **past).last_hidden_state
        return hidden

    def at(
        self,
        embeddings: Float[Tensor, "batch position input"],
        mask: Bool[Tensor, "batch position"],
        positions: Int[Tensor, "batch chosen"],
        prefix: KeysAndValues | None = None,
    ) -> Float[Tensor, "batch chosen width"]:
        """Return what `forward` does, at some positions of each sequence.

        In a pre-norm decoder the last layer's feed-forward net then reads these positions alone: it is three quarters
        of a layer, and of a few layers a good part. `prefix` is what all sequences begin with, see `keep`; they are
        given without it, and so are the positions.
        """
        if self.facts.ends_early:
            with only_at(positions):
                return self._run(embeddings, mask, prefix)
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        return self._run(embeddings, mask, prefix)[rows, positions]

    def reads_rows(self, device: torch.device) -> bool:
        """Return whether `in_row` is there: on CUDA, in half precision, where torch's kernel is seen to be right."""
        shapes = (
            self.facts.rows
            if self.end is None and device.type == "cuda" and torch.is_autocast_enabled("cuda")
            else None
        )
        return bool(shapes) and all(
            kernel_agrees(heads, torch.get_autocast_dtype("cuda"), device) for heads in shapes or ()
        )

    def in_row(
        self,
        embeddings: Float[Tensor, "position input"],
        row: PackedRow,
        positions: Int[Tensor, " chosen"],
        prefix: KeysAndValues | None = None,
    ) -> Float[Tensor, "chosen width"]:
        """Return what `at` does, of sequences that stand one behind another without padding."""
        if self.facts.ends_early:
            with only_at(positions[None]):
                return read_row(self.network, embeddings, row, prefix)[0]
        return read_row(self.network, embeddings, row, prefix)[0, positions]

    def keep(self, embeddings: Float[Tensor, "1 prefix input"]) -> KeysAndValues:
        """Return the keys and values of a text's beginning, for `at` to read other texts behind it."""
        # A few positions, once a batch: not worth what compiling them takes.
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            return keep(self.network, embeddings)

    def with_suffixes(
        self,
        embeddings: Float[Tensor, "batch position input"],
        suffixes: Float[Tensor, "batch suffix input"],
        anchors: Int[Tensor, "batch suffix"],
    ) -> tuple[Float[Tensor, "batch position width"], Float[Tensor, "batch suffix width"]]:
        """Return the last hidden states of a causal network at all positions, and at suffixes that stand by themselves.

        See `SuffixEncoder`. The sequences are read once; the suffixes, 256 at a time, read the keys and values kept
        of them.
        """
        return read_suffixes(self.network, embeddings, suffixes, anchors)

    @torch.no_grad()
    def require_suffixes(self, max_history: int) -> None:
        """Raise ConfigError unless `with_suffixes` gives what the network gives for whole sequences.

        Seen on an example, as the causality is: a network may count its positions by itself, or keep a state.
        """
        window = getattr(self.config, "sliding_window", None)
        if window is not None and max_history + 1 > window:
            raise ConfigError(
                f"{self.config.model_type!r} looks back {window} positions in some layers, and candidates are read "
                f"behind model.max_history = {max_history}: lower it below {window}"
            )
        if next(self.network.parameters()).is_meta:
            return
        vectors = torch.randn(1, 3, self.input_width, generator=torch.Generator().manual_seed(0))
        try:
            _, states = self.with_suffixes(vectors[:, :2], vectors[:, 2:].expand(-1, 2, -1), torch.tensor([[0, 1]]))
            short = self.network(inputs_embeds=vectors[:, [0, 2]]).last_hidden_state[:, -1]
            whole = self.network(inputs_embeds=vectors).last_hidden_state[:, -1]
            agree = torch.allclose(states[0], torch.cat([short, whole]), rtol=0, atol=1e-3 * float(whole.abs().max()))
        except (TypeError, ValueError, RuntimeError, AttributeError):
            agree = False
        if not agree:
            raise ConfigError(
                f"{self.config.model_type!r} cannot read candidates behind the keys and values of a history: choose "
                "another decoder for model.user, such as smollm2-135m"
            )

    @torch.no_grad()
    def end_at(self, length: int) -> None:
        """Let every sequence end at the last of `length` positions; ConfigError if the network cannot be told so."""
        if not next(self.network.parameters()).is_meta:
            self.first_position = name_of_the_first(self.network, self.input_width)
        self.end = length

    def drop_word_embeddings(self) -> None:
        """Remove the word embeddings, for a tier that reads no words."""
        self.network.set_input_embeddings(None)

    def linear_maps(self) -> dict[str, nn.Module]:
        """Return the network's linear maps by name; GPT-2's are not nn.Linear and hold their weights transposed."""
        return {name: module for name, module in self.network.named_modules() if isinstance(module, nn.Linear | Conv1D)}

    def require_positions(self, needed: int, what: str) -> None:
        """Raise ConfigError if a sequence of `needed` positions is longer than the network can read."""
        if self.max_positions is not None and needed > self.max_positions:
            raise ConfigError(
                f"{what} makes sequences of {needed} positions, but {self.config.model_type!r} knows "
                f"only {self.max_positions}; lower it, or choose a model with rotary positions, such as smollm2-135m"
            )


def load_backbone(
    path: Path | dict[str, Any],
    *,
    num_layers: int | None,
    pretrained: bool,
    weights: Mapping[str, Tensor] | None = None,
    fast: bool = True,
) -> Backbone:
    """Load the network in a Hugging Face directory in fp32, without its head.

    `num_layers` keeps only the first layers; None keeps all. `pretrained=False` takes the shape and fresh weights,
    and then `path` may also be the values of a config. `weights`, by the network's names for them, become its own
    instead of fresh ones, which take tens of seconds for a billion. Dropout is off, so that a cached item vector
    equals a live one. `fast=False` leaves the stock network, whose states differ by rounding alone. Facts that are
    kept in the directory, as in a checkpoint, are used and not tried again.

    Raises ConfigError for a directory that is no such model, or fewer layers than asked; CheckpointError for missing
    weights; RuntimeError for `weights` of other shapes.
    """
    config = load_config(path)
    depth = int(config.num_hidden_layers)
    if num_layers is not None and not 1 <= num_layers <= depth:
        raise ConfigError(
            f"num_layers is {num_layers}, but the model in {path} has {depth} layers; choose 1 to {depth}"
        )
    cut(config, num_layers or depth)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    network = open_network(path, config, pretrained=pretrained, weights=weights)
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # BERT's classification head over [CLS]; the tiers pool for themselves
    network.config.use_cache = False
    backbone = Backbone(network, network.config)
    in_checkpoint = weights is not None and fast  # a model directory tells no facts
    facts = BackboneFacts.load(path) if isinstance(path, Path) and in_checkpoint else None
    if facts is not None:
        backbone.use(facts)
    else:
        backbone.probe(fast=fast)
    return backbone


def save_backbone_config(backbone: Backbone, folder: Path) -> None:
    """Write the network's config, from which `load_backbone(pretrained=False)` rebuilds its shape, and its facts."""
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(backbone.config).to_dict() | {"_name_or_path": ""}  # a path of this machine
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")
    backbone.facts.save(folder)


def _facts_of_type(network: Any) -> BackboneFacts:
    """Return what the config says, for an outline that computes nothing."""
    config: Any = network.config
    return BackboneFacts(width=int(config.hidden_size), causal=type(config) not in MODEL_FOR_MASKED_LM_MAPPING)


def _probe(network: nn.Module, input_width: int) -> BackboneFacts:
    """Return the width of the network's states, and whether it is causal: a position sees nothing behind it.

    Seen on two positions rather than read from the config: some decoders are made bidirectional by a switch of
    their own (EmbeddingGemma, GTE-Qwen2, XLNet), and a User LLM that sees ahead would be shown what it predicts.
    """
    first, second, other = torch.randn(3, input_width, generator=torch.Generator().manual_seed(0))
    pairs = torch.stack([torch.stack([first, second]), torch.stack([first, other])])
    try:
        one, two = network(inputs_embeds=pairs).last_hidden_state[:, 0]
    except Exception as error:  # a config whose values do not fit together fails in many ways
        raise ConfigError(f"a model with this config cannot be run: {type(error).__name__}: {error}") from None
    if not (one.isfinite().all() and two.isfinite().all()):
        raise CheckpointError(
            "the model's states are not finite numbers: its weights hold NaN or infinity, or its config has a value "
            "that no model has; fetch the model again"
        )
    causal = bool((one - two).abs().max() <= 1e-5 * one.abs().max())  # mixtures of experts round differently
    return BackboneFacts(width=len(one), causal=causal)
