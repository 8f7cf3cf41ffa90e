import os

import numpy as np
import pytest
import torch

from hllm import artifacts
from hllm.embedding.rows import Rows, RowWriter, cosine_errors, encode_rows, new_array
from hllm.errors import StorageError


def test_int8_by_hand():
    """Steps are 2.54 / 127 = 0.02 and 1.27 / 127 = 0.01; 0.999 is 49.95 steps, and -0.013 is -1.3 steps."""
    rows = encode_rows(torch.tensor([[2.54, 0.999, -1.0], [-0.013, 1.27, 0.0], [0.0, 0.0, 0.0]]), "int8")
    assert rows.values.tolist() == [[127, 50, -50], [-1, 127, 0], [0, 0, 0]]
    assert rows.scales == pytest.approx([0.02, 0.01, 0.0])
    expected = torch.tensor([[2.54, 1.0, -1.0], [-0.01, 1.27, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(rows.vectors(), expected)


def test_the_error_of_int8_by_hand():
    """(1, 0.004) is stored as (127, round(0.508) = 1) steps of 1/127: the angle is atan 1/127 - atan 0.004."""
    rows = encode_rows(torch.tensor([[1.0, 0.004], [3.0, 0.0]]), "int8")
    angle = np.arctan(1 / 127) - np.arctan(0.004)
    assert rows.errors[0] == pytest.approx(1 - np.cos(angle), rel=1e-3)
    assert rows.cosine_error["max"] == pytest.approx(1 - np.cos(angle), rel=1e-3)
    assert rows.cosine_error["mean"] == pytest.approx((1 - np.cos(angle)) / 2, rel=1e-3)


def test_int8_is_never_off_by_more_than_half_a_step(rng):
    """|error| <= max |row| / 254 for each number, so the sine of the angle is at most sqrt(dim) / 254 · max / length."""
    vectors = torch.from_numpy(rng.standard_normal((200, 64)).astype(np.float32)) * torch.logspace(-3, 3, 200)[:, None]
    rows = encode_rows(vectors, "int8")
    half_a_step = vectors.abs().amax(1) / 254
    assert ((rows.vectors() - vectors).abs() <= half_a_step[:, None] * 1.0001).all()
    sine = np.sqrt(64) * half_a_step / vectors.norm(dim=1)
    assert (torch.from_numpy(rows.errors) <= 1 - torch.sqrt(1 - sine**2)).all()


def test_bf16_keeps_eight_bits_of_precision_and_any_size(rng):
    """bf16 has 8 significant bits: rounding to nearest is off by 2**-9 of the number at most."""
    vectors = torch.from_numpy(rng.standard_normal((50, 16)).astype(np.float32)) * torch.logspace(-20, 20, 50)[:, None]
    rows = encode_rows(vectors, "bf16")
    assert rows.values.itemsize == 2
    assert ((rows.vectors() - vectors).abs() <= vectors.abs() * 2**-8).all()
    assert (rows.errors < 1e-5).all()
    assert rows.errors.max() > 0


def test_cosine_errors_of_zeros():
    some, nothing = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)
    assert cosine_errors(nothing, nothing) == 0
    assert cosine_errors(some, nothing) == 1
    assert cosine_errors(some, 7 * some) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_rows_written_in_any_order_are_read_back(tmp_path, rng, dtype):
    vectors = torch.from_numpy(rng.standard_normal((10, 4)).astype(np.float32))
    writer = RowWriter(tmp_path, 10, 4, dtype)
    order = rng.permutation(9)
    for places in np.array_split(order, 3):
        writer.put(places, encode_rows(vectors[torch.from_numpy(places)], "fp32"))
    writer.copy(np.array([9]), writer.rows, np.array([4]))
    writer.close()
    read, expected = Rows.open(tmp_path, dtype), encode_rows(vectors[[*range(9), 4]], dtype)
    assert torch.equal(read.vectors(), expected.vectors())
    assert read.cosine_error == expected.cosine_error
    assert torch.equal(read[np.array([7, 2])].vectors(), expected.vectors()[[7, 2]])


@pytest.mark.parametrize("allocates", [True, False])
def test_a_new_array_has_its_place_on_the_disk_before_it_is_written_to(tmp_path, monkeypatch, allocates):
    """It was a sparse file, mapped: where the disk became full while it was filled, the process ended with SIGBUS."""
    if not allocates:  # as on macOS
        monkeypatch.delattr(os, "posix_fallocate")
    array = new_array(tmp_path / "x.npy", np.dtype("<f4"), (5000, 16))
    assert (tmp_path / "x.npy").stat().st_blocks * 512 >= 5000 * 16 * 4
    array[:] = np.arange(16)
    array.flush()
    assert np.array_equal(np.load(tmp_path / "x.npy"), np.tile(np.arange(16, dtype=np.float32), (5000, 1)))


@pytest.mark.reliability("disk")
def test_a_disk_that_is_full_before_the_first_row_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"the disk is full: .*x was not written, nothing half-written was left"):
        with artifacts.writing(tmp_path / "x", "thing", {}) as folder:
            RowWriter(folder, 10, 4, "fp32")
    assert list(tmp_path.iterdir()) == []
