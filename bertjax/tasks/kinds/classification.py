"""One text or two have one of several classes."""

from collections.abc import Sequence
from typing import Any

from bertjax.tasks import scores
from bertjax.tasks.kinds.base import Prediction, TaskKind
from bertjax.tasks.metadata import TaskMetadata
from bertjax.tasks.user_io import rounded


class Classification(TaskKind):
    """Predicts the index of the class; a batch's labels are int [units]."""

    name = "classification"
    pooled = True
    has_classes = True
    confusion_matrix = True
    own_table = True
    problem_type = "single_label_classification"

    def record(self, prediction: Prediction, task: TaskMetadata, top: int) -> dict[str, Any]:
        """The class, and the probabilities of all."""
        probabilities = dict(zip(task.labels, rounded(prediction.probabilities), strict=True))
        label = task.labels[prediction.value]
        return {"label": label, "probability": probabilities[label], "probabilities": probabilities}

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Accuracy chooses."""
        return scores.of_labels(scores.accuracy_and_macro_f1), "accuracy"
