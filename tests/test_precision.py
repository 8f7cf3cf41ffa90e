import pytest
import torch

from hllm.precision import fast_fp32_products


def test_products_are_in_full_precision_again_whatever_happens():
    """A setting of the whole process: left behind, it would round the scores of evaluation and serving."""
    left, right = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    exact = left @ right
    found = []

    def stopped() -> None:
        with fast_fp32_products():
            found.append(left @ right)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stopped()
    (inside,) = found
    assert inside.dtype == torch.float32
    assert torch.cosine_similarity(inside.flatten(), exact.flatten(), dim=0) > 0.9999
    if torch.cpu._is_amx_tile_supported():
        assert not torch.equal(inside, exact), "inside, an AMX core rounds the factors"
    assert torch.equal(left @ right, exact)
