"""The objectives of fine-tuning, one for each kind of task.

Every batch has `labels` and `weights`; what weighs 0 only fills a batch up. Shapes, with `rows` rows of the model; in
packed ones there are several units of [rows, slots] where these say [rows]:
  classification  labels int [rows], weights [rows]
  multi_label     labels 0 or 1 [rows, labels], weights [rows]
  regression      labels float [rows], weights [rows]
  choice          labels int [examples], weights [examples]; an example's choices are neighbours
  tagging         labels int [rows, length], weights [rows, length]: the first piece of each word
  span            labels int [rows, 2]: places in the row of the answer's first and last token, weights [rows]
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from bertjax.objectives.distillation import divergence
from bertjax.objectives.terms import Term, cross_entropy, weighted

Arrays = Mapping[str, jax.Array]


def terms(kind: str) -> Callable[[Arrays, Arrays], dict[str, Term]]:
    """(outputs, batch) → the one term `task_loss`."""
    losses = _LOSSES[kind]
    return lambda outputs, batch: {"task_loss": weighted(losses(outputs["logits"], batch), batch["weights"])}


def weights(batch: Arrays) -> dict[str, jax.Array]:
    """The weight of the term, from the batch alone."""
    return {"task_loss": jnp.sum(batch["weights"])}


def taught_terms(kind: str, temperature: float) -> Callable[[Arrays, Arrays], dict[str, Term]]:
    """(outputs, batch) → `task_loss`, and `soft_loss` against the batch's `teacher_logits`, of the logits' shape.

    That is the divergence of the teacher's classes (of its choices, or of the places where an answer begins and ends)
    at a temperature, for multi_label of each label, and for regression the squared difference.
    """

    def found(outputs: Arrays, batch: Arrays) -> dict[str, Term]:
        losses = _soft(kind, outputs["logits"], batch["teacher_logits"], batch, temperature)
        return terms(kind)(outputs, batch) | {"soft_loss": weighted(losses, batch["weights"])}

    return found


def taught_weights(batch: Arrays) -> dict[str, jax.Array]:
    """The weights of these terms, from the batch alone."""
    return dict.fromkeys(("task_loss", "soft_loss"), jnp.sum(batch["weights"]))


def _soft(kind: str, student: jax.Array, teacher: jax.Array, batch: Arrays, temperature: float) -> jax.Array:
    def both(change: Callable[[jax.Array], jax.Array]) -> jax.Array:
        return divergence(change(student), change(teacher), temperature)

    if kind == "regression":
        return jnp.square(student[..., 0] - teacher[..., 0])
    if kind == "choice":
        return both(lambda logits: logits.reshape(*batch["labels"].shape, -1))
    if kind == "multi_label":  # each label is there or not
        return jnp.mean(both(lambda logits: jnp.stack([logits, jnp.zeros_like(logits)], axis=-1)), axis=-1)
    if kind == "span":
        return jnp.mean(both(lambda logits: _in_text(logits, batch)), axis=-1)
    return both(lambda logits: logits)


def _classes(logits: jax.Array, batch: Arrays) -> jax.Array:
    return cross_entropy(logits, batch["labels"])[0]


def _choices(logits: jax.Array, batch: Arrays) -> jax.Array:
    return cross_entropy(logits.reshape(*batch["labels"].shape, -1), batch["labels"])[0]


def _any_labels(logits: jax.Array, batch: Arrays) -> jax.Array:
    """Binary cross-entropy, the mean over the labels."""
    labels = batch["labels"].astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(logits) - labels * logits, axis=-1)


def _squared_error(logits: jax.Array, batch: Arrays) -> jax.Array:
    return jnp.square(logits[..., 0] - batch["labels"])


def _span(logits: jax.Array, batch: Arrays) -> jax.Array:
    """The mean of the losses of the first and the last token."""
    return jnp.mean(cross_entropy(_in_text(logits, batch), batch["labels"])[0], axis=-1)


def _in_text(logits: jax.Array, batch: Arrays) -> jax.Array:
    """Logits [rows, length, 2] as [rows, 2, length], packed [rows, slots, 2, length]; none outside of the unit."""
    logits, mask = logits.swapaxes(1, 2), batch["attention_mask"][:, None]
    if batch["labels"].ndim == 2:
        own = mask > 0
    else:
        numbers = 1 + jnp.arange(batch["labels"].shape[1])
        logits, own = logits[:, None], mask[:, None] == numbers[:, None, None]
    return jnp.where(own, logits, jnp.finfo(jnp.float32).min)


_LOSSES: dict[str, Callable[[jax.Array, Arrays], jax.Array]] = {
    "classification": _classes,
    "multi_label": _any_labels,
    "regression": _squared_error,
    "choice": _choices,
    "tagging": _classes,
    "span": _span,
}
