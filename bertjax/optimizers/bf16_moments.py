"""Adam's moments stored in bfloat16 and computed in float32.

bfloat16 keeps 8 bits: what differs by less than 2^-9 to 2^-8 of a value is rounded away. The first moment moves by a
tenth a step (beta1 = 0.9) and rounds to nearest. The second moves by a thousandth (beta2 = 0.999): rounded to nearest
it could never fall, so it is rounded up or down at random, with the odds that make the mean right.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bertjax.arrays.hashing import element_index, scramble


def stored_in_bfloat16(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """`adam`, whose state is an `optax.ScaleByAdamState`, with both moments stored in bfloat16.

    The update is made of the moments as they were before they are rounded.
    """

    def init(params: Any) -> optax.ScaleByAdamState:
        return _stored(adam.init(params))

    def update(gradients: Any, state: optax.ScaleByAdamState, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        wide = state._replace(mu=_cast(state.mu, jnp.float32), nu=_cast(state.nu, jnp.float32))
        updates, wide = adam.update(gradients, wide, params)
        return updates, _stored(wide)

    return optax.GradientTransformation(init, update)


def round_stochastically(x: jax.Array, salt: jax.Array) -> jax.Array:
    """Rounds finite float32 to bfloat16, to either neighbour with the odds that make the mean `x`.

    The randomness is a hash of each element's index and `salt`, a uint32 that looks random: hundreds of millions of
    elements a step are too many for a generator of better quality than this needs.
    """
    # The upper half of a float32 is a bfloat16. A random lower half, added, carries as often as the share to round is
    # large; the sign stands apart, so that magnitudes are rounded.
    random = scramble(element_index(x.shape) ^ salt) >> 16
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + random
    return jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32).astype(jnp.bfloat16)


def _stored(state: optax.ScaleByAdamState) -> optax.ScaleByAdamState:
    """The salts come of the number of steps alone, so that a continued run draws what it would have drawn."""
    leaves, structure = jax.tree.flatten(state.nu)
    salts = scramble(state.count.astype(jnp.uint32) * len(leaves) + jnp.arange(len(leaves), dtype=jnp.uint32))
    nu = [round_stochastically(leaf, salt) for leaf, salt in zip(leaves, salts, strict=True)]
    return state._replace(mu=_cast(state.mu, jnp.bfloat16), nu=jax.tree.unflatten(structure, nu))


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), tree)
