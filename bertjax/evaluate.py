"""Scores a checkpoint on a corpus's held-out split, without training.

python -m bertjax.evaluate --checkpoint=DIR [--corpus=DIR] [--length=128] [--batch=32]

Prints one JSON object: masked-LM loss (nats), perplexity and accuracy, next-sentence accuracy, and the unigram entropy
that word counts alone reach.
"""

import dataclasses
import json

from absl import flags

from bertjax import command
from bertjax.errors import UserError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A workdir, one of its checkpoints, or a Hugging Face folder.")
_CORPUS = flags.DEFINE_string("corpus", None, "A prepared corpus; by default the one that the run was trained on.")
_LENGTH = flags.DEFINE_integer(
    "length", None, "Tokens a sequence; by default that of the run's last phase.", lower_bound=8
)
_BATCH = flags.DEFINE_integer("batch", 32, "Sequences a step.", lower_bound=1)


def main(args: list[str]) -> None:
    """Restores the checkpoint, scores it and prints the scores."""
    if args or _CHECKPOINT.value is None:
        raise UserError("usage: python -m bertjax.evaluate --checkpoint=DIR [--corpus=DIR]")
    import jax

    from bertjax import parallel, pretrained, pretraining, sharding
    from bertjax.config import LayoutConfig, MeshConfig
    from bertjax.data import staging
    from bertjax.data.corpus import Corpus
    from bertjax.data.vocabulary import Vocabulary

    model = pretrained.load(_CHECKPOINT.value, command.say)
    directory = _CORPUS.value or model.config.corpus
    if not directory:
        raise UserError(f"{model.path} does not say what it was trained on; give --corpus=DIR")
    corpus = Corpus.open(staging.local(directory, command.say), split="train")
    pretraining.check_tokenizer(corpus, model.tokenizer, model.path, "prepare one with the model's")
    config = dataclasses.replace(model.config, mesh=MeshConfig(), layout=LayoutConfig())
    length = _LENGTH.value or config.phases[-1].length
    if length > config.model.max_position_embeddings:
        raise UserError(f"--length is {length}; the model reads at most {config.model.max_position_embeddings} tokens")
    mesh = parallel.make_mesh(config.mesh)
    sharding.check_divides("batch", _BATCH.value, mesh, "--batch")
    held_out = pretraining.open_held_out(config, mesh, Vocabulary.of(model.tokenizer), corpus)
    params = jax.device_put(model.params, sharding.of_state(model.params, mesh))
    scores = held_out.scores(params, length, _BATCH.value)
    command.say(f"step {model.step} of {model.path}: {pretraining.describe_scores(scores)}")
    print(json.dumps({"checkpoint": str(model.path), "step": model.step} | scores))


if __name__ == "__main__":
    command.run(main)
