"""How much text a model reads."""

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.tasks.inputs import Limits


def model_limits(model: Pretrained) -> Limits:
    """How much of a text a model reads: as it was fine-tuned, else all that it can."""
    longest = model.config.model.max_position_embeddings
    longest = min(longest, model.sentence.get("length", longest))
    told = (model.task or {}).get("limits")
    if told:
        return Limits(**told | {"length": min(told["length"], longest)})
    part = longest // 4
    return Limits(longest, stride=min(Limits.stride, part), question_length=min(Limits.question_length, part))
