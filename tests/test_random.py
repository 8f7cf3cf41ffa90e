import hashlib

import numpy as np
import pytest

from hllm.random import fractions_of


def test_a_fraction_is_the_keyed_hash_of_an_id_over_its_range():
    key = hashlib.sha256(b"(7, 'users')").digest()
    digests = [hashlib.blake2b(name, digest_size=8, key=key).digest() for name in (b"u1", "ü".encode(), b"")]
    expected = [int.from_bytes(digest, "little") / 2**64 for digest in digests]
    assert fractions_of(["u1", "ü", ""], 7, "users") == pytest.approx(expected, abs=1e-15)


def test_fractions_depend_on_the_id_the_seed_and_the_purpose_but_not_on_the_place():
    ids = [str(number) for number in range(2000)]
    values = fractions_of(ids, 1, "users")
    assert fractions_of(ids[::-1], 1, "users")[::-1].tolist() == values.tolist()
    for other in (fractions_of(ids, 2, "users"), fractions_of(ids, 1, "items")):
        assert abs(np.corrcoef(values, other)[0, 1]) < 0.1, "more than four standard deviations"
    assert values.min() >= 0
    assert values.max() < 1
    assert np.abs(np.histogram(values, 10, (0, 1))[0] - 200).max() < 5 * np.sqrt(200 * 0.9)
    assert len(fractions_of([], 1, "users")) == 0
