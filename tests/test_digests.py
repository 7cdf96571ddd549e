"""Test digests of arrays: every bit counts, and placement does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jeff import digests

KINDS = [np.float32, jnp.bfloat16, np.int8, np.bool_, np.complex64, np.uint32]


def of_kind(kind):
    return jnp.asarray(np.arange(12).reshape(3, 4) % 5).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_notices_a_changed_or_moved_element(kind):
    array = of_kind(kind)
    digest = f"sum32:{digests._summed(array)}"
    assert digests._same_array(array, digest)
    for other in (
        array.at[2, 3].set(~array[2, 3] if kind == np.bool_ else array[2, 3] + 1),
        array[:, ::-1],
        array[::-1],
        array.T,
        array.reshape(4, 3),
        array.reshape(-1),
    ):
        assert digests._same_array(other, digest) is False


def test_the_sum_by_hand():
    """In integers of Python, which do not wrap by themselves."""

    def mixed(word):
        word = ((word ^ (word >> 16)) * 0x9E3779B1) % 2**32
        return word ^ (word >> 15)

    words = [5, 2**31 + 7, 2**32 - 1]
    total = sum(mixed(w) * (2 * mixed(n) + 1) for n, w in enumerate(words)) % 2**32
    digest = f"sum32:{total:08x}-uint32(3,)"
    assert digests._same_array(jnp.array(words, jnp.uint32), digest)


def test_two_changed_signs_do_not_cancel():
    array = jnp.arange(1.0, 9.0)
    digest = f"sum32:{digests._summed(array)}"
    for other in range(1, 8):
        signs = jnp.ones(8).at[jnp.array([0, other])].set(-1)
        assert digests._same_array(array * signs, digest) is False


def test_each_flipped_bit_changes_both():
    array = np.arange(4, dtype=np.float32)
    digest, added = digests.array_digest(array), f"sum32:{digests._summed(array)}"
    for bit in range(128):
        words = array.copy().view(np.uint8)
        words[bit // 8] ^= 1 << bit % 8
        other = words.view(np.float32)
        assert digests._same_array(other, digest) is False
        assert digests._same_array(jnp.asarray(other), added) is False


def test_the_sum_does_not_depend_on_placement():
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    array = jnp.arange(16 * jax.device_count(), dtype=jnp.float32).reshape(-1, 4)
    split = jax.device_put(array, NamedSharding(mesh, PartitionSpec("data")))
    assert digests._summed(split) == digests._summed(array)
    assert digests.array_digest(split) == digests.array_digest(array)


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_and_jax_agree(kind):
    array = of_kind(kind)
    assert digests.array_digest(array) == digests.array_digest(np.asarray(array))
    strided = np.asarray(array)[:, ::2]
    assert digests._same_array(jnp.asarray(strided), digests.array_digest(strided))


def test_dtype_and_shape_count():
    zero = [
        np.zeros((2, 2), np.int8),
        np.zeros(4, np.int8),
        np.zeros(1, np.int32),
        np.zeros((0, 3)),
        np.zeros((3, 0)),
        np.float32(0),
    ]
    assert len({digests.array_digest(np.asarray(array)) for array in zero}) == len(zero)


def test_json_does_not_depend_on_the_order_of_keys():
    assert digests.json_digest({"b": (1, 2), 3: 4}) == digests.json_digest(
        {"3": 4, "b": [1, 2]}
    )
    assert digests.json_digest({"a": 1}) != digests.json_digest({"a": 2})
