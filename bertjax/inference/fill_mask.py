"""Fills in the masks of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.checkpoints.pretrained import Pretrained, check_pretraining
from bertjax.errors import UserError
from bertjax.inference.input_counts import InputCounts
from bertjax.inference.inputs import answers, read_texts
from bertjax.inference.runner import Options, bind, computation
from bertjax.model.pretraining import PretrainingModel
from bertjax.tasks.encoding import EncodedExample
from bertjax.tasks.examples import TextExample
from bertjax.tasks.user_io import rounded


class FillMask:
    """The likeliest tokens for each mask, from a pre-trained model."""

    def __init__(self, source: Pretrained, options: Options) -> None:
        """Raises UserError for a fine-tuned model."""
        check_pretraining(source)
        self._tokenizer = source.tokenizer
        self.counts = InputCounts(source)
        self._longest = source.config.model.max_position_embeddings
        # What it says of the next sentence is not asked for.
        model = PretrainingModel(source.config.model, pairs="", computation=computation(source, options))
        # Where the model's vocabulary is rounded up, its last ids are no token.
        unnamed = range(source.tokenizer.vocab_size, source.config.model.vocab_size)
        unwanted = np.array([*source.tokenizer.special_ids, *unnamed])

        def likeliest(params: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            """Probabilities and ids [rows, masks, top]; special tokens are no answer."""
            batch = {**batch, "masked_lm_positions": batch["token_positions"]}
            logits = model.apply({"params": params}, batch)["masked_lm_logits"].at[..., unwanted].set(-jnp.inf)
            return jax.lax.top_k(jax.nn.softmax(logits, axis=-1), min(options.top, logits.shape[-1]))

        self._run = bind(likeliest, source, options, with_positions=True)

    def __call__(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """For each text its `masks`, of each the likeliest tokens first, dicts of `token` and `probability`."""
        examples = read_texts(inputs, where)
        rows = [self._row(place, example) for place, example in enumerate(examples)]
        unknown = self._tokenizer.id_to_token(self._tokenizer.unk_id)
        self.counts.add(rows, ignored=sum(example.text.count(unknown) for example in examples))
        return answers(examples, map(self._record, rows, self._run(rows)))

    def _row(self, place: int, example: TextExample) -> EncodedExample:
        tokenizer, shown = self._tokenizer, f"{example.where}, {example.text[:60]!r}"
        if example.text_pair is not None:
            raise UserError(f"{shown}: fill-mask reads one text at a time; leave out the second")
        ids = [tokenizer.cls_id, *tokenizer.encode(example.text, special_tokens=True), tokenizer.sep_id]
        masks = tuple(position for position, index in enumerate(ids) if index == tokenizer.mask_id)
        mask = tokenizer.id_to_token(tokenizer.mask_id)
        if not masks:
            raise UserError(f"{shown}: there is no {mask}; write {mask} where a token is to be filled in")
        if len(ids) > self._longest:
            raise UserError(f"{shown} … has {len(ids)} tokens; the model reads at most {self._longest}, shorten it")
        return EncodedExample(place, ids, len(ids), token_positions=masks)

    def _record(self, row: EncodedExample, likeliest: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        values, ids = likeliest
        return {"masks": [self._tokens(values[mask], ids[mask]) for mask in range(len(row.token_positions))]}

    def _tokens(self, probabilities: np.ndarray, ids: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"token": self._tokenizer.id_to_token(int(index)), "probability": rounded(value)}
            for value, index in zip(probabilities, ids, strict=True)
        ]
