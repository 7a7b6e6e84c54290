"""Dropout whose masks depend only on a row's key, the site and the element's index.

The generator is Threefry-2x32 with its full 20 rounds (Salmon et al. 2011, "Parallel Random Numbers: As Easy as
1, 2, 3"), used as a counter-based function: key = the row's key, counter = (block within the row, site).
A row therefore drops the same elements in any batch, microbatch, shard or loop.

The rounds are plain array operations, which fuse and vectorize: on a CPU `jax.random.bernoulli` runs its rounds as a
loop over arrays in memory and takes over ten times as long. Each block of 64 bits decides four elements, 16 bits each.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key, UInt32

from bertjax.arrays.hashing import element_index

_BITS = 16
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def threefry_2x32(
    key: tuple[UInt32[Array, "*#words"], UInt32[Array, "*#words"]],
    counter: tuple[UInt32[Array, "*#words"], UInt32[Array, "*#words"]],
) -> tuple[UInt32[Array, "*words"], UInt32[Array, "*words"]]:
    """Returns Threefry-2x32-20 of `key` and `counter`, elementwise with broadcasting."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    a, b = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            a = a + b
            b = ((b << np.uint32(rotation)) | (b >> np.uint32(32 - rotation))) ^ a
        a = a + schedule[(group + 1) % 3]
        b = b + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return a, b


def keep_mask(
    keys: Key[Array, " batch"], site: Integer[Array, ""] | int, shape: tuple[int, ...], threshold: int
) -> Bool[Array, " batch *shape"]:
    """Returns which elements to keep, [batch, *shape]; each is dropped with probability threshold / 65536.

    `keys` are typed threefry keys, one per row. `site` numbers the dropout sites of a model and may be traced, as the
    index of a layer is in a scan.

    Raises:
      TypeError: keys of another generator.
    """
    words = jax.random.key_data(keys)
    if words.shape[-1] != 2:
        raise TypeError(f"dropout keys: {jax.random.key_impl(keys)} keys; make them with impl='threefry2x32'")
    batch = keys.shape[0]
    # Four quarters of the last axis share the blocks; the other axes stay whole and can be sharded.
    quarter = -(-shape[-1] // 4)
    blocks = (batch, *shape[:-1], quarter)
    key0, key1 = (words[:, i].reshape(batch, *[1] * len(shape)) for i in range(2))
    a, b = threefry_2x32((key0, key1), (element_index(blocks[1:]), jnp.uint32(site)))
    # Concatenate the words before splitting them: XLA recomputes the blocks for each part of a concatenation.
    halves = jax.lax.bitcast_convert_type(jnp.concatenate([a, b], axis=-1), jnp.uint16)
    keep = halves.reshape(batch, *shape[:-1], 4 * quarter)[..., : shape[-1]] >= np.uint16(threshold)
    # Without the barrier a TPU's compiler repeats the rounds within each product that reads the mask: BERT-Large with
    # 128 × 128 on one v5e chip then needs 16.03 instead of 15.74 GiB, and does not fit.
    return jax.lax.platform_dependent(keep, tpu=jax.lax.optimization_barrier, default=lambda mask: mask)


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Dropout at one site, with one key per row.

    It zeroes a fraction `rate` of the elements and scales the others up; without keys it returns its input. The rate is
    rounded to a multiple of 2^-16, and the scale is the inverse of the rounded keep probability, which makes the
    expectation exactly the input.
    """

    rate: float = 0.0
    keys: Key[Array, " batch"] | None = None
    site: Integer[Array, ""] | int = 0

    def __call__(self, x: Float[Array, " batch *shape"]) -> Float[Array, " batch *shape"]:
        """Drops elements of `x`."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"dropout rate: {self.rate}; choose one in [0, 1)")
        threshold = round(self.rate * 2**_BITS)
        if self.keys is None or threshold == 0:
            return x
        keep_prob = (2**_BITS - threshold) / 2**_BITS
        mask = keep_mask(self.keys, self.site, x.shape[1:], threshold)
        # A product instead of `jnp.where`: the latter, rematerialized, crashes libtpu 0.0.42 at some sizes.
        return x * (mask.astype(x.dtype) * jnp.asarray(1 / keep_prob, x.dtype))
