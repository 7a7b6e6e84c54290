"""The objective of distillation, which is added to the terms of the student's own objective.

Hinton et al. 2015, arXiv:1503.02531; the cosine loss between states is DistilBERT's (Sanh et al. 2019,
arXiv:1910.01108).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from bertjax.arrays.types import Batch
from bertjax.objectives.terms import Term, weighted


def divergence(
    student: Float[Array, "*batch classes"],
    teacher: Float[Array, "*batch classes"],
    temperature: float | Float[Array, ""],
) -> Float32[Array, "*batch"]:
    """Returns T² times the KL divergence of the logits' distributions at temperature T, in nats.

    T² keeps the size of the gradient independent of the temperature.
    """
    student = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    teacher = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    # Impossible classes have the lowest logits of their dtype, which a low temperature makes infinite.
    difference = jnp.where(jnp.exp(teacher) > 0, teacher - student, 0)
    return temperature**2 * jnp.sum(jnp.exp(teacher) * difference, axis=-1)


def cosine_distance(
    student: Float[Array, "*batch hidden"], teacher: Float[Array, "*batch hidden"]
) -> Float32[Array, "*batch"]:
    """Returns one minus the cosine of the states."""
    student, teacher = student.astype(jnp.float32), teacher.astype(jnp.float32)
    lengths = jnp.linalg.norm(student, axis=-1) * jnp.linalg.norm(teacher, axis=-1)
    return 1 - jnp.sum(student * teacher, axis=-1) / jnp.maximum(lengths, 1e-8)


def terms(outputs: Batch, batch: Batch, temperature: float | Float[Array, ""]) -> dict[str, Term]:
    """Returns the terms of a batch: `soft_loss` over masked tokens, `cosine_loss` over all tokens.

    A batch without the teacher's outputs, as in evaluation, has none. These are `teacher_logits` [batch, predictions,
    vocab] and `teacher_states` [batch, length, hidden].
    """
    if "teacher_logits" not in batch:
        return {}
    weights = batch["masked_lm_weights"]
    return {
        "soft_loss": weighted(divergence(outputs["masked_lm_logits"], batch["teacher_logits"], temperature), weights),
        "cosine_loss": weighted(cosine_distance(outputs["states"], batch["teacher_states"]), _token_weights(batch)),
    }


def weights(batch: Batch) -> dict[str, Float32[Array, ""]]:
    """Returns the weights of these terms, which do not depend on the teacher's outputs."""
    return {"soft_loss": jnp.sum(batch["masked_lm_weights"]), "cosine_loss": jnp.sum(_token_weights(batch))}


def _token_weights(batch: Batch) -> Float32[Array, "batch length"]:
    return (batch["attention_mask"] != 0).astype(jnp.float32)
