"""Predictions of masked tokens."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.types import Batch, Params
from bertjax.checkpoints.pretrained import Pretrained, check_masked_lm
from bertjax.errors import UserError
from bertjax.inference.input_counts import InputCounts
from bertjax.inference.inputs import Record, make_records, read_texts
from bertjax.inference.runner import PredictOptions, apply_module, bind_params, computation
from bertjax.model.pretraining import PretrainingModel
from bertjax.tasks.encoding import EncodedExample
from bertjax.tasks.examples import TextExample
from bertjax.tasks.user_io import rounded


class FillMask:
    """Predicts the most likely tokens for each mask with a pre-trained model."""

    def __init__(self, source: Pretrained, options: PredictOptions) -> None:
        """Loads the parameters of a pre-trained model.

        Raises:
          UserError: the model is fine-tuned, or has no masked-LM head.
        """
        check_masked_lm(source)
        self._tokenizer = source.tokenizer
        self.counts = InputCounts(source)
        self._longest = source.config.model.max_position_embeddings
        # Without the head for pairs of segments.
        model = PretrainingModel(source.config.model, pairs="", computation=computation(source, options))
        # If the vocabulary of the model is padded, its last ids are not tokens.
        padding = range(source.tokenizer.vocab_size, source.config.model.vocab_size)
        excluded = np.array([*source.tokenizer.special_ids, *padding])

        def likeliest(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
            """Probabilities and ids, [rows, masks, top], without special tokens."""
            batch = {**batch, "masked_lm_positions": batch["token_positions"]}
            logits = apply_module(model, params, batch)["masked_lm_logits"].at[..., excluded].set(-jnp.inf)
            return jax.lax.top_k(jax.nn.softmax(logits, axis=-1), min(options.top, logits.shape[-1]))

        self._run = bind_params(likeliest, source, options, with_positions=True)

    def __call__(self, inputs: Sequence[object], where: Sequence[str] | None = None) -> list[Record]:
        """Returns the `masks` of each text: lists of `token` and `probability`, the most likely token first."""
        examples = read_texts(inputs, where)
        rows = [self._row(number, example) for number, example in enumerate(examples)]
        unknown = self._tokenizer.id_to_token(self._tokenizer.unk_id)
        self.counts.add(rows, ignored=sum(example.text.count(unknown) for example in examples))
        return make_records(examples, map(self._record, rows, self._run(rows)))

    def _row(self, number: int, example: TextExample) -> EncodedExample:
        tokenizer, location = self._tokenizer, f"{example.where}, {example.text[:60]!r}"
        if example.text_pair is not None:
            raise UserError(f"{location}: fill-mask does not support pairs of texts; give a list for several texts")
        ids = [tokenizer.cls_id, *tokenizer.encode(example.text, special_tokens=True), tokenizer.sep_id]
        masks = tuple(position for position, index in enumerate(ids) if index == tokenizer.mask_id)
        mask = tokenizer.id_to_token(tokenizer.mask_id)
        if not masks:
            raise UserError(f"{location}: the text contains no {mask}; write {mask} for each token to predict")
        if len(ids) > self._longest:
            raise UserError(
                f"{location}: the text has {len(ids)} tokens, but the model reads at most {self._longest}; shorten it"
            )
        return EncodedExample(number, ids, len(ids), token_positions=masks)

    def _record(self, row: EncodedExample, likeliest: tuple[np.ndarray, np.ndarray]) -> Record:
        probabilities, ids = likeliest
        return {"masks": [self._tokens(probabilities[mask], ids[mask]) for mask in range(len(row.token_positions))]}

    def _tokens(self, probabilities: np.ndarray, ids: np.ndarray) -> list[Record]:
        return [
            {"token": self._tokenizer.id_to_token(int(index)), "probability": rounded(probability)}
            for probability, index in zip(probabilities, ids, strict=True)
        ]
