import pytest
import torch

from hllm import precision
from hllm.errors import HllmWarning
from hllm.precision import fast_fp32_products, resolve_precision


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
