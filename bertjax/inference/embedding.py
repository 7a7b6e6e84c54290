"""Embeddings of texts."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.types import Batch, Params
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.errors import UserError
from bertjax.inference.input_counts import InputCounts
from bertjax.inference.inputs import Record, make_records, read_texts
from bertjax.inference.runner import PredictOptions, apply_module, bind_params, computation, model_limits
from bertjax.model.pretraining import PretrainingModel
from bertjax.model.sentence import VectorLayers, normalize, pool
from bertjax.tasks.encoding import ExampleEncoder, check_lengths
from bertjax.tasks.examples import TextExample
from bertjax.tasks.metadata import SentenceMetadata
from bertjax.tasks.user_io import rounded


class Embedder:
    """Embeds each text as a vector: the pooled states of the last layer of the encoder."""

    def __init__(self, source: Pretrained, options: PredictOptions) -> None:
        """Loads the parameters; options that are not set default to the settings that the model was trained with.

        Raises:
          UserError: the model has no prompt of this name.
        """
        self._encoder = ExampleEncoder(source.tokenizer, model_limits(source))
        self.counts = InputCounts(source)
        sentence = source.sentence or SentenceMetadata()
        pooling = options.pooling or sentence.pooling
        unit_length = sentence.normalize if options.normalize is None else options.normalize
        self._prompt = _find_prompt(sentence, options.prompt, source)
        excludes_prompt = self._prompt and not sentence.include_prompt
        excluded = 1 + len(source.tokenizer.encode(self._prompt)) if excludes_prompt else 0  # [CLS] and the prompt
        model = PretrainingModel(source.config.model, pairs="", computation=computation(source, options))
        layers = VectorLayers(source.config.model, sentence.dense)
        self._width = sentence.dense[-1].features if sentence.dense else source.config.model.hidden_size

        def embed(params: Params, batch: Batch) -> jax.Array:
            """f32 [rows, width]."""
            mask = batch["attention_mask"].at[:, :excluded].set(0)
            # The first pooled token; the first token of rows that end before it.
            first = jnp.argmax(mask, axis=1)[:, None] if pooling == "cls" else None
            vectors = pool(apply_module(model, params, batch, None, first, method="encode"), mask, pooling)
            if sentence.dense:
                vectors = apply_module(layers, params["sentence_dense"], vectors)
            return normalize(vectors) if unit_length else vectors

        self._run = bind_params(embed, source, options)

    def __call__(self, inputs: Sequence[object], where: Sequence[str] | None = None) -> list[Record]:
        """Returns the `embedding` of each text as a list of numbers."""
        examples = _read(inputs, where)
        return make_records(examples, ({"embedding": rounded(vector)} for vector in self._embed(examples)))

    def array(self, inputs: Sequence[object], where: Sequence[str] | None = None) -> np.ndarray:
        """Returns the embeddings of all texts, f32 [texts, width]."""
        return self._embed(_read(inputs, where))

    def _embed(self, examples: Sequence[TextExample]) -> np.ndarray:
        check_lengths(examples)
        if self._prompt:
            examples = [dataclasses.replace(example, text=self._prompt + example.text) for example in examples]
        rows = [self._encoder.join_texts(i, example, None) for i, example in enumerate(examples)]
        self.counts.add(rows)
        return np.array(self._run(rows), np.float32).reshape(len(rows), self._width)


def _read(inputs: Sequence[object], where: Sequence[str] | None) -> list[TextExample]:
    """Reads texts; a tuple is refused, which more often means several texts than one vector of a pair."""
    for number, value in enumerate(inputs):
        if isinstance(value, tuple):
            raise UserError(
                f"{where[number] if where else f'input {number + 1}'}: a tuple would be read as a pair of texts; give "
                'a list for a vector of each text, or {"text": …, "text_pair": …} for one vector of a pair'
            )
    return read_texts(inputs, where)


def _find_prompt(sentence: SentenceMetadata, name: str | None, source: Pretrained) -> str:
    """Returns the text of the prompt of this name; None names the default prompt of the model."""
    name = sentence.prompt if name is None else name
    if name and name not in sentence.prompts:
        names = ", ".join(sentence.prompts)
        remedy = f"choose from {names}" if names else "it defines no prompts, so leave prompt (--prompt) out"
        raise UserError(f"{source.path}: the model has no prompt {name!r}; {remedy}")
    return sentence.prompts[name] if name else ""
