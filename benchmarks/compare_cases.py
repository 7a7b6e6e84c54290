"""The cases of compare_commits.sh: command lines, and the function that compares the results.

For a renamed flag, key or file of configs/ a case contains both names, `old|new`; each tree uses the one it has.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compare_results import (
    compare_corpora,
    compare_finetuning,
    compare_muon_training,
    compare_predictions,
    compare_training,
)

PLACEHOLDER = re.compile(r"{([\w-]+)}")


@dataclasses.dataclass(frozen=True)
class Case:
    """`python -m bertjax.MODULE WORDS --FLAG=VALUE --config.KEY=VALUE`, and the comparison of its results.

    Placeholders stand for folders: {here} is the output of the command, {CASE} that of another case, {data} is --data,
    {weights} a model of another framework, {questions} a few questions in SQuAD's format.
    """

    compare: Callable[[Path, Path], str | None]
    module: str
    flags: dict[str, str]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    words: tuple[str, ...] = ()

    @property
    def needs(self) -> set[str]:
        """The placeholders of its inputs: names of other cases, and data, weights, questions."""
        return set(PLACEHOLDER.findall(f"{self.flags} {self.settings} {self.words}")) - {"here"}


# -- the cases; each comes after those it depends on

TINY = {
    "corpus": "{prepare-pydoc}",
    "model.vocab_size": 0,
    "model.hidden_size": 64,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.intermediate_size": 128,
    "model.max_position_embeddings": 128,
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup_steps": 5,
    "phases": ({"steps": 30, "length": 64, "batch": 16}, {"steps": 10, "length": 128, "batch": 8}),
    "log_every": 1,
    "eval_every": 20,
    "eval_sequences": 64,
    "checkpoint_every": 20,
}
SHORT = {"phases": ({"steps": 10, "length": 64, "batch": 16},)}
MODERN = {
    "model.num_hidden_layers": 4,  # the first layer and a pattern of three
    "model.intermediate_size": 96,
    "model.local_attention": 16,
    "packing": 4,
    "optimizer.decay_steps": 10,
    "phases": (
        {"steps": 20, "length": 64, "batch": 8, "global_rope_theta": 10_000.0},
        {"steps": 10, "length": 128, "batch": 4},
    ),
}
STUDENT = {"distillation.teacher": "{train-bert}", "model.num_hidden_layers": 1}
TREEBANK = {
    "table.train": "en_ewt-ud-dev.conllu",  # --data contains no training part
    "table.dev": "en_ewt-ud-test.conllu",
    "train_examples": 300,
    "batch": 8,
    "learning_rates": (1e-2,),  # high enough to learn some tags from a nearly untrained model
}
WINDOWS = {"length": 64, "stride": 16, "question_length": 16, "batch": 8}
TEXTS = ("The value of a list is returned.", "Is raised if does the file not exists.", "Ada lives in London .")
MASKED = ("Paris is the capital of [MASK].", "The [MASK] of the list is [MASK].")
QUESTION = ("Who made the lamp?", "Grace saw the ship. Ada made the lamp in 1843. It was sold a year later.")


def prepare(source: str, tokenizer: str) -> Case:
    flags = {"source": source, "tokenizer": f"new:{tokenizer}:2000", "heldout": "0.05", "shard_megabytes": "1"}
    return Case(compare_corpora, "prepare", flags | {"output": "{here}"})


def train(config: str, settings: dict[str, Any], compare: Any = compare_training) -> Case:
    return Case(compare, "train", {"config": f"configs/{config}.py", "workdir": "{here}"}, TINY | settings)


def finetune(config: str, init_from: str, data: str, settings: dict[str, Any]) -> Case:
    short = {"init_from": init_from, "data_dir": data, "learning_rates": (5e-4,), "epochs": (1,), "log_every": 1}
    return Case(compare_finetuning, "finetune", {"config": f"configs/{config}", "workdir": "{here}"}, short | settings)


def predict(mode: str, checkpoint: str, texts: tuple[str, ...]) -> Case:
    return Case(compare_predictions, "predict", {"checkpoint": checkpoint}, words=(mode, *texts))


CASES = {
    "prepare-pydoc": prepare("pydoc:", "wordpiece"),
    "prepare-wiki": prepare("wiki:{data}/wiki/wiki_00", "bpe"),
    "train-bert": train("base", {}),
    "train-modern": train("modern_base", MODERN),
    "train-distilled": train("distilbert_base", STUDENT),
    "train-muon": train("base", SHORT | {"optimizer.name": "muon"}, compare_muon_training),
    "train-lamb": train("base", SHORT | {"optimizer.name": "lamb"}),
    "finetune-cola": finetune("glue.py:cola", "{weights}", "{data}/glue", {"train_examples": 500}),
    "finetune-pos": finetune("tagging.py:conllu/upos", "{train-bert}", "{data}/ud_ewt", TREEBANK),
    "finetune-squad": finetune("squad.py:v1.1", "{weights}", "{questions}", WINDOWS),
    "predict-fill-mask": predict("fill-mask", "{weights}", MASKED),
    "predict-classify": predict("classify", "{finetune-cola}", TEXTS),
    "predict-tag": predict("tag", "{finetune-pos}", TEXTS),
    "predict-answer": predict("answer", "{finetune-squad}", QUESTION),
    "predict-embed": predict("embed", "{train-bert}", TEXTS),
}


def write_questions(folder: Path) -> Path:
    """Writes questions about passages of three sentences in SQuAD's format, and returns the folder."""
    folder.mkdir(exist_ok=True)
    makers, things = (
        ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald"),
        ("lamp", "ship", "book", "engine", "clock"),
    )
    for split, years in (("train", range(1843, 1846)), ("dev", range(1900, 1901))):
        paragraphs = []
        for year, maker, thing in itertools.product(years, makers, things):
            passage = f"It was a cold winter. {maker} made the {thing} in {year}. It was sold a year later."
            answer = {"text": maker, "answer_start": passage.index(maker)}
            question = {"id": f"{year}-{maker}-{thing}", "question": f"Who made the {thing}?", "answers": [answer]}
            paragraphs.append({"context": passage, "qas": [question]})
        content = {"version": "1.1", "data": [{"title": "things", "paragraphs": paragraphs}]}
        (folder / f"{split}-v1.1.json").write_text(json.dumps(content))
    return folder
