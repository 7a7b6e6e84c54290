"""Adam's moments stored in bfloat16 and computed in float32.

bfloat16 has 8 significant bits: changes below 2^-9 to 2^-8 of a value are rounded away. The first moment changes by a
tenth per step (beta1 = 0.9) and is rounded to nearest. The second changes by a thousandth (beta2 = 0.999): rounded to
nearest it could never fall, so it is rounded stochastically, with an unbiased mean.
"""

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import PyTree

from bertjax.arrays.hashing import element_index, scramble


def stored_in_bfloat16(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns `adam`, whose state is an `optax.ScaleByAdamState`, with both moments stored in bfloat16.

    The updates are computed from the moments before rounding.
    """

    def init(params: PyTree) -> optax.ScaleByAdamState:
        return _stored(adam.init(params))

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, optax.ScaleByAdamState]:
        wide = state._replace(mu=_cast(state.mu, jnp.float32), nu=_cast(state.nu, jnp.float32))
        updates, wide = adam.update(updates, wide, params)
        return updates, _stored(wide)

    return optax.GradientTransformation(init, update)


def round_stochastically(x: jax.Array, salt: jax.Array) -> jax.Array:
    """Rounds finite float32 to one of the two nearest bfloat16, with the probabilities that make the mean `x`.

    The random bits are a hash of each element's index and `salt`, a pseudorandom uint32. That quality suffices here,
    and a better generator is too slow for hundreds of millions of elements per step.
    """
    # The upper half of a float32 is a bfloat16. Adding a random lower half carries with a probability proportional to
    # the lower half of `x`. The sign is a separate bit: this rounds magnitudes.
    random = scramble(element_index(x.shape) ^ salt) >> 16
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + random
    return jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32).astype(jnp.bfloat16)


def _stored(state: PyTree) -> optax.ScaleByAdamState:
    """Rounds the moments; salts depend only on the step count, so a resumed run draws the same random bits."""
    leaves, structure = jax.tree.flatten(state.nu)
    salts = scramble(state.count.astype(jnp.uint32) * len(leaves) + jnp.arange(len(leaves), dtype=jnp.uint32))
    nu = [round_stochastically(leaf, salt) for leaf, salt in zip(leaves, salts, strict=True)]
    return state._replace(mu=_cast(state.mu, jnp.bfloat16), nu=jax.tree.unflatten(structure, nu))


def _cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    return jax.tree.map(lambda x: x.astype(dtype), tree)
