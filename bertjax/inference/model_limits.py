"""How much text a model reads."""

import dataclasses

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.tasks.metadata import TokenLimits


def model_limits(model: Pretrained) -> TokenLimits:
    """How much of a text a model reads: as it was fine-tuned, else all that it can."""
    longest = model.config.model.max_position_embeddings
    if model.sentence and model.sentence.length:
        longest = min(longest, model.sentence.length)
    if model.task and model.task.limits:
        return dataclasses.replace(model.task.limits, length=min(model.task.limits.length, longest))
    part = longest // 4
    return TokenLimits(
        longest, stride=min(TokenLimits.stride, part), question_length=min(TokenLimits.question_length, part)
    )
