"""Transfer of a trained model to another vocabulary.

Pieces in both vocabularies keep their embeddings. A new piece starts as the mean of the old pieces of its text (as the
words added for FinBERT and others); all other parameters stay unchanged.
"""

import dataclasses

import numpy as np

from bertjax.checkpoints.pretrained import Pretrained, tokenizer_files
from bertjax.text.tokenizer import Tokenizer

# Prefixes that mark a piece as inside a word, or as following a space.
_MARKS = ("##", "Ġ", "▁")


def transfer_embeddings(model: Pretrained, tokenizer: Tokenizer) -> Pretrained:
    """Returns `model` with the vocabulary of `tokenizer`."""
    sources = embedding_sources(model.tokenizer, tokenizer)
    shape = dataclasses.replace(model.config.model, vocab_size=tokenizer.vocab_size)
    embeddings = model.params["embeddings"]
    table = _averaged(embeddings["word_embeddings"]["embedding"], sources, shape.padded_vocab_size)
    params = model.params | {"embeddings": embeddings | {"word_embeddings": {"embedding": table}}}
    if "masked_lm_head" in params:
        bias = _averaged(params["masked_lm_head"]["bias"], sources, shape.padded_vocab_size)
        params["masked_lm_head"] = params["masked_lm_head"] | {"bias": bias}
    return dataclasses.replace(
        model,
        config=dataclasses.replace(model.config, model=shape, corpus=""),
        params=params,
        tokenizer=tokenizer,
        tokenizer_files=tokenizer_files(tokenizer),
    )


def embedding_sources(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """Returns, for each new id, the old ids whose mean its embedding starts as; [] stands for all old ids."""
    special = dict(zip(_roles(new), _roles(old), strict=True))
    new_starts, old_starts, sources = new.word_starts(), old.word_starts(), []
    for index in range(new.vocab_size):
        piece = new.id_to_token(index)
        text = "" if index in new.special_ids else _text(new, index)
        names = [piece, *(f"{mark}{text}" for mark in ("", *_MARKS) if text)]
        # Families mark pieces differently: "the" is a word in one and the inside of a longer word in another.
        old_ids = (old_id for name in names if (old_id := old.token_to_id(name)) is not None)
        equal = (old_id for old_id in old_ids if old_starts[old_id] == new_starts[index])
        same = special.get(index, next(equal, None))
        if same is not None:
            sources.append([same])
            continue
        pieces = old.encode_words([text])[0] if new_starts[index] else old.encode(text)
        # Without any known piece the text says nothing about the embedding: the mean of all is as good.
        sources.append([piece for piece in pieces if piece != old.unk_id] if text else [])
    return sources


def _roles(tokenizer: Tokenizer) -> tuple[int, ...]:
    return tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id


def _text(tokenizer: Tokenizer, index: int) -> str:
    """Returns the text of a piece, without its mark."""
    text = tokenizer.decode([index])
    for mark in _MARKS:
        text = text.removeprefix(mark)
    return text.strip()


def _averaged(table: np.ndarray, sources: list[list[int]], rows: int) -> np.ndarray:
    """Returns the mean of the source rows of `table` for each id, padded with zeros to `rows`."""
    table = np.asarray(table)
    mean = table.mean(axis=0)
    result = np.zeros((rows, *table.shape[1:]), table.dtype)
    for index, ids in enumerate(sources):
        result[index] = table[ids].mean(axis=0) if len(ids) > 1 else table[ids[0]] if ids else mean
    return result
