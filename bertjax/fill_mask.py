"""Fills in the masks of texts.

from bertjax import pretrained
from bertjax.fill_mask import FillMask
FillMask(pretrained.load("runs/base", print))(["Paris is the [MASK] of France."])
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.errors import UserError
from bertjax.model.pretraining import PretrainingModel
from bertjax.pretrained import Pretrained, check_pretraining

# Batches are padded up to these, so that a few compiled programs serve all texts.
_ROWS = 8
_LENGTHS = 32
_PREDICTIONS = 4


class FillMask:
    """The likeliest tokens for each mask, from a pre-trained model."""

    def __init__(self, source: Pretrained) -> None:
        """Raises UserError for a fine-tuned model."""
        check_pretraining(source)
        self._tokenizer = source.tokenizer
        self._longest = source.config.model.max_position_embeddings
        self._params = jax.device_put(source.params)
        self._model = PretrainingModel(source.config.model, next_sentence=source.config.next_sentence)
        self._special = jnp.asarray(source.tokenizer.special_ids)

    def __call__(self, texts: Sequence[str], top: int = 5) -> list[list[list[dict[str, Any]]]]:
        """For each text, for each of its masks, `top` dicts of `token` and `probability`, the likeliest first.

        Raises:
          UserError: a text without a mask, or too long for the model.
        """
        encoded = [self._encode(text) for text in texts]
        batch = self._batch(encoded)
        probabilities, ids = jax.device_get(self._top(top, self._params, batch))
        return [
            [
                [
                    {"token": self._tokenizer.id_to_token(int(index)), "probability": round(float(value), 6)}
                    for value, index in zip(probabilities[row, mask], ids[row, mask], strict=True)
                ]
                for mask in range(encoded[row].count(self._tokenizer.mask_id))
            ]
            for row in range(len(texts))
        ]

    def _encode(self, text: str) -> list[int]:
        tokenizer = self._tokenizer
        ids = [tokenizer.cls_id, *tokenizer.encode(text, special_tokens=True), tokenizer.sep_id]
        mask = tokenizer.id_to_token(tokenizer.mask_id)
        if tokenizer.mask_id not in ids:
            raise UserError(f"there is no {mask} in {text[:60]!r}; write {mask} where a token is to be filled in")
        if len(ids) > self._longest:
            raise UserError(f"{text[:60]!r} has {len(ids)} tokens; the model reads at most {self._longest}, shorten it")
        return ids

    def _batch(self, encoded: list[list[int]]) -> dict[str, np.ndarray]:
        rows = _up(len(encoded), _ROWS)
        length = min(_up(max(map(len, encoded)), _LENGTHS), self._longest)
        most = max(ids.count(self._tokenizer.mask_id) for ids in encoded)
        batch = {
            "input_ids": np.full((rows, length), self._tokenizer.pad_id, np.int32),
            "token_type_ids": np.zeros((rows, length), np.int32),
            "attention_mask": np.zeros((rows, length), np.int32),
            "masked_lm_positions": np.zeros((rows, _up(most, _PREDICTIONS)), np.int32),
        }
        batch["attention_mask"][:, 0] = 1  # a row of padding still attends to something
        for row, ids in enumerate(encoded):
            batch["input_ids"][row, : len(ids)] = ids
            batch["attention_mask"][row, : len(ids)] = 1
            masks = [position for position, index in enumerate(ids) if index == self._tokenizer.mask_id]
            batch["masked_lm_positions"][row, : len(masks)] = masks
        return batch

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _top(self, top: int, params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Probabilities and ids [rows, masks, top]; special tokens are no answer."""
        logits = self._model.apply({"params": params}, batch)["masked_lm_logits"]
        logits = logits.at[..., self._special].set(-jnp.inf)
        return jax.lax.top_k(jax.nn.softmax(logits, axis=-1), min(top, logits.shape[-1]))


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
