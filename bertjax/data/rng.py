"""A counter-based random number generator in NumPy: every draw is a hash of its coordinates; there is no state.

`bits(bits(key(seed, "masks"), row), column)` is the draw for a column of a row: a chain of keyed hashes, each the
output function of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators") over
a Weyl sequence that starts at the key. Arrays broadcast, so rows can be drawn on any host and in any order.
"""

import hashlib
import math

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
# Rounds of the Feistel network; the statistics tests pass from 5 on.
_ROUNDS = 8


def key(seed: int, *stream: int | str) -> np.uint64:
    """Returns the key of (seed, stream); all of them differ."""
    digest = hashlib.blake2b(repr((int(seed), *stream)).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def bits(key: np.uint64 | np.ndarray, counter: int | np.ndarray) -> np.ndarray:
    """Returns 64 random bits for each (key, counter), as uint64 of their broadcast shape (at least one axis).

    Args:
      key: a key, or the bits of an earlier draw, which serve as keys of further draws.
      counter: integers >= 0.
    """
    # astype instead of asarray, as the array is modified in place. At least one axis: NumPy scalars warn on overflow.
    state = np.atleast_1d(np.asarray(counter)).astype(np.uint64)
    state += np.uint64(1)
    state *= _GAMMA
    state = np.add(state, key)
    state ^= state >> _SHIFTS[0]
    state *= _MULTIPLIERS[0]
    state ^= state >> _SHIFTS[1]
    state *= _MULTIPLIERS[1]
    state ^= state >> _SHIFTS[2]
    return state


def uniform(bits: np.ndarray) -> np.ndarray:
    """Returns float64 in [0, 1) from the upper 53 of the 64 bits."""
    return (bits >> np.uint64(11)) * 2.0**-53


def integers(bits: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Returns int64 in [0, bound), for bounds up to 2^53; the bias is at most bound / 2^53."""
    return (uniform(bits) * bound).astype(np.int64)


def permute(key: np.uint64, index: np.ndarray, size: int) -> np.ndarray:
    """Returns the position of each index in a keyed shuffle of [0, size): a bijection, computed per index.

    A Feistel network on pairs (a, b) of [0, A) × [0, B) with A·B at least `size` and hardly larger; each round adds a
    hash of one half to the other. Results outside [0, size) pass through it again (cycle walking; Black and Rogaway
    2002, "Ciphers with arbitrary finite domains").

    Args:
      key: the key of the shuffle.
      index: int64 in [0, size).
      size: number of elements.
    """
    width = math.isqrt(size - 1) + 1 if size > 1 else 1
    height = -(-size // width)
    round_keys = bits(key, np.arange(_ROUNDS))
    result = _feistel(round_keys, np.asarray(index), width, height)
    outside = np.flatnonzero(result >= size)
    while len(outside):
        result[outside] = _feistel(round_keys, result[outside], width, height)
        outside = outside[result[outside] >= size]
    return result


def _feistel(round_keys: np.ndarray, index: np.ndarray, width: int, height: int) -> np.ndarray:
    left, right = np.divmod(index, height)
    for number, round_key in enumerate(round_keys):
        if number % 2:
            right = _add(right, bits(round_key, left), height)
        else:
            left = _add(left, bits(round_key, right), width)
    return left * height + right


def _add(half: np.ndarray, bits: np.ndarray, size: int) -> np.ndarray:
    """Returns (half + a number drawn from [0, size)) modulo size; much faster than NumPy's remainder."""
    total = half + integers(bits, size)
    return total - size * (total >= size)
