"""SICK (Marelli et al., SemEval 2014 task 1): relatedness from 1 to 5, and entailment."""

from bertjax.tasks import scores
from bertjax.tasks.text_task import TextTask

_FILES = {
    "train": ("SICK_train.txt",),
    "dev": ("SICK_trial.txt",),
    "test": ("SICK_test_annotated.txt",),
}
_SENTENCES = ("sentence_A", "sentence_B")

TASKS = {
    "relatedness": TextTask(
        folders=("sick", "SICK"),
        files=_FILES,
        index="pair_ID",
        texts=_SENTENCES,
        label="relatedness_score",
        score=scores.correlations,
        metric="pearson",
        dev=("dev", "test"),
        test=(),
    ),
    "entailment": TextTask(
        folders=("sick", "SICK"),
        files=_FILES,
        index="pair_ID",
        texts=_SENTENCES,
        label="entailment_judgment",
        labels=("ENTAILMENT", "NEUTRAL", "CONTRADICTION"),
        score=scores.accuracy,
        metric="accuracy",
        dev=("dev", "test"),
        test=(),
    ),
}
