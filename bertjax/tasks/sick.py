"""SICK (Marelli et al., SemEval 2014 task 1): relatedness from 1 to 5, and entailment."""

import functools

from bertjax.tasks import scores
from bertjax.tasks.text_task import TextTask

_sick_task = functools.partial(
    TextTask,
    folders=("sick", "SICK"),
    files={"train": ("SICK_train.txt",), "dev": ("SICK_trial.txt",), "test": ("SICK_test_annotated.txt",)},
    index="pair_ID",
    texts=("sentence_A", "sentence_B"),
    dev=("dev", "test"),
    test=(),
    in_tfds=False,
)

TASKS = {
    "relatedness": _sick_task(label="relatedness_score", score=scores.correlations, metric="pearson"),
    "entailment": _sick_task(label="entailment_judgment", labels=("ENTAILMENT", "NEUTRAL", "CONTRADICTION")),
}
