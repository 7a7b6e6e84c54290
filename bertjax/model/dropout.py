"""Dropout whose masks depend on nothing but a row's key, the site and the element.

The generator is Threefry-2x32 with its full 20 rounds (Salmon et al. 2011, "Parallel Random Numbers: As Easy as
1, 2, 3"), used as the counter-based function that it is: key = the row's, counter = (block of the row, site).
A row therefore drops the same elements in whatever batch, microbatch, shard or loop it is computed.

It is written in plain array operations, because these fuse and vectorise: on a CPU `jax.random.bernoulli` runs its
rounds as a loop over arrays in memory and takes over ten times as long. Each block of 64 bits decides about four
elements, 16 bits each.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.hashing import element_index

_BITS = 16
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def threefry_2x32(
    key: tuple[jax.Array, jax.Array], counter: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32-20 of uint32 arrays, elementwise with broadcasting."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    a, b = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            a = a + b
            b = ((b << np.uint32(rotation)) | (b >> np.uint32(32 - rotation))) ^ a
        a = a + schedule[(group + 1) % 3]
        b = b + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return a, b


def keep_mask(keys: jax.Array, site: jax.Array | int, shape: tuple[int, ...], threshold: int) -> jax.Array:
    """Which elements stay: bool [batch, *shape], each False with probability threshold / 65536.

    `keys` are typed threefry keys [batch], one a row; `site` numbers the places where a model drops (it may be
    traced, as a layer's number is in a scan).
    """
    words = jax.random.key_data(keys)
    if words.shape[-1] != 2:
        raise TypeError(f"dropout keys must be threefry2x32 keys, not {jax.random.key_impl(keys)}")
    batch = keys.shape[0]
    # Four quarters of the last axis share the blocks; the other axes stay whole, so that they can be sharded.
    quarter = -(-shape[-1] // 4)
    blocks = (batch, *shape[:-1], quarter)
    key0, key1 = (words[:, i].reshape(batch, *[1] * len(shape)) for i in range(2))
    a, b = threefry_2x32((key0, key1), (element_index(blocks[1:]), jnp.uint32(site)))
    # Joined as words and only then split: XLA computes the blocks anew for each part of a concatenation.
    halves = jax.lax.bitcast_convert_type(jnp.concatenate([a, b], axis=-1), jnp.uint16)
    keep = halves.reshape(batch, *shape[:-1], 4 * quarter)[..., : shape[-1]] >= np.uint16(threshold)
    # A TPU's compiler would run the rounds again within each product that reads the mask: BERT-Large with 128 × 128 on
    # one v5e chip then needs 16.03 instead of 15.74 GiB, and does not fit.
    return jax.lax.platform_dependent(keep, tpu=jax.lax.optimization_barrier, default=lambda mask: mask)


@dataclasses.dataclass(frozen=True)
class Dropout:
    """The dropout of one site, with the rows' keys.

    It zeroes a share `rate` of the elements and scales the others up; without keys it does nothing. The rate is rounded
    to a multiple of 2^-16, and the scale is one over the share that is really kept, so that the expectation is exactly
    the input.
    """

    rate: float = 0.0
    keys: jax.Array | None = None
    site: jax.Array | int = 0

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` [batch, …] → like it."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"a dropout rate lies in [0, 1), not {self.rate}")
        threshold = round(self.rate * 2**_BITS)
        if self.keys is None or threshold == 0:
            return x
        keep = (2**_BITS - threshold) / 2**_BITS
        mask = keep_mask(self.keys, self.site, x.shape[1:], threshold)
        # A product, not a choice: the latter, computed again for a backward pass, crashes libtpu 0.0.42 at some sizes.
        return x * (mask.astype(x.dtype) * jnp.asarray(1 / keep, x.dtype))
