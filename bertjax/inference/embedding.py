"""Turns texts into vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.inference.input_counts import InputCounts
from bertjax.inference.inputs import answers, read_texts
from bertjax.inference.runner import Options, bind, computation, model_limits
from bertjax.model.pretraining import PretrainingModel
from bertjax.model.sentence import normalized, pooled
from bertjax.tasks.encoding import ExampleEncoder, check_lengths
from bertjax.tasks.examples import TextExample
from bertjax.tasks.metadata import SentenceMetadata
from bertjax.tasks.user_io import rounded


class Embedder:
    """A vector for each text, from the states of the encoder's last layer."""

    def __init__(self, source: Pretrained, options: Options) -> None:
        self._encoder = ExampleEncoder(source.tokenizer, model_limits(source))
        self.counts = InputCounts(source)
        sentence = source.sentence or SentenceMetadata()
        pooling = options.pooling or sentence.pooling
        normalize = sentence.normalize if options.normalize is None else options.normalize
        model = PretrainingModel(source.config.model, pairs="", computation=computation(source, options))

        def embed(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            """f32 [rows, hidden]."""
            first = jnp.zeros((len(batch["input_ids"]), 1), jnp.int32) if pooling == "cls" else None
            hidden = model.apply({"params": params}, batch, None, first, method="encode")
            vectors = pooled(hidden, batch["attention_mask"], pooling)
            return normalized(vectors) if normalize else vectors

        self._run = bind(embed, source, options)

    def __call__(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """For each text its `embedding`, a list of numbers."""
        examples = read_texts(inputs, where)
        return answers(examples, ({"embedding": rounded(vector)} for vector in self._embed(examples)))

    def array(self, inputs: Sequence[Any], where: Sequence[str] | None = None) -> np.ndarray:
        """The embeddings of all texts, f32 [texts, hidden]; of no texts [0, 0]."""
        return self._embed(read_texts(inputs, where))

    def _embed(self, examples: Sequence[TextExample]) -> np.ndarray:
        check_lengths(examples)
        rows = [self._encoder.join_texts(i, example, None) for i, example in enumerate(examples)]
        self.counts.add(rows)
        found = self._run(rows)
        return np.array(found, np.float32).reshape(len(found), -1) if found else np.zeros((0, 0), np.float32)
