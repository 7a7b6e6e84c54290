"""Predicts on all available devices: python -m tests.support.predictions CHECKPOINT OUTPUT

Writes predictions of a pre-trained checkpoint, without and with random heads, to OUTPUT as JSON. With several devices
task models run on the mesh fsdp 2, tensor 2, with the remaining devices on the data axis.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

from bertjax.config.finetuning import FinetuneConfig, SentenceConfig
from bertjax.config.layout import MeshConfig
from bertjax.finetuning.task_model import Split, make_task_model
from bertjax.inference.predictor import PredictOptions, make_predictor
from bertjax.interop.loading import load_model
from bertjax.model.partitioning import state_shardings
from bertjax.tasks.examples import ChoiceExample, QuestionExample, TextExample
from bertjax.tasks.kinds.base import TaskKind
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import TaskMetadata
from bertjax.tasks.task_examples import TaskExamples

TEXTS = ["a list", "the value of an expression is returned by the call of a function " * 2, "names", "it is raised"]
LABELS = {"classification": ("bad", "so-so", "good"), "pair_classification": ("same", "other")}
EXAMPLES = {
    "classification": [TextExample(str(i), "", text * (1 + i % 3)) for i, text in enumerate(TEXTS * 4)],
    "span": [QuestionExample("0", "", "Which list?", TEXTS[1] * 4), QuestionExample("1", "", "What?", TEXTS[3])],
    "pair_classification": [TextExample(str(i), "", text, TEXTS[i % 4]) for i, text in enumerate(TEXTS[1:] * 3)],
    "retrieval": [ChoiceExample(str(i), "", text, (f"{text} {i}",)) for i, text in enumerate(TEXTS * 2)],
}


def with_head(model, kind: TaskKind, labels: tuple[str, ...]):
    """Returns the model with a random head."""
    rng, count = np.random.default_rng(0), kind.outputs(labels)
    parts = ("embeddings", "encoder", *(("pooler",) if kind.pooled else ()))
    params = {name: model.params[name] for name in parts}
    if count:
        width = (3 if kind.bi_encoder else 1) * model.config.model.hidden_size
        head = {"kernel": rng.normal(size=(width, count)), "bias": rng.normal(size=count)}
        params["task_head"] = {name: np.asarray(array, np.float32) for name, array in head.items()}
    return dataclasses.replace(model, params=params, task=TaskMetadata("", kind.name, labels))


def task_predictions(model, kind: TaskKind, labels: tuple[str, ...]) -> list[dict]:
    """The predictions for all examples, computed as in fine-tuning."""
    choices = 2 if kind.bi_encoder else 1
    task = TaskExamples("", kind, labels, lambda split: EXAMPLES[kind.name], lambda *_: {}, "", choices=choices)
    is_sharded = jax.device_count() > 1
    config = FinetuneConfig(
        batch=8,
        length=48,
        stride=8,
        mesh=MeshConfig(fsdp=2, tensor=2) if is_sharded else MeshConfig(),
        sentence=SentenceConfig(bi_encoder=kind.bi_encoder),
    )
    if kind.data_kind:
        task = dataclasses.replace(task, kind=kind_named(kind.data_kind))
    task_model = make_task_model(config, task, model.config.model, model.tokenizer)
    split: Split = task_model.split("dev")
    params = jax.device_put(model.params, state_shardings(model.params, task_model.mesh))
    predictions = task_model.predictions(params, split)
    return [kind.describe(*pair, labels, 0.0) for pair in zip(split.examples, predictions, strict=True)]


def main(checkpoint: str, output: str) -> None:
    """Writes all predictions."""
    model = load_model(checkpoint)
    tuned = {name: with_head(model, kind_named(name), LABELS.get(name, ())) for name in EXAMPLES}
    masked = [f"{text} [MASK] of a [MASK]" for text in TEXTS]
    answers = {
        "devices": jax.device_count(),
        "fill-mask": make_predictor(model)(masked),
        "embed": make_predictor(model, "embed")(TEXTS),
    }
    for options in (PredictOptions(), PredictOptions(weight_dtype="int8"), PredictOptions(dtype="bfloat16")):
        name = f"classify {options.dtype} {options.weight_dtype}"
        answers[name] = make_predictor(tuned["classification"], options=options)([*TEXTS * 5, TEXTS[0]])
    answers["answer"] = make_predictor(tuned["span"])([("Which list?", TEXTS[1] * 4), ("What?", TEXTS[3])])
    for name in EXAMPLES:
        answers[f"task {name}"] = task_predictions(tuned[name], kind_named(name), LABELS.get(name, ()))
    Path(output).write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
