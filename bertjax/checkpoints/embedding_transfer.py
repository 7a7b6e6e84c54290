"""A trained model on another vocabulary: pieces that both have keep their embeddings, new ones start from the old.

A new piece starts as the mean of the pieces that its text had before (as for FinBERT's and others' added words); the
rest of the model stays as it is.
"""

import dataclasses
from typing import Any

import numpy as np

from bertjax.checkpoints.pretrained import Pretrained, tokenizer_files
from bertjax.text.tokenizer import Tokenizer

# How pieces say that they stand inside a word, or behind a space.
_MARKS = ("##", "Ġ", "▁")


def change(model: Pretrained, tokenizer: Tokenizer) -> Pretrained:
    """`model` with the vocabulary of `tokenizer`."""
    weights = origins(model.tokenizer, tokenizer)
    shape = dataclasses.replace(model.config.model, vocab_size=tokenizer.vocab_size)
    embeddings = model.params["embeddings"]
    table = _moved(embeddings["word_embeddings"]["embedding"], weights, shape.padded_vocab_size)
    params = model.params | {"embeddings": embeddings | {"word_embeddings": {"embedding": table}}}
    if "masked_lm_head" in params:
        bias = _moved(params["masked_lm_head"]["bias"], weights, shape.padded_vocab_size)
        params["masked_lm_head"] = params["masked_lm_head"] | {"bias": bias}
    return dataclasses.replace(
        model,
        config=dataclasses.replace(model.config, model=shape, corpus=""),
        params=params,
        tokenizer=tokenizer,
        tokenizer_files=tokenizer_files(tokenizer),
    )


def origins(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """For each id of the new vocabulary the ids of the old one whose mean it starts as; [] stands for all of them."""
    special = dict(zip(_roles(new), _roles(old), strict=True))
    begins, began, found = new.word_starts(), old.word_starts(), []
    for index in range(new.vocab_size):
        piece = new.id_to_token(index)
        text = "" if index in new.special_ids else _text(new, index)
        names = [piece, *(f"{mark}{text}" for mark in ("", *_MARKS) if text)]
        # Families mark pieces in different ways: "the" is a word in one, and the inside of a longer one in another.
        alike = (one for name in names if (one := old.token_to_id(name)) is not None and began[one] == begins[index])
        same = special.get(index, next(alike, None))
        if same is not None:
            found.append([same])
            continue
        pieces = old.encode_words([text])[0] if begins[index] else old.encode(text)
        # What the old one cannot spell says nothing: the mean of all says as little.
        found.append([piece for piece in pieces if piece != old.unk_id] if text else [])
    return found


def _roles(tokenizer: Tokenizer) -> tuple[int, ...]:
    return tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id


def _text(tokenizer: Tokenizer, index: int) -> str:
    """What a piece stands for."""
    text = tokenizer.decode([index])
    for mark in _MARKS:
        text = text.removeprefix(mark)
    return text.strip()


def _moved(table: Any, weights: list[list[int]], rows: int) -> np.ndarray:
    """The means of rows of `table`, and zeros up to `rows`."""
    table = np.asarray(table)
    everything = table.mean(axis=0)
    moved = np.zeros((rows, *table.shape[1:]), table.dtype)
    for index, sources in enumerate(weights):
        moved[index] = table[sources].mean(axis=0) if len(sources) > 1 else table[sources[0]] if sources else everything
    return moved
