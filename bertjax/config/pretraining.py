"""What a run is: frozen dataclasses with every key and its meaning.

A config file's `get_config()` starts from `parse.default_config()`, which holds every key, and sets what differs. What
the values must be is in validation.py.

The defaults are BERT-Base as published (Devlin et al. 2018, arXiv:1810.04805, appendix A.2).
"""

import dataclasses
from typing import Any

from bertjax.config.data import PAIR_TASKS, MaskingConfig, Sequencing
from bertjax.config.layout import LayoutConfig, MeshConfig
from bertjax.config.model import ModelConfig
from bertjax.config.optimizer import OptimizerConfig


def _free(default: Any) -> Any:
    """A field that does not change the mathematics, so that a resumed run may change it."""
    if dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=type(default), metadata={"free": True})
    return dataclasses.field(default=default, metadata={"free": True})


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one batch shape."""

    steps: int
    length: int  # tokens a sequence
    batch: int  # sequences a step, over all devices
    learning_rate: float = 0.0  # a peak of its own: the schedule begins anew with this phase; 0: it goes on
    warmup_steps: int = 0  # of the schedule that begins anew
    global_rope_theta: float = 0.0  # in place of the model's, which is that of the last phase; 0: the model's


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """What a student learns from a trained model beside its own task. The weights are DistilBERT's."""

    # A workdir, checkpoint or exported folder; none: no distillation. A run knows its teacher by its parameters.
    teacher: str = _free("")
    initialize: bool = True  # start from the teacher's embeddings, head and evenly chosen layers
    temperature: float = 2.0  # of both models' scores
    soft_weight: float = 5.0  # of the divergence from the teacher's scores of masked tokens
    masked_lm_weight: float = 2.0
    cosine_weight: float = 1.0  # of the angle between both models' states


@dataclasses.dataclass(frozen=True)
class Config:
    """A pre-training run."""

    corpus: str = _free("")  # its fingerprint is checked instead of its path
    seed: int = 0
    init_from: str = ""  # a workdir, checkpoint or exported folder whose parameters training starts from
    phases: tuple[Phase, ...] = (
        Phase(steps=900_000, length=128, batch=256),
        Phase(steps=100_000, length=512, batch=256),
    )
    next_sentence: bool = True  # pairs of segments, of which half do not belong together
    sentence_order: bool = False  # pairs of segments, of which half are exchanged (ALBERT), in place of next_sentence
    full_sentences: bool = False  # without pairs: rows of whole sentences, on across documents (RoBERTa)
    short_sequences: float = 0.1  # share of examples with a random shorter length
    packing: int = 0  # sequences that share a row, at most, without seeing each other; 0: a row holds one, padded
    dtype: str = "auto"  # of the computation; auto: bfloat16 on accelerators, float32 on CPU
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    mesh: MeshConfig = _free(MeshConfig())  # noqa: RUF009
    layout: LayoutConfig = _free(LayoutConfig())  # noqa: RUF009
    log_every: int = _free(100)  # steps
    eval_every: int = _free(10_000)  # steps; always at the end as well; 0: only there
    eval_sequences: int = _free(10_000)  # held-out sequences an evaluation, at most
    checkpoint_every: int = _free(5_000)  # steps; always at the end and on SIGTERM as well
    keep_last: int = _free(3)  # checkpoints
    keep_every: int = _free(0)  # steps; these checkpoints are kept for good
    reader_threads: int = _free(2)
    profile_steps: tuple[int, ...] = _free(())  # (first, last), counted from 1: a profiler trace of these steps

    @property
    def pairs(self) -> str:
        """The task of pairs: "next_sentence", "sentence_order", or "" for none."""
        return next((task for task in PAIR_TASKS if getattr(self, task)), "")

    @property
    def sequencing(self) -> Sequencing:
        """How documents are cut into sequences."""
        return Sequencing(self.pairs, self.short_sequences, self.full_sentences, self.packing)

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


def resume_conflict(saved: Config, new: Config, step: int) -> str | None:
    """Names the first key that changes the mathematics of a run resumed at `step`, or None.

    Fields marked free may change; of the phases, what lies before `step` may not.
    """
    for field in dataclasses.fields(Config):
        if field.metadata.get("free") or field.name == "phases":
            continue
        conflict = _difference(getattr(saved, field.name), getattr(new, field.name), field.name)
        if conflict:
            return conflict
    if _history(saved, step) != _history(new, step):
        return f"phases (of the {step} steps that are done)"
    return None


def _difference(saved: Any, new: Any, path: str) -> str | None:
    if dataclasses.is_dataclass(saved):
        for field in dataclasses.fields(saved):
            if field.metadata.get("free"):
                continue
            conflict = _difference(getattr(saved, field.name), getattr(new, field.name), f"{path}.{field.name}")
            if conflict:
                return conflict
        return None
    return None if saved == new else f"{path} (was {saved!r}, now {new!r})"


def _history(config: Config, step: int) -> list[Phase]:
    """The phases as far as `step`."""
    history = []
    for phase in config.phases:
        if step > 0:
            history.append(dataclasses.replace(phase, steps=min(step, phase.steps)))
        step -= phase.steps
    return history
