"""The base class of task kinds.

A kind holds everything that depends on the type of prediction: the encoding of examples, their labels in a batch, the
model and its loss, the predictions made from its scores, and their form in inputs, tables and exported models. Code
outside this package never asks which kind it has.

To add a kind, write a module `NAME.py` in this package with a subclass of `TaskKind` whose `name` is NAME, and list the
class in catalog.py. Set `name`, define `record`, and override the hooks that differ from classification of one text or
two. CONTRIBUTING.md lists the tests to add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.arrays.types import Batch
from bertjax.config.finetuning import TableConfig
from bertjax.config.model import ModelConfig
from bertjax.data.batch import HostBatch
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.sentence import SentenceModel
from bertjax.objectives.distillation import divergence
from bertjax.objectives.terms import Term, cross_entropy, weighted
from bertjax.tasks import table_records, user_io
from bertjax.tasks.encoding import EncodedExample, ExampleEncoder, check_lengths
from bertjax.tasks.examples import Example, Label, TextExample
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
from bertjax.tasks.scores import Score
from bertjax.tasks.table_records import TableRecord

ExampleT = TypeVar("ExampleT", bound=Example)
ValueT = TypeVar("ValueT")

# The sequences of one example, each with the model's scores: f64 [outputs], or [length, outputs] from a head per token.
ScoredSequences: TypeAlias = Sequence[tuple[EncodedExample, np.ndarray]]
# The index of a unit in `labels` and `weights`: its number, or in packed rows (row, slot).
UnitIndex: TypeAlias = int | tuple[int, int]

_NO_PROBABILITIES = np.zeros(0)


@dataclass(frozen=True)
class Prediction(Generic[ValueT]):
    """The prediction for one example.

    Attributes:
      value: the prediction itself; the docstring of the kind gives its type.
      probabilities: of the classes [labels], of the choices [choices], or of the classes of each word [words, labels];
        empty if the kind has none.
      best: span: the likeliest answers with their probabilities, likeliest first; "" stands for no answer.
    """

    value: ValueT
    probabilities: np.ndarray = field(default_factory=lambda: _NO_PROBABILITIES)
    best: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class TaskKind(Generic[ExampleT]):
    """A type of prediction, for examples of the class `ExampleT`.

    The defaults implement the classification of one text or two into one of several classes. The docstring of a
    subclass states the type of `Prediction.value`, and the shape and dtype of `labels` in a batch.

    A *unit* is the sequences of one example that must be in the same batch. Every batch has `labels` and `weights`,
    whose shapes begin with [units], or with [rows, slots] if rows are packed. Units of weight 0 are padding.
    """

    name: ClassVar[str]  # in checkpoints, messages and the task name `table/NAME`
    predict_mode: ClassVar[str] = "classify"  # mode of `predict` for models of the kind
    length_limit: ClassVar[str] = "length"  # field of TokenLimits beyond which a text is truncated

    # Model.
    pooled: ClassVar[bool] = False  # the head reads [CLS], through the pooler if the model has one; else every token
    dropout_before_head: ClassVar[bool] = True
    head_size: ClassVar[int] = 1  # outputs of the head if the kind has no classes; 0: no head
    bi_encoder: ClassVar[bool] = False  # encodes each text separately, to a vector
    data_kind: ClassVar[str] = ""  # name of the kind whose examples and scores it shares; "": its own

    # Labels.
    label_dtype: ClassVar[type[np.generic]] = np.int32
    label_per_token: ClassVar[bool] = False  # `labels` are [rows, length]; tables may be files with one word per line
    has_labels: ClassVar[bool] = True
    has_classes: ClassVar[bool] = False  # labels are class names
    exclusive: ClassVar[bool] = True  # exactly one class is right
    confusion_matrix: ClassVar[bool] = False  # draw one after a sweep
    default_metric: ClassVar[str] = ""  # score that selects the best run; "": the task's metric

    # Tables of the user.
    has_table_task: ClassVar[bool] = False  # the task `table/NAME` exists
    table_text_type: ClassVar[type | UnionType] = str  # of the text column in a JSON Lines file
    table_label_type: ClassVar[type | UnionType] = table_records.LabelCell  # of the label column there

    # Export to `transformers`.
    transformers_class: ClassVar[str] = "ForSequenceClassification"  # class name without the model family
    transformers_head: ClassVar[str] = "classifier"  # attribute that holds the head
    problem_type: ClassVar[str] = ""  # `problem_type` of the exported config

    # -- from examples to batches

    def encode(self, index: int, example: ExampleT, encoder: ExampleEncoder) -> list[EncodedExample]:
        """Encodes an example as one sequence, or as several: choices, windows, or separately encoded texts.

        By default joins the one or two texts of a `TextExample`.

        Args:
          index: position of the example in its split, stored in `EncodedExample.example`.
          example: the example; its label is None if unknown.
          encoder: the tokenizer with the token limits.
        """
        if not isinstance(example, TextExample):
            raise NotImplementedError(f"{type(self).__name__}: override encode, the default reads only a TextExample")
        return [encoder.join_texts(index, example, example.label)]

    def encode_all(self, examples: Sequence[ExampleT], encoder: ExampleEncoder) -> list[EncodedExample]:
        """Encodes all examples in order.

        Raises:
          UserError: a text is far too long or unreadable for the kind; the message gives its file and place.
        """
        check_lengths(examples)
        return [sequence for index, example in enumerate(examples) for sequence in self.encode(index, example, encoder)]

    def label_shape(self, labels: int) -> tuple[int, ...]:
        """Returns the shape of one label, () for a number; `labels` is the number of classes."""
        return ()

    def empty_targets(self, units: tuple[int, ...], tokens: tuple[int, ...], labels: int) -> HostBatch:
        """Returns `labels` and `weights` filled with 0.

        Args:
          units: [units] or, in packed rows, [rows, slots].
          tokens: [rows, length].
          labels: number of classes.
        """
        shape = tokens if self.label_per_token else units
        label = np.zeros((*shape, *self.label_shape(labels)), self.label_dtype)
        return {"labels": label, "weights": np.zeros(shape, np.float32)}

    def write_target(self, targets: HostBatch, sequence: EncodedExample, unit: UnitIndex, begin: int) -> None:
        """Writes the label of a unit and its weight 1 into `targets`.

        Args:
          targets: the arrays of `empty_targets`.
          sequence: the first sequence of the unit; it has a label.
          unit: index of the unit.
          begin: position of the sequence's first token in its row.
        """
        targets["labels"][unit], targets["weights"][unit] = sequence.label, 1

    # -- model and loss

    def outputs(self, labels: Sequence[str]) -> int:
        """Returns the number of outputs of the head; `labels` are the class names."""
        return len(labels) if self.has_classes else self.head_size

    def model(self, config: ModelConfig, labels: Sequence[str]) -> FinetuningModel | SentenceModel:
        """Returns the model; callers set its `computation` and `features`."""
        return FinetuningModel(config, self.outputs(labels), self.pooled, self.dropout_before_head)

    def class_logits(self, logits: jax.Array, batch: Batch) -> jax.Array:
        """Returns the model's logits rearranged to [..., classes], one of which is right."""
        return logits

    def losses(self, outputs: Batch, batch: Batch) -> jax.Array:
        """Returns the loss of each label, in the shape of `weights`; by default the cross-entropy.

        Args:
          outputs: the model's outputs, e.g. `logits`.
          batch: the inputs with `labels` and `weights`.
        """
        return cross_entropy(self.class_logits(outputs["logits"], batch), batch["labels"])[0]

    def soft_losses(self, student: jax.Array, teacher: jax.Array, batch: Batch, temperature: float) -> jax.Array:
        """Returns the distance of two models' logits, in the shape of `weights`; by default the KL divergence."""
        return divergence(self.class_logits(student, batch), self.class_logits(teacher, batch), temperature)

    def terms(self, outputs: Batch, batch: Batch) -> dict[str, Term]:
        """Returns the term `task_loss` of the objective."""
        return {"task_loss": weighted(self.losses(outputs, batch), batch["weights"])}

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the weights of `terms`, which depend on the batch alone."""
        return {"task_loss": jnp.sum(batch["weights"])}

    def distillation_terms(self, outputs: Batch, batch: Batch, temperature: float) -> dict[str, Term]:
        """Returns `task_loss`, and `soft_loss` against `teacher_logits` of the batch, shaped as the logits."""
        losses = self.soft_losses(outputs["logits"], batch["teacher_logits"], batch, temperature)
        return self.terms(outputs, batch) | {"soft_loss": weighted(losses, batch["weights"])}

    def distillation_weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the weights of `distillation_terms`, which depend on the batch alone."""
        return dict.fromkeys(("task_loss", "soft_loss"), jnp.sum(batch["weights"]))

    # -- from scores to predictions

    def row_scores(self, outputs: Batch) -> jax.Array:
        """Returns the scores [rows, ...] that `predictions` needs from the model's outputs."""
        return outputs["logits"]

    def predictions(
        self,
        examples: Sequence[ExampleT],
        sequences: Sequence[EncodedExample],
        scores: Sequence[np.ndarray],
        limits: TokenLimits,
    ) -> list[Prediction]:
        """Returns a prediction for each example; `scores` has an entry per sequence."""
        scored: list[list[tuple[EncodedExample, np.ndarray]]] = [[] for _ in examples]
        for sequence, score in zip(sequences, scores, strict=True):
            scored[sequence.example].append((sequence, np.asarray(score, np.float64)))
        return [self.decide(example, pairs, limits) for example, pairs in zip(examples, scored, strict=True)]

    def example_scores(self, scored: ScoredSequences) -> np.ndarray:
        """Returns the class scores of an example; by default those of its first sequence."""
        return scored[0][1]

    def decide(self, example: ExampleT, scored: ScoredSequences, limits: TokenLimits) -> Prediction:
        """Returns the prediction for one example; by default the likeliest class."""
        logits = self.example_scores(scored)
        return Prediction(int(np.argmax(logits)), softmax(logits))

    def describe(
        self, example: ExampleT, prediction: Prediction, labels: tuple[str, ...], threshold: float
    ) -> dict[str, object]:
        """Returns the record of an example in the predictions file of a split.

        Args:
          example: the example.
          prediction: the prediction for it.
          labels: the class names, in the order of the model's outputs.
          threshold: span: null odds above which a question is predicted to have no answer.
        """

        def label_names(value: Label | None) -> object:
            if value is None or not labels:
                return value
            return [labels[number] for number in value] if isinstance(value, tuple) else labels[int(value)]

        right = getattr(example, "label", getattr(example, "labels", None))
        record = {"id": example.id, "prediction": label_names(prediction.value), "label": label_names(right)}
        if not prediction.probabilities.size:
            return record
        return record | {"probabilities": np.round(prediction.probabilities, 6).tolist()}

    def score_files(
        self, examples: Sequence[ExampleT], predictions: Sequence[Prediction]
    ) -> Mapping[str, Mapping[str, object]]:
        """Returns additional JSON files for official scoring scripts: suffix of the file name → content."""
        return {}

    # -- `predict`

    def read_input(self, value: object, where: str) -> Example:
        """Returns the example for an input of `predict`; by default a text or a pair of texts.

        Args:
          value: the input: a Python value, or a decoded line of JSON.
          where: name of the input in error messages.

        Raises:
          UserError: the input does not have the form of the kind.
        """
        return user_io.read_text(value, where)

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, object]:
        """Returns the fields of a prediction in the output of `predict`.

        Every kind must define it except bi-encoders, for which `predict` returns vectors.

        Args:
          prediction: the prediction.
          task: metadata of the model, e.g. its class names.
          top: maximum number of alternative answers.
        """
        raise NotImplementedError

    # -- tables of the user

    def table_columns(self, table: TableConfig) -> TableConfig:
        """Returns the columns to read; its `label` names the column that becomes `TableRecord.label`.

        Raises:
          UserError: the config lacks a column that the kind needs.
        """
        return table

    def texts_per_example(self, table: TableConfig) -> int:
        """Returns the number of sequences per example of a table."""
        return 1

    def table_classes(self, record: TableRecord) -> list[str]:
        """Returns the class names in the label of a record; the record has a label."""
        return [table_records.class_name(record.label, record.where)]

    def table_label(self, record: TableRecord, numbers: Mapping[str, int]) -> Label:
        """Returns the label of a record that has one; `numbers` maps class names to class indices."""
        return table_records.class_numbers(self.table_classes(record), numbers, record.where)[0]

    def table_example(self, identity: str, record: TableRecord, numbers: Mapping[str, int]) -> Example:
        """Returns the example for a record; by default a `TextExample` with the label of `table_label`.

        Args:
          identity: ID of the example.
          record: the cells; its label is None in unlabeled files.
          numbers: class name → class index.

        Raises:
          UserError: a cell is invalid; the message gives its file and place.
        """
        label = None if record.label is None else self.table_label(record, numbers)
        return table_records.text_example(identity, record, label)

    def default_score(self, labels: tuple[str, ...]) -> tuple[Score, str]:
        """Returns the scoring function of `table/NAME`, and the name of the score that selects the best run.

        The function takes examples and the values of their predictions. Kinds with `has_table_task` must define it.
        """
        raise NotImplementedError

    # -- export to `transformers`

    def transformers_inputs(self, array: np.ndarray) -> np.ndarray:
        """Returns an input array [rows, length] in the shape that the `transformers` class expects."""
        return array

    def transformers_logits(self, outputs: Any) -> np.ndarray:  # noqa: ANN401
        """Returns the outputs of the `transformers` class as logits of our model's shape."""
        return outputs.logits.numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
