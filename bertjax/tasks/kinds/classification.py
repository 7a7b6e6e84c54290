"""Classification of one text or two into one of several classes."""

from collections.abc import Sequence

from bertjax.tasks import scores
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.base import Prediction, TaskKind
from bertjax.tasks.metadata import TaskMetadata
from bertjax.tasks.user_io import rounded


class Classification(TaskKind[TextExample]):
    """Predicts the index of the class, an int; `labels` are int [units]."""

    name = "classification"
    pooled = True
    has_classes = True
    confusion_matrix = True
    has_table_task = True
    problem_type = "single_label_classification"

    def record(self, prediction: Prediction[int], task: TaskMetadata, top: int) -> dict[str, object]:
        """Returns the class, and the probabilities of all classes."""
        probabilities = dict(zip(task.labels, rounded(prediction.probabilities), strict=True))
        label = task.labels[prediction.value]
        return {"label": label, "probability": probabilities[label], "probabilities": probabilities}

    def default_score(self, labels: Sequence[str]) -> tuple[scores.Score, str]:
        """Accuracy and macro F1; selects by accuracy."""
        return scores.label_score(scores.accuracy_and_macro_f1), "accuracy"
