"""Layers through torch.compile: the same vectors and gradients, and nothing made anew for more layers or other lengths."""

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from torch._dynamo.utils import counters
from transformers import BertConfig, LlamaConfig

from hllm.errors import ConfigError
from hllm.models.backbone.backbone import Backbone, load_backbone
from hllm.models.backbone.compiled import compile_layers
from hllm.models.backbone.rows import PackedRow, let_read_rows

# Dynamo looks at the gradients of tensors that have none, and torch warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
CPU = torch.device("cpu")
PREFIX, NUM_LAYERS = 3, 24
_shape = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4,
    "max_position_embeddings": 40, "initializer_range": 0.2,
}  # fmt: skip
FAMILIES = {
    "decoder": LlamaConfig(**_shape, num_hidden_layers=NUM_LAYERS, num_key_value_heads=2),
    "encoder": BertConfig(**_shape, num_hidden_layers=NUM_LAYERS),
}


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    jaxtyping.config.update("jaxtyping_disable", True)  # the compiler would read its checks, too
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    jaxtyping.config.update("jaxtyping_disable", False)


def padded(backbone: Backbone, lengths: list[int], *, behind: bool) -> torch.Tensor:
    """Read texts in one batch, the last position of each."""
    vectors, beginning = drawn(backbone, max(lengths) * len(lengths))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    embeddings = vectors.view(*mask.shape, -1)
    prefix = backbone.keep(beginning) if behind else None
    return backbone.at(embeddings, mask, torch.tensor(lengths)[:, None] - 1, prefix)[:, 0]


def in_row(backbone: Backbone, lengths: list[int], *, behind: bool) -> torch.Tensor:
    """Read texts in one row, as CUDA does, with plain attention in the kernel's place."""
    vectors, beginning = drawn(backbone, sum(lengths))
    row = PackedRow.of(torch.tensor(lengths), PREFIX if behind else 0, CPU)
    return backbone.in_row(
        vectors, row, torch.tensor(lengths).cumsum(0) - 1, backbone.keep(beginning) if behind else None
    )


def drawn(backbone: Backbone, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    beginning = torch.randn(1, PREFIX, backbone.input_width, generator=draw)
    return torch.randn(number, backbone.input_width, generator=draw), beginning


def with_gradients(backbone: Backbone, vectors: torch.Tensor) -> list[torch.Tensor]:
    backbone.zero_grad()
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    return [vectors.detach(), *(p.grad.clone() for p in backbone.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("family", "read", "behind"), [("decoder", padded, True), ("decoder", in_row, True), ("encoder", padded, False)]
)
def test_vectors_and_gradients_stay_and_neither_lengths_nor_layers_make_more_graphs(
    family: str, read: Callable[..., torch.Tensor], behind: bool
) -> None:
    torch.manual_seed(0)
    backbone = load_backbone(FAMILIES[family].to_dict(), num_layers=None, pretrained=False)
    if read is in_row:
        assert let_read_rows(backbone.network, backbone.input_width)
    names = list(backbone.state_dict())
    texts = [[4, 7, 2], [5, 3, 6, 2], [9, 8], [12, 2, 3, 4, 5]]
    expected = [with_gradients(backbone, read(backbone, lengths, behind=behind)) for lengths in texts]
    compile_layers(backbone, CPU, backend="eager")
    assert list(backbone.state_dict()) == names
    counters.clear()
    graphs = []
    for lengths, plain in zip(texts, expected, strict=True):
        found = with_gradients(backbone, read(backbone, lengths, behind=behind))
        for ours, theirs in zip(found, plain, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[-1] < NUM_LAYERS
    left_out = " ".join(counters["graph_break"])
    assert ("LayerCache.update" in left_out) == behind
    assert ("attend" in left_out) == (read is in_row), "also where another model was compiled before"
    assert graphs == [graphs[0]] * len(texts), "those of the first lengths serve all"


def test_where_torch_cannot_compile_the_recipe_is_told() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand more")

    with pytest.raises(ConfigError, match=r"compile = true, but .*No working C\+\+ compiler found.*leave compile out"):
        compile_layers(torch.nn.Identity(), CPU, backend=broken)
