"""Turns texts into vectors."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.errors import UserError
from bertjax.inference.input_counts import InputCounts
from bertjax.inference.inputs import answers, read_texts
from bertjax.inference.runner import Options, bind, computation, model_limits
from bertjax.model.pretraining import PretrainingModel
from bertjax.model.sentence import VectorLayers, normalized, pooled
from bertjax.tasks.encoding import ExampleEncoder, check_lengths
from bertjax.tasks.examples import TextExample
from bertjax.tasks.metadata import SentenceMetadata
from bertjax.tasks.user_io import rounded


class Embedder:
    """A vector for each text, from the states of the encoder's last layer."""

    def __init__(self, source: Pretrained, options: Options) -> None:
        """Takes the model as it was trained to make vectors, but for what the options say.

        Raises:
          UserError: the model has no prompt of this name.
        """
        self._encoder = ExampleEncoder(source.tokenizer, model_limits(source))
        self.counts = InputCounts(source)
        sentence = source.sentence or SentenceMetadata()
        pooling = options.pooling or sentence.pooling
        normalize = sentence.normalize if options.normalize is None else options.normalize
        self._prompt = _prompt(sentence, options.prompt, source)
        leaves_out = self._prompt and not sentence.include_prompt
        skipped = 1 + len(source.tokenizer.encode(self._prompt)) if leaves_out else 0  # tokens: [CLS] and the prompt
        model = PretrainingModel(source.config.model, pairs="", computation=computation(source, options))
        layers = VectorLayers(source.config.model, sentence.dense)

        def embed(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            """f32 [rows, width]."""
            mask = batch["attention_mask"].at[:, :skipped].set(0)
            # The first token that is pooled; of a row that ends before it the very first.
            first = jnp.argmax(mask, axis=1)[:, None] if pooling == "cls" else None
            vectors = pooled(model.apply({"params": params}, batch, None, first, method="encode"), mask, pooling)
            if sentence.dense:
                vectors = layers.apply({"params": params["sentence_dense"]}, vectors)
            return normalized(vectors) if normalize else vectors

        self._run = bind(embed, source, options)

    def __call__(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """For each text its `embedding`, a list of numbers."""
        examples = read_texts(inputs, where)
        return answers(examples, ({"embedding": rounded(vector)} for vector in self._embed(examples)))

    def array(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> np.ndarray:
        """The embeddings of all texts, f32 [texts, width]; of no texts [0, 0]."""
        return self._embed(read_texts(inputs, where))

    def _embed(self, examples: Sequence[TextExample]) -> np.ndarray:
        check_lengths(examples)
        if self._prompt:
            examples = [dataclasses.replace(example, text=self._prompt + example.text) for example in examples]
        rows = [self._encoder.join_texts(i, example, None) for i, example in enumerate(examples)]
        self.counts.add(rows)
        found = self._run(rows)
        return np.array(found, np.float32).reshape(len(found), -1) if found else np.zeros((0, 0), np.float32)


def _prompt(sentence: SentenceMetadata, name: str | None, source: Pretrained) -> str:
    """What each text begins with: the prompt of this name, by default the model's own."""
    name = sentence.prompt if name is None else name
    if name and name not in sentence.prompts:
        raise UserError(f"{source.path} has no prompt {name!r}; it has {', '.join(sentence.prompts) or 'none'}")
    return sentence.prompts[name] if name else ""
