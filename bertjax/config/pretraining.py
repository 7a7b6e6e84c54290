"""What a run is: frozen dataclasses with every key and its meaning.

A config file's `get_config()` starts from `parse.default_config()`, which holds every key, and sets what differs.

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
    """A stretch of training with one batch shape."""

    steps: int = setting(REQUIRED, "Optimizer steps.", AT_LEAST_ONE)
    length: int = setting(REQUIRED, "Tokens per row.", Range(at_least=8))
    batch: int = setting(REQUIRED, "Rows per step, over all devices.", AT_LEAST_ONE)
    learning_rate: float = setting(
        0.0, "Peak of a schedule that restarts here; 0: the schedule continues.", NON_NEGATIVE
    )
    warmup_steps: int = setting(0, "Warm-up steps of the restarted schedule.", NON_NEGATIVE)
    global_rope_theta: float = setting(
        0.0, "Instead of the model's, which must be that of the last phase; 0: the model's.", NON_NEGATIVE
    )


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """What a student learns from a trained model beside its own task. The weights are DistilBERT's."""

    teacher: str = setting(  # its parameters are compared instead of its path
        "",
        "The teacher's workdir, checkpoint or exported folder; empty: no distillation.",
        LOCAL_PATH,
        resume=Resume.FREE,
    )
    initialize: bool = setting(True, "Start from the teacher's embeddings, head and evenly spaced layers.")
    temperature: float = setting(2.0, "Softmax temperature of both models' logits.", POSITIVE)
    soft_weight: float = setting(5.0, "Weight of the divergence from the teacher's predictions.", NON_NEGATIVE)
    masked_lm_weight: float = setting(2.0, "Weight of the masked-LM loss.", NON_NEGATIVE)
    cosine_weight: float = setting(1.0, "Weight of the cosine distance between hidden states.", NON_NEGATIVE)


_PUBLISHED = (Phase(steps=900_000, length=128, batch=256), Phase(steps=100_000, length=512, batch=256))


@dataclasses.dataclass(frozen=True)
class Config:
    """A pre-training run."""

    # Its fingerprint is compared instead of its path.
    corpus: str = setting("", "Folder written by bertjax.prepare.", resume=Resume.FREE)
    seed: int = setting(0, "Seed of parameters, data order, masks and dropout.", NON_NEGATIVE)
    init_from: str = setting(
        "", "Workdir, checkpoint or exported folder whose parameters training starts from.", LOCAL_PATH
    )
    phases: tuple[Phase, ...] = setting(_PUBLISHED, "Stretches of training, in order.", resume=Resume.PAST)
    next_sentence: bool = setting(True, "Next-sentence prediction: half of the pairs are random.")
    sentence_order: bool = setting(False, "Sentence-order prediction (ALBERT): half of the pairs are swapped.")
    full_sentences: bool = setting(False, "Without pairs: rows of whole sentences, across documents (RoBERTa).")
    short_seq_prob: float = setting(0.1, "Probability that an example gets a random shorter length.", FRACTION)
    packing: int = setting(0, "Most sequences per row, without attending to one another; 0: one, padded.", NON_NEGATIVE)
    dtype: str = setting("auto", "Dtype of computation; auto: bfloat16 on accelerators, float32 on CPU.", DTYPES)
    model: ModelConfig = setting(ModelConfig, "Shape of the encoder.")
    masking: MaskingConfig = setting(MaskingConfig, "Choice and replacement of the tokens to predict.")
    optimizer: OptimizerConfig = setting(OptimizerConfig, "Update of parameters.")
    distillation: DistillationConfig = setting(DistillationConfig, "Losses against a teacher's outputs.")
    mesh: MeshConfig = setting(MeshConfig, "Devices along each axis of the mesh.", resume=Resume.FREE)
    layout: LayoutConfig = setting(LayoutConfig, "Layout of the computation on devices.", resume=Resume.FREE)
    log_every: int = setting(100, "Steps between log lines.", AT_LEAST_ONE, Resume.FREE)
    eval_every: int = setting(
        10_000, "Steps between evaluations; there is one at the end as well; 0: only that.", NON_NEGATIVE, Resume.FREE
    )
    eval_sequences: int = setting(10_000, "Most held-out sequences per evaluation.", AT_LEAST_ONE, Resume.FREE)
    checkpoint_every: int = setting(
        5_000, "Steps between checkpoints; also at the end and on SIGTERM.", AT_LEAST_ONE, Resume.FREE
    )
    keep_last: int = setting(3, "Number of the latest checkpoints to keep.", AT_LEAST_ONE, Resume.FREE)
    keep_every: int = setting(
        0, "Steps between checkpoints that are kept permanently; 0: none.", NON_NEGATIVE, Resume.FREE
    )
    reader_threads: int = setting(2, "Threads that make batches.", AT_LEAST_ONE, Resume.FREE)
    profile_steps: tuple[int, ...] = setting(
        (), "(first, last) step of a profiler trace, from 1; empty: none.", resume=Resume.FREE
    )

    @property
    def pairs(self) -> str:
        """The task of pairs: "next_sentence", "sentence_order", or "" for none."""
        return next((task for task in PAIR_TASKS if getattr(self, task)), "")

    @property
    def sequencing(self) -> Sequencing:
        """How documents are cut into sequences."""
        return Sequencing(self.pairs, self.short_seq_prob, self.full_sentences, self.packing)

    @property
    def total_steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def locate(self, step: int) -> tuple[int, int]:
        """The (phase index, step within the phase) of global step `step`, counted from 0."""
        for index, phase in enumerate(self.phases):
            if step < phase.steps:
                return index, step
            step -= phase.steps
        raise ValueError(f"step lies {step} behind the last phase")

    def in_phase(self, phase: Phase) -> "Config":
        """The config with the model as it is trained in a phase, which may have a rotary base of its own."""
        theta = phase.global_rope_theta or self.model.global_rope_theta
        return dataclasses.replace(self, model=dataclasses.replace(self.model, global_rope_theta=theta))

    def check(self) -> None:
        """Raises UserError for settings that contradict one another."""
        self._check_phases()
        start = self.init_from if self.distillation.teacher and self.distillation.initialize else ""
        require(not start, "init_from", start, "left out: the student starts from its teacher")
        bounds = (1, *self.profile_steps, self.total_steps)
        ordered = len(bounds) in (2, 4) and list(bounds) == sorted(bounds)
        require(ordered, "profile_steps", self.profile_steps, f"(first, last), from 1 to {self.total_steps}")
        for first, second in (PAIR_TASKS, ("next_sentence", "full_sentences"), ("sentence_order", "full_sentences")):
            both = getattr(self, first) and getattr(self, second)
            require(not both, second, True, f"False where {first} is on")
        types = self.model.type_vocab_size
        require(types >= 2 or not self.pairs, "model.type_vocab_size", types, f"at least 2 where {self.pairs} is on")

    def _check_phases(self) -> None:
        require(len(self.phases) >= 1, "phases", self.phases, "at least one phase")
        longest, model_theta = self.model.max_position_embeddings, self.model.global_rope_theta
        for index, phase in enumerate(self.phases):
            path, theta = f"phases[{index}]", phase.global_rope_theta
            rule = f"at least 8 and at most model.max_position_embeddings ({longest})"
            require(phase.length <= longest, f"{path}.length", phase.length, rule)
            rule = "set with a learning_rate in the same phase; without one the schedule goes on"
            require(phase.learning_rate or not phase.warmup_steps, f"{path}.warmup_steps", phase.warmup_steps, rule)
            rule = "left out: the model has no rotary positions"
            require(not theta or model_theta > 0, f"{path}.global_rope_theta", theta, rule)
        theta, rule = self.phases[-1].global_rope_theta, "that of the model, which is what the last phase trains"
        require(theta in (0, model_theta), "phases[-1].global_rope_theta", theta, rule)
        first = self.phases[0].learning_rate
        require(not first, "phases[0].learning_rate", first, "left out; the first phase has optimizer.learning_rate")
