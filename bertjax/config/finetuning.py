"""What a fine-tuning is, as bertjax/config/pretraining.py says what a pre-training is, and what its values must be.

The defaults are BERT's recipe (Devlin et al. 2018, arXiv:1810.04805, appendix A.3).
"""

import dataclasses
import itertools
from typing import Any

from bertjax.config.fields import (
    AT_LEAST_ONE,
    FRACTION,
    LOCAL_PATH,
    NON_NEGATIVE,
    POSITIVE,
    Range,
    Resume,
    same_setting,
    setting,
)
from bertjax.config.layout import LayoutConfig, MeshConfig
from bertjax.config.model import POOLINGS, ModelConfig
from bertjax.config.optimizer import SCHEDULES, OptimizerConfig
from bertjax.config.parse import checked
from bertjax.config.pretraining import Config, DistillationConfig
from bertjax.config.validation import require

FEATURES = ("last", "concat_last_4", "weighted_sum")  # as bertjax/model/finetuning.py describes them


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """AdamW's constants; the rates are the sweep's."""

    schedule: str = setting("linear", "Decay of the learning rate.", tuple(name for name in SCHEDULES if name != "wsd"))
    warmup: float = setting(0.1, "Steps of linear warm-up, as a fraction of a run's steps.", Range(at_least=0, below=1))
    beta1: float = same_setting(0.9, OptimizerConfig, "beta1")
    beta2: float = same_setting(0.999, OptimizerConfig, "beta2")
    eps: float = same_setting(1e-6, OptimizerConfig, "eps")
    # Without it small data sets often fail (Mosbach et al. 2020, arXiv:2006.04884).
    bias_correction: bool = same_setting(True, OptimizerConfig, "bias_correction")
    weight_decay: float = same_setting(0.01, OptimizerConfig, "weight_decay")
    clip_norm: float = same_setting(1.0, OptimizerConfig, "clip_norm")
    layer_decay: float = setting(
        1.0, "Learning rate of each layer over that of the layer above.", Range(above=0, at_most=1)
    )


@dataclasses.dataclass(frozen=True)
class SentenceConfig:
    """Texts that are encoded separately, each to one vector (Reimers & Gurevych 2019, arXiv:1908.10084)."""

    bi_encoder: bool = setting(
        False, "Encode the two texts of a regression or classification separately, as retrieval does."
    )
    pooling: str = setting("mean", "Pooling of the last hidden states, [CLS] and [SEP] included.", POOLINGS)
    normalize: bool = setting(False, "Scale vectors to length 1; the cosine does so in any case.")
    scale: float = setting(20.0, "Retrieval: factor from cosines to logits.", POSITIVE)
    lowest: float = setting(0.0, "Similarity: label at cosine 0.")
    highest: float = setting(5.0, "Similarity: label at cosine 1.")

    def check(self) -> None:
        """Raises UserError for settings that contradict one another."""
        require(self.highest > self.lowest, "sentence.highest", self.highest, "larger than sentence.lowest")


@dataclasses.dataclass(frozen=True)
class TaskDistillation:
    """What the model learns from a larger one that is fine-tuned for the same task."""

    teacher: str = setting(
        "", "The teacher's workdir, checkpoint or exported folder; empty: no distillation.", LOCAL_PATH
    )
    temperature: float = same_setting(2.0, DistillationConfig, "temperature")
    soft_weight: float = setting(
        0.5, "Weight of the divergence from the teacher's predictions; the rest is the task's own loss.", FRACTION
    )


@dataclasses.dataclass(frozen=True)
class Table:
    """Files (.csv, .tsv, .jsonl; for tagging also .txt and .conll; each also .gz) and their columns."""

    train: str = setting("", "File of the train split, in data_dir.")
    dev: str = setting("", "File of the dev split.")
    test: str = setting("", "File of the test split.")
    text: str = setting("text", "Column of the text.")
    second: str = setting("", "Column of a second text (retrieval: of the text to be found); empty: single texts.")
    negative: str = setting("", "Retrieval: column of a hard negative; empty: only in-batch negatives.")
    label: str = setting("label", "Column of the label.")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """A sweep over learning_rates × epochs × seeds, of which the best on the dev split is kept."""

    # Of data_dir and init_from the digests are compared instead of the paths.
    task: str = setting("", "Name of the task, e.g. glue/sst2.")
    data_dir: str = setting("", "Folder with the task's files, or tfds.", LOCAL_PATH, resume=Resume.FREE)
    table: Table = setting(Table, "Files and columns of tasks table/….")
    init_from: str = setting(
        "",
        'Workdir, checkpoint, Hugging Face or TF1 folder to start from; "random:FOLDER" takes only its shape.',
        LOCAL_PATH,
        resume=Resume.FREE,
    )
    learning_rates: tuple[float, ...] = setting((5e-5,), "Peaks of the learning rate to try.", POSITIVE, Resume.FREE)
    epochs: tuple[int, ...] = setting((3,), "Numbers of epochs to try.", AT_LEAST_ONE, Resume.FREE)
    seeds: tuple[int, ...] = setting((0,), "Seeds to try.", Range(at_least=0, below=2**32), Resume.FREE)
    batch: int = setting(32, "Examples per step, over all devices.", AT_LEAST_ONE)
    length: int = setting(128, "Most tokens per row.", Range(at_least=8))
    stride: int = setting(64, "Span: tokens of a passage shared by two windows.", NON_NEGATIVE)
    question_length: int = setting(64, "Span: most tokens of a question.", AT_LEAST_ONE)
    answer_length: int = setting(30, "Span: most tokens of an answer.", AT_LEAST_ONE)
    train_examples: int = setting(0, "Train on the first examples only; 0: on all.", NON_NEGATIVE)
    features: str = setting(
        "", "Freeze the encoder and train a head on these features; empty: train all.", ("", *FEATURES)
    )
    features_memory: float = setting(16.0, "GB of host memory that features may take.", POSITIVE, Resume.FREE)
    patience: int = setting(0, "Epochs without a better dev score before a run stops; 0: it never does.", NON_NEGATIVE)
    hidden_dropout_prob: float = same_setting(0.1, ModelConfig, "hidden_dropout_prob")
    attention_probs_dropout_prob: float = same_setting(0.1, ModelConfig, "attention_probs_dropout_prob")
    dtype: str = same_setting("auto", Config, "dtype")
    optimizer: UpdateConfig = setting(UpdateConfig, "Update of parameters.")
    sentence: SentenceConfig = setting(SentenceConfig, "Texts that are encoded separately.")
    distillation: TaskDistillation = setting(TaskDistillation, "Loss against a teacher's outputs.")
    mesh: MeshConfig = same_setting(MeshConfig, Config, "mesh")
    layout: LayoutConfig = same_setting(LayoutConfig, Config, "layout")
    log_every: int = same_setting(50, Config, "log_every")

    def check(self) -> None:
        """Raises UserError for settings that contradict one another."""
        require(self.task != "", "task", self.task, "the name of a task, e.g. glue/sst2")
        require(self.init_from != "", "init_from", self.init_from, "the folder of a model to start from")
        for name in ("learning_rates", "epochs", "seeds"):
            values = getattr(self, name)
            require(len(values) > 0, name, values, "a tuple with at least one number")
            require(len(set(values)) == len(values), name, values, "without repetitions")
        if self.features:
            teacher, decay = self.distillation.teacher, self.optimizer.layer_decay
            require(not teacher, "distillation.teacher", teacher, "left out with config.features")
            rule = "1 with config.features, which trains no layer"
            require(decay == 1, "optimizer.layer_decay", decay, rule)

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
    return checked(FinetuneConfig, config_dict)


def optimizer_config(config: UpdateConfig) -> OptimizerConfig:
    """The same for the optimizers of pre-training, without rate and warm-up, which a run gives."""
    shared = {field.name for field in dataclasses.fields(OptimizerConfig)}
    return OptimizerConfig(**{name: value for name, value in dataclasses.asdict(config).items() if name in shared})
