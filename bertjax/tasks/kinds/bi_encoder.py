"""Base class of kinds that encode each text separately (Reimers & Gurevych 2019, arXiv:1908.10084)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import jax

from bertjax.arrays.types import Batch
from bertjax.config.finetuning import SentenceConfig
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.model.sentence import SentenceModel
from bertjax.objectives.terms import Term
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.examples import ChoiceExample, TextExample
from bertjax.tasks.kinds.base import TaskKind

TextsT = TypeVar("TextsT", bound=TextExample | ChoiceExample)


@dataclass(frozen=True)
class BiEncoder(TaskKind[TextsT]):
    """Encodes the texts of an example as consecutive sequences, all with its label.

    Attributes:
      sentence: pooling, and the constants of the losses.
      texts: texts per example.
    """

    sentence: SentenceConfig = field(default_factory=SentenceConfig)
    texts: int = 2

    predict_mode = "embed"
    bi_encoder = True
    head_size = 0
    # The export has no head: sentence-transformers does the pooling.
    transformers_class = "Model"

    def encode(self, index: int, example: TextsT, encoder: ExampleEncoder) -> list[EncodedExample]:
        """Returns a sequence per text."""
        texts = [encoder.tokenizer.encode(text) for text in (example.text, *self.other_texts(example))]
        return [encoder.join(index, text, None, example.label) for text in texts]

    def other_texts(self, example: TextsT) -> Sequence[str]:
        """Returns the texts of an example after the first."""
        if isinstance(example, ChoiceExample):
            return example.choices
        if example.text_pair is None:
            raise UserError(
                f"{example.where}: only one text, but config.sentence.bi_encoder compares two; turn bi_encoder off"
            )
        return (example.text_pair,)

    def model(self, config: ModelConfig, labels: Sequence[str]) -> SentenceModel:
        """Returns the encoder with pooling."""
        return SentenceModel(config, self.outputs(labels), self.texts, self.sentence.pooling)

    def terms(self, outputs: Batch, batch: Batch) -> dict[str, Term]:
        """Returns the term `task_loss`; in packed rows every slot is an example."""
        return super().terms(outputs, {name: batch[name].reshape(-1) for name in ("labels", "weights")})

    def class_logits(self, logits: jax.Array, batch: Batch) -> jax.Array:
        """Returns [examples, outputs]: the model repeats the logits of an example for each of its texts."""
        return logits[:: self.texts]
