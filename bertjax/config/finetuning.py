"""Config of fine-tuning: frozen dataclasses with every key and its description.

The defaults are BERT's recipe (Devlin et al. 2018, arXiv:1810.04805, appendix A.3).
"""

import dataclasses
import itertools

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

FEATURES = ("last", "concat_last_4", "weighted_sum")  # described in bertjax/model/finetuning.py


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """Constants of AdamW and the learning-rate schedule; the sweep sets the peak learning rate."""

    schedule: str = setting(
        "linear", "Learning-rate schedule after warm-up.", tuple(name for name in SCHEDULES if name != "wsd")
    )
    warmup: float = setting(
        0.1, "Linear learning-rate warm-up, as a fraction of the steps of a run.", Range(at_least=0, below=1)
    )
    beta1: float = same_setting(0.9, OptimizerConfig, "beta1")
    beta2: float = same_setting(0.999, OptimizerConfig, "beta2")
    eps: float = same_setting(1e-6, OptimizerConfig, "eps")
    # Without it, training on small data sets often fails (Mosbach et al. 2020, arXiv:2006.04884).
    bias_correction: bool = same_setting(True, OptimizerConfig, "bias_correction")
    weight_decay: float = same_setting(0.01, OptimizerConfig, "weight_decay")
    clip_norm: float = same_setting(1.0, OptimizerConfig, "clip_norm")
    layer_decay: float = setting(
        1.0, "Learning rate of each layer as a fraction of that of the layer above.", Range(above=0, at_most=1)
    )


@dataclasses.dataclass(frozen=True)
class SentenceConfig:
    """Texts that are encoded separately, each to one vector (Reimers & Gurevych 2019, arXiv:1908.10084)."""

    bi_encoder: bool = setting(
        False, "Encode the two texts of a regression or classification example separately; retrieval always does."
    )
    pooling: str = setting(
        "mean", "Pooling of the last hidden states, including [CLS] and [SEP], to a vector.", POOLINGS
    )
    normalize: bool = setting(False, "Normalize vectors to length 1; cosine similarities do not depend on it.")
    scale: float = setting(20.0, "Retrieval: factor from cosine similarities to logits.", POSITIVE)
    lowest: float = setting(0.0, "Bi-encoder regression (task kind similarity): label that corresponds to cosine 0.")
    highest: float = setting(5.0, "Bi-encoder regression (task kind similarity): label that corresponds to cosine 1.")

    def check(self) -> None:
        """Raises UserError if settings contradict one another."""
        require(
            self.highest > self.lowest, "sentence.highest", self.highest, f"larger than sentence.lowest ({self.lowest})"
        )


@dataclasses.dataclass(frozen=True)
class TaskDistillationConfig:
    """Distillation from a larger model fine-tuned for the same task."""

    teacher: str = setting(
        "", "Workdir, checkpoint or exported folder of the teacher; empty: no distillation.", LOCAL_PATH
    )
    temperature: float = same_setting(2.0, DistillationConfig, "temperature")
    soft_weight: float = setting(
        0.5, "Weight of the divergence from the teacher's predictions; the task loss gets the remainder to 1.", FRACTION
    )


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Files of `table/…` tasks (.csv, .tsv, .jsonl; for tagging also .txt, .conll; each also .gz) and their columns."""

    train: str = setting("", "File of the train split, relative to data_dir.")
    dev: str = setting("", "File of the dev split, relative to data_dir.")
    test: str = setting("", "File of the test split, relative to data_dir.")
    text: str = setting("text", "Column of the text.")
    second: str = setting("", "Column of the second text (retrieval: the text to be found); empty: single texts.")
    negative: str = setting("", "Retrieval: column of a hard negative; empty: only in-batch negatives.")
    label: str = setting("label", "Column of the label.")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """A sweep over learning_rates × epochs × seeds that keeps the best run by dev score."""

    # data_dir and init_from are FREE because a resumed sweep compares their digests instead of their paths.
    task: str = setting("", "Name of the task, such as glue/sst2.")
    data_dir: str = setting(
        "", "Folder with the files of the task; tfds: TensorFlow Datasets.", LOCAL_PATH, resume=Resume.FREE
    )
    table: TableConfig = setting(TableConfig, "Files and columns of table/… tasks.")
    init_from: str = setting(
        "",
        'Workdir, checkpoint, Hugging Face or TF1 folder of the initial model; "random:FOLDER": its architecture only.',
        LOCAL_PATH,
        resume=Resume.FREE,
    )
    learning_rates: tuple[float, ...] = setting((5e-5,), "Peak learning rates to try.", POSITIVE, Resume.FREE)
    epochs: tuple[int, ...] = setting((3,), "Numbers of epochs to try.", AT_LEAST_ONE, Resume.FREE)
    seeds: tuple[int, ...] = setting((0,), "Seeds to try.", Range(at_least=0, below=2**32), Resume.FREE)
    batch: int = setting(32, "Examples per step over all devices.", AT_LEAST_ONE)
    length: int = setting(
        128,
        "Maximum tokens per row; longer inputs are truncated, or split into windows (span, tagging).",
        Range(at_least=8),
    )
    stride: int = setting(
        64,
        "Question answering (task kind span): tokens of the passage shared by consecutive windows.",
        NON_NEGATIVE,
    )
    question_length: int = setting(
        64, "Question answering (task kind span): maximum tokens of a question.", AT_LEAST_ONE
    )
    answer_length: int = setting(
        30, "Question answering (task kind span): maximum tokens of a predicted answer.", AT_LEAST_ONE
    )
    train_examples: int = setting(0, "Number of train examples to use, from the first on; 0: all.", NON_NEGATIVE)
    features: str = setting(
        "",
        "Features of the frozen encoder on which only a head is trained; empty: train the whole model.",
        ("", *FEATURES),
    )
    features_memory: float = setting(16.0, "Maximum host memory for the features, in GB.", POSITIVE, Resume.FREE)
    patience: int = setting(
        0, "Epochs without a better dev score before a run stops early; 0: no early stopping.", NON_NEGATIVE
    )
    hidden_dropout_prob: float = same_setting(0.1, ModelConfig, "hidden_dropout_prob")
    attention_probs_dropout_prob: float = same_setting(0.1, ModelConfig, "attention_probs_dropout_prob")
    dtype: str = same_setting("auto", Config, "dtype")
    optimizer: UpdateConfig = setting(UpdateConfig, "Optimizer constants and learning-rate schedule.")
    sentence: SentenceConfig = setting(SentenceConfig, "Encoding of texts to vectors, for bi-encoders.")
    distillation: TaskDistillationConfig = setting(TaskDistillationConfig, "Distillation from a teacher.")
    mesh: MeshConfig = same_setting(MeshConfig, Config, "mesh")
    layout: LayoutConfig = same_setting(LayoutConfig, Config, "layout")
    log_every: int = same_setting(50, Config, "log_every")

    def check(self) -> None:
        """Raises UserError if settings contradict one another."""
        require(self.task != "", "task", self.task, "the name of a task, such as glue/sst2")
        require(self.init_from != "", "init_from", self.init_from, "the folder of the initial model")
        for name in ("learning_rates", "epochs", "seeds"):
            values = getattr(self, name)
            require(len(values) > 0, name, values, "a tuple with at least one number")
            require(len(set(values)) == len(values), name, values, "without repetitions")
        if self.features:
            teacher, decay = self.distillation.teacher, self.optimizer.layer_decay
            require(not teacher, "distillation.teacher", teacher, "empty with config.features")
            rule = "1 with config.features, which freezes all layers"
            require(decay == 1, "optimizer.layer_decay", decay, rule)

    def runs(self) -> list["RunConfig"]:
        """Returns the runs of the sweep, in order."""
        combinations = itertools.product(self.learning_rates, self.epochs, self.seeds)
        return [RunConfig(rate, epochs, seed) for rate, epochs, seed in combinations]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run of a sweep."""

    learning_rate: float
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the run, short enough for a folder."""
        return f"rate-{self.learning_rate:g}-epochs-{self.epochs}-seed-{self.seed}"


def from_config_dict(config_dict: object) -> FinetuneConfig:
    """Returns the validated FinetuneConfig of a ConfigDict or plain dict.

    Raises:
      UserError: an unknown key (the message suggests the nearest key), a wrong type or a value out of range.
    """
    return checked(FinetuneConfig, config_dict)


def optimizer_config(config: UpdateConfig) -> OptimizerConfig:
    """Returns the OptimizerConfig with these settings; the caller supplies learning rate and warm-up."""
    shared = {field.name for field in dataclasses.fields(OptimizerConfig)}
    return OptimizerConfig(**{name: value for name, value in dataclasses.asdict(config).items() if name in shared})
