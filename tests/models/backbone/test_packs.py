import numpy as np
import pytest
import torch
from transformers import LlamaModel

from hllm.models.backbone.backbone import Backbone, load_backbone
from hllm.models.backbone.packs import can_read_packed, pack, read_packed
from hllm.models.tiers import History, by_length
from hllm.models.user.llm import UserLLM
from tests.models.backbone.families import DECODERS, save_family

PACKING = [name for name in DECODERS if not name.startswith("opt")]


@pytest.fixture(params=PACKING)
def decoder(request, tmp_path) -> Backbone:
    return load_backbone(save_family(request.param, tmp_path), num_layers=None, pretrained=True)


def test_sequences_go_to_the_fullest_row_that_has_room():
    """4 opens a row of 6; 3 another; 2 fits behind 4 exactly; 2 behind 3; 1 then fills what is left there."""
    packs = pack(np.array([2, 3, 1, 4, 2]), 6)
    assert packs.num_rows == 2
    assert packs.row.tolist() == [0, 1, 1, 0, 1]
    assert packs.start.tolist() == [4, 0, 5, 0, 3]


def test_no_two_sequences_overlap_and_none_is_cut(rng):
    for width in (1, 7, 50):
        lengths = rng.integers(1, width + 1, 200)
        packs = pack(lengths, width)
        taken = np.zeros((packs.num_rows, width), dtype=int)
        for row, start, length in zip(packs.row, packs.start, lengths, strict=True):
            assert start + length <= width
            taken[row, start : start + length] += 1
        assert taken.max() == 1
        assert (taken.sum(1) > 0).all()
        if width > 1:
            assert packs.num_rows < 1.1 * lengths.sum() / width + 1


def test_packed_rows_change_neither_states_nor_gradients(decoder):
    """Windows of 3 positions, in the families that have them, end inside a sequence and reach over its beginning."""
    mask = torch.arange(8) < torch.tensor([[1], [8], [2], [4], [5], [1], [3]])
    vectors = torch.randn(7, 8, decoder.input_width, generator=torch.Generator().manual_seed(1))
    found = []
    assert decoder.packs(vectors)
    for whole in (False, True):
        decoder.zero_grad()
        entered = vectors.clone().requires_grad_()
        states = decoder._run(entered, mask) if whole else read_packed(decoder.network, entered, mask)
        kept = states[mask]
        (kept * torch.linspace(-1, 1, kept.numel()).view_as(kept)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}
        found.append((kept.detach(), gradients | {"vectors": entered.grad}))
    (packed, of_packed), (plain, of_plain) = found
    assert (packed - plain).abs().max() < 1e-5
    largest = max(float(gradient.abs().max()) for gradient in of_plain.values())
    for name, gradient in of_plain.items():
        assert torch.allclose(of_packed[name], gradient, rtol=1e-4, atol=1e-6 * largest), name


def rows_read(monkeypatch, decoder: Backbone) -> list[tuple[int, ...]]:
    """Note the shapes that the network reads."""
    shapes, read = [], decoder.network.forward

    def noted(*args, **kwargs):
        shapes.append(tuple(kwargs["inputs_embeds"].shape[:2]))
        return read(*args, **kwargs)

    monkeypatch.setattr(decoder.network, "forward", noted)
    return shapes


def test_what_saves_little_is_read_as_it_is(monkeypatch, tiny_llama):
    decoder = load_backbone(tiny_llama, num_layers=None, pretrained=True)
    shapes = rows_read(monkeypatch, decoder)
    vectors = torch.randn(10, 4, decoder.input_width)
    for lengths in ([4] * 10, [4] * 8 + [3] * 2, [4] * 6 + [2] * 4):
        decoder(vectors, torch.arange(4) < torch.tensor(lengths)[:, None])
    assert shapes == [(10, 4), (10, 4), (8, 4)]


def test_histories_of_a_batch_are_packed_and_not_grouped(monkeypatch, tiny_llama):
    """Grouped by powers of two, these would be four groups."""
    tier = UserLLM(load_backbone(tiny_llama, num_layers=None, pretrained=True))
    shapes = rows_read(monkeypatch, tier.backbone)
    lengths = torch.tensor([8, 1, 2, 3, 1, 1, 4, 2])
    mask = torch.arange(8) < lengths[:, None]
    vectors = torch.randn(8, 8, tier.dim)
    states = by_length(tier, History(vectors, mask, torch.zeros(8, 8, dtype=torch.long)), lengths)
    assert shapes == [(3, 8)]
    for row, length in enumerate(mask.sum(1)):
        alone = tier.backbone(vectors[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        assert torch.allclose(states[row, :length], alone[0], atol=1e-5)


@pytest.mark.parametrize("family", ["opt", "opt-narrow"])
def test_a_network_that_counts_positions_by_itself_is_not_packed(family, tmp_path):
    decoder = load_backbone(save_family(family, tmp_path), num_layers=None, pretrained=True)
    assert not decoder.packs(torch.zeros(1, 3, decoder.input_width))


def test_a_network_that_takes_no_positions_is_seen(tiny_llama):
    class Counts(LlamaModel):
        def forward(self, **given):
            return super().forward(**given | {"position_ids": None})

    network = load_backbone(tiny_llama, num_layers=None, pretrained=True).network
    assert can_read_packed(network, 16)
    network.__class__ = Counts
    assert not can_read_packed(network, 16)
