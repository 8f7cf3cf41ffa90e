import pytest
import torch

from hllm import precision
from hllm.errors import HllmWarning
from hllm.precision import fast_fp32_products, resolve_precision, take_rows


def test_products_are_in_full_precision_again_whatever_happens():
    """A setting of the whole process: left behind, it would round the scores of evaluation and serving."""
    left, right = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    exact = left @ right
    found = []
    assert torch.get_float32_matmul_precision() == "highest"

    def stopped() -> None:
        with fast_fp32_products():
            found.append(left @ right)
            assert torch.backends.cuda.matmul.fp32_precision == "tf32"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stopped()
    (inside,) = found
    assert inside.dtype == torch.float32
    assert torch.cosine_similarity(inside.flatten(), exact.flatten(), dim=0) > 0.9999
    if torch.cpu._is_amx_tile_supported():
        assert not torch.equal(inside, exact), "inside, an AMX core rounds the factors"
    assert torch.equal(left @ right, exact)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_bf16_on_a_cpu_that_has_none_is_warned_about(monkeypatch, recwarn):
    cpu = torch.device("cpu")
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: False)
    with pytest.warns(HllmWarning, match='may take many times as long as with "fp32"'):
        assert resolve_precision("bf16", cpu) == "bf16"
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: True)
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("bf16", torch.device("cuda")) == "bf16"
    assert resolve_precision("fp32", cpu) == "fp32"
    assert not recwarn.list


@pytest.mark.parametrize("shape", [(5000,), (50, 100)], ids=["list", "table"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_gradient_of_a_row_that_is_taken_often_is_the_whole_sum(dtype, shape):
    """In bf16 a sum of 5,000 gradients near 1 once stopped at 256 and some, a tenth of the truth."""
    rows = torch.zeros(shape, dtype=torch.long)
    rows.view(-1)[7] = 2
    gradient = torch.rand(*shape, 4, generator=torch.Generator().manual_seed(0)).mul(1e-2).add(5e-3).to(dtype)
    vectors = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    taken = take_rows(vectors, rows)
    assert taken.dtype == dtype
    assert torch.equal(taken, vectors[rows])
    taken.backward(gradient)
    flat = gradient.double().view(-1, 4)
    expected = torch.stack([flat.sum(0) - flat[7], torch.zeros(4), flat[7]])
    assert vectors.grad.dtype == dtype
    assert torch.allclose(vectors.grad.double(), expected, rtol=1e-2 if dtype.itemsize == 2 else 1e-5, atol=0)
