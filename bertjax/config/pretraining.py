"""Config of pre-training: frozen dataclasses with every key and its description.

The `get_config()` of a config file starts from `parse.default_config()`, which holds every key, and sets others.

The defaults are BERT-Base as published (Devlin et al. 2018, arXiv:1810.04805, appendix A.2).
"""

import dataclasses

from bertjax.config.data import PAIR_TASKS, MaskingConfig, Sequencing
from bertjax.config.fields import (
    AT_LEAST_ONE,
    FRACTION,
    LOCAL_PATH,
    NON_NEGATIVE,
    POSITIVE,
    REQUIRED,
    Range,
    Resume,
    setting,
)
from bertjax.config.layout import DTYPES, LayoutConfig, MeshConfig
from bertjax.config.model import ModelConfig
from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.validation import require


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of pre-training with one batch shape."""

    steps: int = setting(REQUIRED, "Number of optimizer steps.", AT_LEAST_ONE)
    length: int = setting(REQUIRED, "Length of a row in tokens.", Range(at_least=8))
    batch: int = setting(REQUIRED, "Rows per step over all devices.", AT_LEAST_ONE)
    learning_rate: float = setting(
        0.0,
        "Peak learning rate of a schedule that restarts with this phase; 0: the schedule continues.",
        NON_NEGATIVE,
    )
    warmup_steps: int = setting(0, "Steps of linear warm-up of the restarted schedule.", NON_NEGATIVE)
    global_rope_theta: float = setting(
        0.0,
        "Rotary base of this phase; 0: model.global_rope_theta, which the last phase must use.",
        NON_NEGATIVE,
    )


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Losses of a student against a trained teacher. The default weights are DistilBERT's."""

    teacher: str = setting(  # FREE because a resumed run compares its parameters instead of its path
        "",
        "Workdir, checkpoint or exported folder of the teacher; empty: no distillation.",
        LOCAL_PATH,
        resume=Resume.FREE,
    )
    initialize: bool = setting(
        True, "Initialize the student from the teacher's embeddings, head and evenly spaced layers."
    )
    temperature: float = setting(2.0, "Softmax temperature applied to the logits of both models.", POSITIVE)
    soft_weight: float = setting(5.0, "Weight of the KL divergence from the teacher's predictions.", NON_NEGATIVE)
    masked_lm_weight: float = setting(2.0, "Weight of the masked-LM loss.", NON_NEGATIVE)
    cosine_weight: float = setting(
        1.0, "Weight of the cosine distance between the hidden states of both models.", NON_NEGATIVE
    )


_PUBLISHED = (Phase(steps=900_000, length=128, batch=256), Phase(steps=100_000, length=512, batch=256))


@dataclasses.dataclass(frozen=True)
class Config:
    """A pre-training run."""

    # FREE because a resumed run compares the fingerprint of the corpus instead of its path.
    corpus: str = setting("", "Corpus folder written by bertjax.prepare.", resume=Resume.FREE)
    seed: int = setting(0, "Random seed of parameters, data order, masks and dropout.", NON_NEGATIVE)
    init_from: str = setting(
        "",
        "Workdir, checkpoint or exported folder with the initial parameters; empty: random initialization.",
        LOCAL_PATH,
    )
    phases: tuple[Phase, ...] = setting(_PUBLISHED, "Phases of training, in order.", resume=Resume.PAST)
    objective: str = setting(
        "masked_lm",
        "Objective: masked_lm (plus the pair task that next_sentence or sentence_order selects), or a registered one.",
    )
    next_sentence: bool = setting(True, "Next-sentence prediction: half of the pairs are random.")
    sentence_order: bool = setting(False, "Sentence-order prediction (ALBERT): half of the pairs are swapped.")
    full_sentences: bool = setting(
        False, "Rows of whole sentences that continue across documents, without pairs (RoBERTa)."
    )
    short_seq_prob: float = setting(0.1, "Probability that a sequence is cut to a random shorter length.", FRACTION)
    packing: int = setting(
        0,
        "Maximum packed sequences per row, which cannot attend to one another; 0: one padded sequence per row.",
        NON_NEGATIVE,
    )
    dtype: str = setting("auto", "Dtype of the computation; auto: bfloat16 on accelerators, float32 on CPU.", DTYPES)
    model: ModelConfig = setting(ModelConfig, "Architecture of the encoder.")
    masking: MaskingConfig = setting(MaskingConfig, "Selection and replacement of the tokens to predict.")
    optimizer: OptimizerConfig = setting(OptimizerConfig, "Optimizer and learning-rate schedule.")
    distillation: DistillationConfig = setting(DistillationConfig, "Distillation from a teacher.")
    mesh: MeshConfig = setting(MeshConfig, "Devices along each axis of the mesh.", resume=Resume.FREE)
    layout: LayoutConfig = setting(LayoutConfig, "Layout of the computation on each device.", resume=Resume.FREE)
    log_every: int = setting(100, "Steps between log lines.", AT_LEAST_ONE, Resume.FREE)
    eval_every: int = setting(
        10_000,
        "Steps between evaluations, in addition to one after the last step; 0: after the last step only.",
        NON_NEGATIVE,
        Resume.FREE,
    )
    eval_sequences: int = setting(10_000, "Maximum held-out sequences per evaluation.", AT_LEAST_ONE, Resume.FREE)
    checkpoint_every: int = setting(
        5_000,
        "Steps between checkpoints, in addition to those after the last step and on SIGTERM.",
        AT_LEAST_ONE,
        Resume.FREE,
    )
    keep_last: int = setting(3, "Number of most recent checkpoints to keep.", AT_LEAST_ONE, Resume.FREE)
    keep_every: int = setting(0, "Steps between permanently kept checkpoints; 0: none.", NON_NEGATIVE, Resume.FREE)
    reader_threads: int = setting(2, "Threads that prepare batches, per process.", AT_LEAST_ONE, Resume.FREE)
    profile_steps: tuple[int, ...] = setting(
        (), "First and last step of a profiler trace, counted from 1; empty: no trace.", resume=Resume.FREE
    )

    @property
    def pairs(self) -> str:
        """The pair task: "next_sentence", "sentence_order", or "" for none."""
        return next((task for task in PAIR_TASKS if getattr(self, task)), "")

    @property
    def sequencing(self) -> Sequencing:
        """How documents are cut into sequences."""
        return Sequencing(self.pairs, self.short_seq_prob, self.full_sentences, self.packing)

    @property
    def total_steps(self) -> int:
        """Number of steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def locate(self, step: int) -> tuple[int, int]:
        """Returns (phase index, step within the phase) of global step `step`, counted from 0."""
        for index, phase in enumerate(self.phases):
            if step < phase.steps:
                return index, step
            step -= phase.steps
        raise ValueError(f"step lies {step} beyond the last phase")

    def for_phase(self, phase: Phase) -> "Config":
        """Returns the config with the model as trained in `phase`, which may replace the rotary base."""
        theta = phase.global_rope_theta or self.model.global_rope_theta
        return dataclasses.replace(self, model=dataclasses.replace(self.model, global_rope_theta=theta))

    def check(self) -> None:
        """Raises UserError if settings contradict one another."""
        self._check_phases()
        start = self.init_from if self.distillation.teacher and self.distillation.initialize else ""
        rule = "empty with distillation.initialize, which starts from the teacher"
        require(not start, "init_from", start, rule)
        bounds = (1, *self.profile_steps, self.total_steps)
        ordered = len(bounds) in (2, 4) and list(bounds) == sorted(bounds)
        require(ordered, "profile_steps", self.profile_steps, f"(first, last) between 1 and {self.total_steps}")
        for first, second in (PAIR_TASKS, ("next_sentence", "full_sentences"), ("sentence_order", "full_sentences")):
            both = getattr(self, first) and getattr(self, second)
            require(not both, second, True, f"False with {first}")
        types = self.model.type_vocab_size
        require(types >= 2 or not self.pairs, "model.type_vocab_size", types, f"at least 2 with {self.pairs}")

    def _check_phases(self) -> None:
        require(len(self.phases) >= 1, "phases", self.phases, "at least one phase")
        longest, model_theta = self.model.max_position_embeddings, self.model.global_rope_theta
        for index, phase in enumerate(self.phases):
            path, theta = f"phases[{index}]", phase.global_rope_theta
            rule = f"at least 8 and at most model.max_position_embeddings ({longest})"
            require(phase.length <= longest, f"{path}.length", phase.length, rule)
            rule = "0 in a phase without a learning_rate, whose schedule continues"
            scheduled = phase.learning_rate > 0 or phase.warmup_steps == 0
            require(scheduled, f"{path}.warmup_steps", phase.warmup_steps, rule)
            rule = "0 if model.global_rope_theta is 0"
            require(not theta or model_theta > 0, f"{path}.global_rope_theta", theta, rule)
        theta, rule = self.phases[-1].global_rope_theta, f"0 or model.global_rope_theta ({model_theta})"
        require(theta in (0, model_theta), "phases[-1].global_rope_theta", theta, rule)
        first = self.phases[0].learning_rate
        require(not first, "phases[0].learning_rate", first, "0; the first phase uses optimizer.learning_rate")
