"""The interface of a kind of task.

A kind says how examples become rows, where their labels stand in a batch, what the model and its loss are, and how its
scores become predictions; and how users type, store, exchange and see all that. Nothing outside this package asks which
kind it has.

A new kind is a file `NAME.py` here with a subclass of `TaskKind` whose `name` is NAME, and an entry in catalog.py. It
sets `name`, defines `record`, and overrides what differs from one class per example. CONTRIBUTING.md lists its tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.config.finetuning import Table
from bertjax.config.model import ModelConfig
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.sentence import SentenceModel
from bertjax.objectives.distillation import divergence
from bertjax.objectives.terms import Term, cross_entropy, weighted
from bertjax.tasks import table_records, user_io
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder, check_lengths
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
from bertjax.tasks.scores import Score
from bertjax.tasks.table_records import Record

Arrays = Mapping[str, jax.Array]
Scored = Sequence[tuple[EncodedExample, np.ndarray]]  # the rows of an example with the model's scores of each


@dataclass(frozen=True)
class Prediction:
    """What is predicted for an example, and how sure the model is."""

    value: Any  # as the kind's class says
    probabilities: Any = None  # of the classes [labels], the choices, or each word's class [words, labels]
    best: tuple[tuple[str, float], ...] = ()  # span: the likeliest answers with their probabilities; "": no answer


@dataclass(frozen=True)
class TaskKind:
    """What is predicted for an example; subclasses say what, and what a label in a batch is.

    What they leave as it is here is that of one text or two with one of several classes.

    Every batch has `labels` and `weights`, whose shapes begin with [units], or in packed rows with [rows, slots]; a
    unit is the rows of an example that stay together, and what weighs 0 only fills a batch up.
    """

    name: ClassVar[str]  # as checkpoints, `table/NAME` and messages have it
    predict_mode: ClassVar[str] = "classify"  # the mode of `predict` that serves it
    length_limit: ClassVar[str] = "length"  # the field of TokenLimits beyond which a text is truncated

    # The model.
    pooled: ClassVar[bool] = False  # the head reads [CLS], through the pooler where there is one, else every token
    dropout_before_head: ClassVar[bool] = True
    scores_per_label: ClassVar[int] = 1  # outputs of the head where there are no classes; 0: there is no head
    bi_encoder: ClassVar[bool] = False  # encodes each text on its own, to a vector
    data_kind: ClassVar[str] = ""  # the kind whose examples and scores it has; "": its own

    # Labels.
    label_dtype: ClassVar[Any] = np.int32
    label_per_token: ClassVar[bool] = False  # and so its own table may be a file of a word per line
    has_labels: ClassVar[bool] = True
    has_classes: ClassVar[bool] = False  # labels are names of classes
    exclusive: ClassVar[bool] = True  # of the classes exactly one holds
    confusion_matrix: ClassVar[bool] = False
    default_metric: ClassVar[str] = ""  # that chooses among runs; "": the task's

    # A user's own table.
    own_table: ClassVar[bool] = False  # there is a task table/NAME
    table_text_type: ClassVar[Any] = str  # in a file of JSON lines
    table_label_type: ClassVar[Any] = table_records.Label

    # `transformers`.
    transformers_class: ClassVar[str] = "ForSequenceClassification"  # without the family's name
    transformers_head: ClassVar[str] = "classifier"
    problem_type: ClassVar[str] = ""

    # -- from examples to batches

    def encode(self, number: int, example: Any, encoder: ExampleEncoder) -> list[EncodedExample]:
        """The rows of an example; `number` is its place among all."""
        return [encoder.join_texts(number, example, example.label)]

    def encode_all(self, examples: Sequence[Any], encoder: ExampleEncoder) -> list[EncodedExample]:
        """The rows of all examples, in order.

        Raises:
          UserError: a text that is far too long, or that the kind cannot read, with its file and row.
        """
        check_lengths(examples)
        return [row for number, example in enumerate(examples) for row in self.encode(number, example, encoder)]

    def label_shape(self, labels: int) -> tuple[int, ...]:
        """The shape of one label, where it is not a single number; `labels`: number of classes."""
        return ()

    def empty_targets(self, units: tuple[int, ...], tokens: tuple[int, ...], labels: int) -> dict[str, np.ndarray]:
        """`labels` and `weights` of a batch, all 0; `tokens` is the shape of its rows."""
        shape = tokens if self.label_per_token else units
        label = np.zeros((*shape, *self.label_shape(labels)), self.label_dtype)
        return {"labels": label, "weights": np.zeros(shape, np.float32)}

    def write_target(self, targets: dict[str, np.ndarray], row: EncodedExample, unit: Any, begin: int) -> None:
        """Writes the label of a row's unit; the row's tokens begin at `begin`."""
        targets["labels"][unit], targets["weights"][unit] = row.label, 1

    # -- the model and its loss

    def outputs(self, labels: Sequence[str]) -> int:
        """How many outputs the head has."""
        return len(labels) if self.has_classes else self.scores_per_label

    def model(self, config: ModelConfig, labels: Sequence[str]) -> FinetuningModel | SentenceModel:
        """The model, with the defaults of how it is computed."""
        return FinetuningModel(config, self.outputs(labels), self.pooled, self.dropout_before_head)

    def class_logits(self, logits: jax.Array, batch: Arrays) -> jax.Array:
        """Logits with the classes, of which one is right, along the last axis."""
        return logits

    def losses(self, outputs: Arrays, batch: Arrays) -> jax.Array:
        """The loss of each label, of the weights' shape; here the cross-entropy."""
        return cross_entropy(self.class_logits(outputs["logits"], batch), batch["labels"])[0]

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Arrays, temperature: float) -> jax.Array:
        """The distance of the logits from a teacher's, of the weights' shape; here the divergence of its classes."""
        return divergence(self.class_logits(student, batch), self.class_logits(teacher, batch), temperature)

    def terms(self, outputs: Arrays, batch: Arrays) -> dict[str, Term]:
        """The one term `task_loss`."""
        return {"task_loss": weighted(self.losses(outputs, batch), batch["weights"])}

    def weights(self, batch: Arrays) -> dict[str, jax.Array]:
        """The weight of the term, from the batch alone."""
        return {"task_loss": jnp.sum(batch["weights"])}

    def distillation_terms(self, outputs: Arrays, batch: Arrays, temperature: float) -> dict[str, Term]:
        """`task_loss`, and `soft_loss` against the batch's `teacher_logits`, of the logits' shape."""
        losses = self.soft_losses(outputs["logits"], batch["teacher_logits"], batch, temperature)
        return self.terms(outputs, batch) | {"soft_loss": weighted(losses, batch["weights"])}

    def distillation_weights(self, batch: Arrays) -> dict[str, jax.Array]:
        """The weights of these terms, from the batch alone."""
        return dict.fromkeys(("task_loss", "soft_loss"), jnp.sum(batch["weights"]))

    # -- from scores to predictions

    def row_scores(self, outputs: Arrays) -> jax.Array:
        """What `predictions` needs of the model's outputs: [rows, …]."""
        return outputs["logits"]

    def predictions(
        self, examples: Sequence[Any], rows: Sequence[EncodedExample], scores: Sequence[np.ndarray], limits: TokenLimits
    ) -> list[Prediction]:
        """A prediction for each example; `scores` are those of each row."""
        of_example: list[list[tuple[EncodedExample, np.ndarray]]] = [[] for _ in examples]
        for row, score in zip(rows, scores, strict=True):
            of_example[row.example].append((row, np.asarray(score, np.float64)))
        return [self.decide(example, scored, limits) for example, scored in zip(examples, of_example, strict=True)]

    def example_scores(self, scored: Scored) -> np.ndarray:
        """The scores of an example's classes, those of its first row."""
        return scored[0][1]

    def decide(self, example: Any, scored: Scored, limits: TokenLimits) -> Prediction:
        """The prediction for one example; here the likeliest class."""
        logits = self.example_scores(scored)
        return Prediction(int(np.argmax(logits)), softmax(logits))

    def describe(self, example: Any, prediction: Prediction, labels: tuple[str, ...], threshold: float) -> dict:
        """A line of a split's predictions; `threshold`: null_odds above which a question has no answer."""

        def named(value: Any) -> Any:
            if value is None or not labels:
                return value
            return [labels[number] for number in value] if isinstance(value, tuple) else labels[value]

        right = getattr(example, "label", getattr(example, "labels", None))
        record = {"id": example.id, "prediction": named(prediction.value), "label": named(right)}
        if prediction.probabilities is None:
            return record
        return record | {"probabilities": np.round(np.asarray(prediction.probabilities), 6).tolist()}

    def score_files(self, examples: Sequence[Any], predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
        """What official scripts want beside that: suffix of a JSON file → its content."""
        return {}

    # -- `predict`

    def read_input(self, value: Any, where: str) -> Any:
        """The example of what a user typed, here of a text or a pair of texts; `where` names it in messages.

        Raises:
          UserError: it is no example of the kind.
        """
        return user_io.read_text(value, where)

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """What a user is shown of a prediction; `top`: how many answers. Bi-encoders show vectors instead."""
        raise NotImplementedError

    # -- a user's own table

    def table_columns(self, table: Table) -> Table:
        """The table as its records are read: `label` names the column with what is to be learned.

        Raises:
          UserError: a column is missing.
        """
        return table

    def table_texts(self, table: Table) -> int:
        """Rows per example."""
        return 1

    def table_classes(self, record: Record) -> list[str]:
        """The names of the classes of a record with a label."""
        return [table_records.class_name(record.label, record.where)]

    def table_label(self, record: Record, numbers: Mapping[str, int]) -> Any:
        """The label of a record that has one; `numbers` are those of the classes."""
        return table_records.class_numbers(self.table_classes(record), numbers, record.where)[0]

    def table_example(self, identity: str, record: Record, numbers: Mapping[str, int]) -> Any:
        """The example of a record.

        Raises:
          UserError: what is wrong with it, with its row.
        """
        label = None if record.label is None else self.table_label(record, numbers)
        return table_records.text_example(identity, record, label)

    def default_score(self, labels: tuple[str, ...]) -> tuple[Score, str]:
        """The scores of (examples, predictions) unless a task has others, and the name of the one that chooses."""
        raise NotImplementedError

    # -- `transformers`

    def transformers_inputs(self, array: np.ndarray) -> np.ndarray:
        """An input [rows, length] as the class reads it."""
        return array

    def transformers_logits(self, outputs: Any) -> np.ndarray:
        """The class's scores, as our model has them."""
        return outputs.logits.numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
