"""What kinds share that encode each text on its own, to a vector (Reimers & Gurevych 2019, arXiv:1908.10084)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from bertjax.config.finetuning import SentenceConfig
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.model.sentence import SentenceModel
from bertjax.objectives.terms import Term
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder
from bertjax.tasks.kinds.base import Arrays, TaskKind


@dataclass(frozen=True)
class BiEncoder(TaskKind):
    """The texts of an example are neighbouring rows, which all have its label."""

    sentence: SentenceConfig = field(default_factory=SentenceConfig)
    texts: int = 2

    predict_mode = "embed"
    bi_encoder = True
    scores_per_label = 0
    # They need no head: what makes vectors of states is sentence-transformers'.
    transformers_class = "Model"

    def encode(self, number: int, example: Any, encoder: ExampleEncoder) -> list[EncodedExample]:
        """A row per text."""
        texts = [encoder.tokenizer.encode(text) for text in (example.text, *self.other_texts(example))]
        return [encoder.join(number, text, None, example.label) for text in texts]

    def other_texts(self, example: Any) -> Sequence[str]:
        """The texts of an example behind the first one."""
        if example.text_pair is None:
            raise UserError(
                f"{example.where}: there is one text only, and config.sentence.bi_encoder compares two; leave it out"
            )
        return (example.text_pair,)

    def model(self, config: ModelConfig, labels: Sequence[str]) -> SentenceModel:
        """The encoder with pooling."""
        return SentenceModel(config, self.outputs(labels), self.texts, self.sentence.pooling)

    def terms(self, outputs: Arrays, batch: Arrays) -> dict[str, Term]:
        """The one term `task_loss`; in packed rows every slot is an example."""
        return super().terms(outputs, {name: batch[name].reshape(-1) for name in ("labels", "weights")})

    def class_logits(self, logits: jax.Array, batch: Arrays) -> jax.Array:
        """[examples, outputs]: each text has those of its example."""
        return logits[:: self.texts]
