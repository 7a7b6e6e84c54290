"""What a fine-tuning is, as bertjax/config/pretraining.py says what a pre-training is, and what its values must be.

The defaults are BERT's recipe (Devlin et al. 2018, arXiv:1810.04805, appendix A.3).
"""

import dataclasses
import itertools
from typing import Any

from bertjax.config.layout import DTYPES, LayoutConfig, MeshConfig
from bertjax.config.model import POOLINGS
from bertjax.config.optimizer import SCHEDULES, OptimizerConfig
from bertjax.config.parse import checked
from bertjax.config.validation import one_of, require, validate_machine, validate_optimizer

FEATURES = ("last", "concat_last_4", "weighted_sum")  # as bertjax/model/finetuning.py describes them


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """AdamW's constants; the rates are the sweep's."""

    schedule: str = "linear"  # linear, cosine, constant
    warmup: float = 0.1  # share of the steps
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = True  # without it small sets often fail (Mosbach et al. 2020, arXiv:2006.04884)
    weight_decay: float = 0.01  # not for biases and LayerNorm
    clip_norm: float = 1.0  # global gradient norm; 0 does not clip
    layer_decay: float = 1.0  # the rate of each layer over that of the layer above it; 1: the same for all


@dataclasses.dataclass(frozen=True)
class SentenceConfig:
    """Texts that are encoded on their own, each to a vector (Reimers & Gurevych 2019, arXiv:1908.10084)."""

    bi_encoder: bool = False  # encode the two texts of a regression or classification on their own, as retrieval does
    pooling: str = "mean"  # of the tokens' last states, [CLS] and [SEP] included: mean, cls, max
    normalize: bool = False  # to length 1; the cosine does so in any case
    scale: float = 20.0  # retrieval: of cosines as scores
    lowest: float = 0.0  # similarity: the label that stands for the cosine 0
    highest: float = 5.0  # similarity: the label that stands for the cosine 1


@dataclasses.dataclass(frozen=True)
class TaskDistillation:
    """What the model learns from a larger one that is fine-tuned for the same task."""

    teacher: str = ""  # its workdir, checkpoint or exported folder; none: no distillation
    temperature: float = 2.0  # of both models' scores
    soft_weight: float = 0.5  # of the divergence from the teacher's scores; the rest is the task's own loss


@dataclasses.dataclass(frozen=True)
class Table:
    """Files (.csv, .tsv, .jsonl; for tagging also .txt and .conll; each also .gz) and their columns."""

    train: str = ""
    dev: str = ""
    test: str = ""
    text: str = "text"
    second: str = ""  # column of a second text; "": there is one text only; for retrieval of the text to be found
    negative: str = ""  # retrieval: column of a text that is not to be found; "": there are only those of other rows
    label: str = "label"


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """A sweep over learning_rates × epochs × seeds, of which the best on the dev split is kept."""

    task: str = ""  # a name of tasks/registry.py
    data_dir: str = ""  # the folder with the task's files, or tfds
    table: Table = dataclasses.field(default_factory=Table)  # for tasks table/…: files and columns
    init_from: str = ""  # a workdir, a checkpoint, a Hugging Face or TF1 folder; "random:FOLDER" only takes its shape
    learning_rates: tuple[float, ...] = (5e-5,)
    epochs: tuple[int, ...] = (3,)
    seeds: tuple[int, ...] = (0,)
    batch: int = 32  # examples a step, over all devices
    length: int = 128  # tokens a row, at most
    stride: int = 64  # span: tokens of a passage that two windows share
    question_length: int = 64  # span: tokens of a question, at most
    answer_length: int = 30  # span: tokens of an answer, at most
    train_examples: int = 0  # only the first ones; 0: all
    features: str = ""  # freeze the encoder and train a head on last, concat_last_4 or weighted_sum of its layers
    features_memory: float = 16.0  # GB of the host's memory that features may take
    patience: int = 0  # stop after so many epochs without a better dev score and take the best; 0: run to the end
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    dtype: str = "auto"
    optimizer: UpdateConfig = dataclasses.field(default_factory=UpdateConfig)
    sentence: SentenceConfig = dataclasses.field(default_factory=SentenceConfig)
    distillation: TaskDistillation = dataclasses.field(default_factory=TaskDistillation)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    layout: LayoutConfig = dataclasses.field(default_factory=LayoutConfig)
    log_every: int = 50  # steps

    def runs(self) -> list["Run"]:
        """All runs of the sweep, in order."""
        chosen = itertools.product(self.learning_rates, self.epochs, self.seeds)
        return [Run(rate, epochs, seed) for rate, epochs, seed in chosen]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep."""

    learning_rate: float
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """Short enough for a folder."""
        return f"rate-{self.learning_rate:g}-epochs-{self.epochs}-seed-{self.seed}"


def from_config_dict(config_dict: Any) -> FinetuneConfig:
    """The checked FinetuneConfig of a ConfigDict or plain dict.

    Raises:
      UserError: an unknown key (the nearest known one is named), a value of another type or out of range.
    """
    return checked(FinetuneConfig, config_dict, _validate)


def optimizer_config(config: UpdateConfig) -> OptimizerConfig:
    """The same for the optimizers of pre-training, without rate and warm-up, which a run gives."""
    shared = {field.name for field in dataclasses.fields(OptimizerConfig)}
    return OptimizerConfig(**{name: value for name, value in dataclasses.asdict(config).items() if name in shared})


def _validate(config: FinetuneConfig) -> None:
    require(config.task != "", "task", config.task, "the name of a task, e.g. glue/sst2")
    require(config.init_from != "", "init_from", config.init_from, "the folder of a model to start from")
    for name in ("learning_rates", "epochs", "seeds"):
        values = getattr(config, name)
        require(len(values) > 0, name, values, "a tuple with at least one number")
        require(len(set(values)) == len(values), name, values, "without repetitions")
        positive = min(values) >= 0 if name == "seeds" else min(values) > 0
        require(positive, name, values, "of positive numbers")
    require(max(config.seeds) < 2**32, "seeds", config.seeds, "under 2**32")
    for name in ("batch", "answer_length", "question_length", "log_every"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "1 or larger")
    require(config.length >= 8, "length", config.length, "8 or larger")
    for name in ("train_examples", "patience", "stride"):
        require(getattr(config, name) >= 0, name, getattr(config, name), "0 or larger")
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        require(0 <= getattr(config, name) < 1, name, getattr(config, name), "at least 0 and under 1")
    one_of("dtype", config.dtype, DTYPES)
    validate_machine(config.mesh, config.layout)
    if config.features:
        one_of("features", config.features, FEATURES)
    require(config.features_memory > 0, "features_memory", config.features_memory, "larger than 0")
    sentence = config.sentence
    one_of("sentence.pooling", sentence.pooling, POOLINGS)
    require(sentence.scale > 0, "sentence.scale", sentence.scale, "larger than 0")
    require(sentence.highest > sentence.lowest, "sentence.highest", sentence.highest, "larger than sentence.lowest")
    distillation = config.distillation
    require(distillation.temperature > 0, "distillation.temperature", distillation.temperature, "larger than 0")
    weight = distillation.soft_weight
    require(0 <= weight <= 1, "distillation.soft_weight", weight, "from 0 to 1")
    taught = config.features and distillation.teacher
    require(not taught, "distillation.teacher", distillation.teacher, "left out with config.features")
    update = config.optimizer
    one_of("optimizer.schedule", update.schedule, tuple(name for name in SCHEDULES if name != "wsd"))
    validate_optimizer(optimizer_config(update))
    require(0 <= update.warmup < 1, "optimizer.warmup", update.warmup, "at least 0 and under 1")
    require(0 < update.layer_decay <= 1, "optimizer.layer_decay", update.layer_decay, "larger than 0, at most 1")
    decays = config.features and update.layer_decay < 1
    require(not decays, "optimizer.layer_decay", update.layer_decay, "1 with config.features, which trains no layer")
