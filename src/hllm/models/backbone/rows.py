"""Sequences one behind another in one row, without padding: each sees itself, and what all of them begin with.

On CUDA by torch's varlen kernel. `attend_by_length` says the same in plain terms, one call for all sequences of a
length: what the kernel is held to, and what a CPU does.

Source of the kernel: FlashAttention-2, arXiv:2307.08691, and its rule that the last query stands at the last key.
"""

import functools
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hllm.errors import HllmWarning
from hllm.models.backbone.key_values import KeysAndValues, LayerCache, keep

NAME = "hllm-rows"
"""The name by which transformers knows `attend`."""

_KNOWN = {"is_causal", "position_ids", "use_cache", "cache_position", "output_attentions"}
"""Arguments that a layer may give its attention without changing what it computes."""


@dataclass(frozen=True)
class PackedRow:
    """The places of sequences in a row; each has one position or more."""

    lengths: Int[Tensor, " sequence"]
    """On the host, where shapes are decided."""
    prefix: int
    """The number of positions that each is read behind; their keys and values stand before those of the row."""
    ends: Int[Tensor, " sequences_plus_one"]
    """The place where each begins, and the place where the last ends."""
    key_ends: Int[Tensor, " sequences_plus_one"]
    """The same where each has a copy of the prefix before it."""
    keys: Int[Tensor, " key"] | None
    """The keys of these copies and of the sequences; None without a prefix."""
    positions: Int[Tensor, "1 position"]
    """Of each element in its own sequence."""

    @classmethod
    def of(cls, lengths: Int[Tensor, " sequence"], prefix: int, device: torch.device) -> "PackedRow":
        """Return the row of sequences of these lengths, without waiting for the device."""
        ends = F.pad(lengths.cumsum(0), (1, 0))
        before = torch.repeat_interleave(ends[:-1], lengths)
        key_ends = ends + prefix * torch.arange(len(ends))
        keys = None
        if prefix:
            keys = torch.arange(int(key_ends[-1])) - torch.repeat_interleave(key_ends[:-1], lengths + prefix)
            keys += torch.where(keys < prefix, 0, torch.repeat_interleave(ends[:-1], lengths + prefix))
        return cls(
            lengths=lengths,
            prefix=prefix,
            ends=ends.to(torch.int32).to(device, non_blocking=True),
            key_ends=key_ends.to(torch.int32).to(device, non_blocking=True),
            keys=keys.to(device, non_blocking=True) if keys is not None else None,
            positions=(prefix + torch.arange(len(before)) - before)[None].to(device, non_blocking=True),
        )


class Heads(NamedTuple):
    """The shape of a layer's attention."""

    queries: int
    keys: int
    width: int
    window: int | None
    """The number of positions back that it looks, its own included; None: all."""


class _Thread(threading.local):
    row: PackedRow | None = None
    """The row that the network in this thread reads, while `_reading` lasts."""
    seen: set[Heads] | None = None
    """Attention that was met meanwhile, if it is asked for."""


_thread = _Thread()


@contextmanager
def _reading(row: PackedRow) -> Iterator[None]:
    _thread.row = row
    try:
        yield
    finally:
        _thread.row = None


def attend(
    module: nn.Module,
    query: Float[Tensor, "batch head position width"],
    key: Float[Tensor, "batch key_head key width"],
    value: Float[Tensor, "batch key_head key width"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "batch position head width"], None]:
    """Attend as transformers asks for each layer: by torch's fused attention, unless a row is being read.

    Raises TypeError in a row for arguments that change attention in ways unknown here, such as soft caps:
    `let_read_rows` meets it in its example, and leaves the network's texts padded.
    """
    row = _thread.row
    if row is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        options |= {} if sliding_window is None else {"sliding_window": sliding_window}
        states, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return states, None
    strange = [name for name, value in (options | {"dropout": dropout or None}).items() if value is not None]
    if strange := sorted(set(strange) - _KNOWN):
        raise TypeError(f"attention in a row takes no {', '.join(strange)}")
    heads = Heads(query.shape[1], key.shape[1], query.shape[3], sliding_window)
    if _thread.seen is not None:
        _thread.seen.add(heads)
    queries, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
    if row.keys is not None:
        keys, values = keys[row.keys], values[row.keys]
    scale = scaling if scaling is not None else heads.width**-0.5
    by = attend_by_length if query.device.type == "cpu" else attend_by_kernel
    return by(queries, keys, values, row, scale=scale, window=sliding_window)[None], None


def attend_by_kernel(
    query: Float[Tensor, "position head width"],
    key: Float[Tensor, "key key_head width"],
    value: Float[Tensor, "key key_head width"],
    row: PackedRow,
    *,
    scale: float,
    window: int | None,
) -> Float[Tensor, "position head width"]:
    """Attention in a row by torch's kernel, in the format of CUDA's autocast, or that of the values."""
    from torch.nn.attention.varlen import varlen_attn  # two seconds, which a CPU does not spend

    format_ = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else value.dtype
    longest = int(row.lengths.max())
    states = varlen_attn(
        query.to(format_),
        key.to(format_),
        value.to(format_),
        row.ends,
        row.key_ends,
        longest,
        longest + row.prefix,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(states, Tensor), "more is not asked for"
    return states


def attend_by_length(
    query: Float[Tensor, "position head width"],
    key: Float[Tensor, "key key_head width"],
    value: Float[Tensor, "key key_head width"],
    row: PackedRow,
    *,
    scale: float,
    window: int | None,
) -> Float[Tensor, "position head width"]:
    """Attention in a row, all sequences of one length at a time."""
    ends, key_ends = (F.pad((row.lengths + more).cumsum(0), (1, 0)) for more in (0, row.prefix))
    states, places = [], []
    for length in row.lengths.unique().tolist():
        sequences = (row.lengths == length).nonzero()
        at = (ends[sequences] + torch.arange(length)).to(query.device, non_blocking=True)  # (sequence, position)
        keys_at = (key_ends[sequences] + torch.arange(row.prefix + length)).to(query.device, non_blocking=True)
        back = row.prefix + torch.arange(length)[:, None] - torch.arange(row.prefix + length)
        visible = back >= 0 if window is None else (back >= 0) & (back < window)
        part = F.scaled_dot_product_attention(
            query[at].transpose(1, 2),
            key[keys_at].transpose(1, 2),
            value[keys_at].transpose(1, 2),
            attn_mask=visible.to(query.device, non_blocking=True),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        states.append(part.transpose(1, 2).flatten(0, 1))
        places.append(at.flatten())
    return torch.cat(states)[torch.cat(places).argsort()]


def read_row(
    network: nn.Module, embeddings: Float[Tensor, "position input"], row: PackedRow, prefix: KeysAndValues | None = None
) -> Float[Tensor, "1 chosen width"]:
    """Return the last hidden states of a row, at all positions or those of `only_at`, after `let_read_rows`."""
    past: dict[str, Any] = {} if prefix is None else {"past_key_values": LayerCache(prefix), "use_cache": True}
    # A mask of four axes is taken as it is: none is made of the whole row, and nobody looks at the positions for one.
    unused = torch.zeros(1, 1, 1, 1, device=embeddings.device)
    with _reading(row):
        output = network(inputs_embeds=embeddings[None], attention_mask=unused, position_ids=row.positions, **past)
    states: Tensor = output.last_hidden_state
    return states


def read_rows(network: Any) -> None:
    """Make `read_row` work in a network in which `let_read_rows` has been seen to."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    network.set_attn_implementation(NAME)


@torch.no_grad()
def let_read_rows(network: Any, width: int) -> frozenset[Heads]:
    """Make `read_row` work in a causal network over vectors of `width`; return the attention it then calls for.

    Nothing changes, and nothing is returned, where an example's states do not come out the same: attention may have
    soft caps, positions may be counted by the network itself.
    """
    if next(network.parameters()).is_meta:
        return frozenset()
    stock = network.config._attn_implementation
    lengths = torch.tensor([2, 4, 1])
    vectors, beginning = torch.randn(9, width, generator=torch.Generator().manual_seed(0)).split([7, 2])

    def whole(before: Tensor) -> Tensor:
        sequences = [torch.cat([before, part])[None] for part in vectors.split(lengths.tolist())]
        return torch.cat(
            [network(inputs_embeds=sequence).last_hidden_state[0, len(before) :] for sequence in sequences]
        )

    expected = [whole(vectors[:0]), whole(beginning)]
    shapes: set[Heads] = set()
    _thread.seen = shapes
    try:
        read_rows(network)
        prefix = keep(network, beginning[None])
        states = [
            read_row(network, vectors, PackedRow.of(lengths, 0, vectors.device))[0],
            read_row(network, vectors, PackedRow.of(lengths, 2, vectors.device), prefix)[0],
        ]
        states += [whole(vectors[:0]), whole(beginning)]
        bound = 1e-5 * float(expected[0].abs().max())
        agree = bool(shapes) and all(
            torch.allclose(a, b, rtol=0, atol=bound) for a, b in zip(states, expected * 2, strict=True)
        )
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
        agree = False
    finally:
        _thread.seen = None
    if not agree:
        network.set_attn_implementation(stock)
    return frozenset(shapes if agree else ())


@functools.cache
@torch.inference_mode(mode=False)
@torch.enable_grad()
def kernel_agrees(heads: Heads, format_: torch.dtype, device: torch.device) -> bool:
    """Return whether the kernel gives what `attend_by_length` gives, and its gradients; warn where it does not.

    Each shape, format and device is tried once, on sequences of 1 to 40 positions.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 40, 1, 33, 17])
    problem = ""
    try:
        for prefix in (0, 9):
            row = PackedRow.of(lengths, prefix, device)
            shapes = [(96, heads.queries), *[(96 + 5 * prefix, heads.keys)] * 2]
            inputs = [torch.randn(*shape, heads.width, generator=generator).to(device, format_) for shape in shapes]
            weights = torch.randn(96, heads.queries, heads.width, generator=generator).to(device)
            results = []
            for attend_by, dtype in ((attend_by_kernel, format_), (attend_by_length, torch.float32)):
                q, k, v = leaves = [part.detach().to(dtype).requires_grad_() for part in inputs]
                with torch.autocast(device.type, enabled=False):
                    states = attend_by(q, k, v, row, scale=heads.width**-0.5, window=heads.window)
                    (states.float() * weights).sum().backward()
                results.append([states.detach(), *(part.grad for part in leaves)])
            # Sums of up to forty numbers that are rounded to bf16's eight bits, or fp16's eleven.
            for kernel, plain in zip(*results, strict=True):
                deviation = float((kernel.float() - plain).abs().max() / plain.abs().max())
                if not deviation <= 0.02:
                    problem = f"it is off by {deviation:.2g} of the largest number"
    except (TypeError, ValueError, RuntimeError) as error:
        problem = str(error).partition(". ")[0]
    if problem:
        warnings.warn(
            f"torch's attention without padding does not work here for {heads} in {format_}, so texts are padded: "
            f"{problem}",
            HllmWarning,
            stacklevel=2,
        )
    return not problem
