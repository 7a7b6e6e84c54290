"""The objective of distillation: what a student learns from its teacher, beside its own objective's terms.

Hinton et al. 2015, arXiv:1503.02531; the cosine of the states is DistilBERT's (Sanh et al. 2019, arXiv:1910.01108).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from bertjax.objectives.terms import Term, weighted


def divergence(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """T² times the divergence of the teacher's classes at temperature T, f32 [...] in nats: logits [..., classes].

    T² keeps the gradient's size as the temperature changes.
    """
    student = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    teacher = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    # Where nothing can be, both are as low as they get, and a low temperature makes that infinite.
    difference = jnp.where(jnp.exp(teacher) > 0, teacher - student, 0)
    return temperature**2 * jnp.sum(jnp.exp(teacher) * difference, axis=-1)


def angle(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """One minus the cosine of two states, f32 [...]: [..., hidden]."""
    student, teacher = student.astype(jnp.float32), teacher.astype(jnp.float32)
    lengths = jnp.linalg.norm(student, axis=-1) * jnp.linalg.norm(teacher, axis=-1)
    return 1 - jnp.sum(student * teacher, axis=-1) / jnp.maximum(lengths, 1e-8)


def terms(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array], temperature: float) -> dict[str, Term]:
    """The terms of a batch that a teacher has read: `soft_loss` of masked tokens, `cosine_loss` of all tokens.

    Of a batch without `teacher_logits` [batch, predictions, vocab] and `teacher_states` [batch, length, hidden], as in
    an evaluation, there are none.
    """
    if "teacher_logits" not in batch:
        return {}
    weights = batch["masked_lm_weights"]
    return {
        "soft_loss": weighted(divergence(outputs["masked_lm_logits"], batch["teacher_logits"], temperature), weights),
        "cosine_loss": weighted(angle(outputs["states"], batch["teacher_states"]), _tokens(batch)),
    }


def weights(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The weights of these terms, from the batch alone, before the teacher has read it."""
    return {"soft_loss": jnp.sum(batch["masked_lm_weights"]), "cosine_loss": jnp.sum(_tokens(batch))}


def _tokens(batch: Mapping[str, jax.Array]) -> jax.Array:
    return (batch["attention_mask"] != 0).astype(jnp.float32)
