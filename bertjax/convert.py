"""Converts models between bertjax, Hugging Face and Google's TensorFlow checkpoints.

python -m bertjax.convert --from=DIR --to=DIR [--format=huggingface|bertjax] [--verify] [--tokenizer=DIR]
python -m bertjax.convert --reseal --from=DIR

--from is a workdir of bertjax.train or bertjax.finetune, one of its checkpoints, a Hugging Face folder, or the folder
of a TensorFlow checkpoint with its bert_config.json and vocab.txt. By default a bertjax model becomes a Hugging Face
folder, and any other model a bertjax workdir.

--verify compares the token ids of thousands of test lines, and the model's outputs, with those of the installed
`transformers`.

--tokenizer moves the model to another vocabulary: shared pieces keep their embeddings; a new piece starts as the mean
of the pieces that its text had before.

--lowercase applies to a vocab.txt or .model without tokenizer_config.json; by default the case is inferred from the
folder's name or the vocabulary.

--reseal updates the checksums of a corpus, workdir or export after a deliberate edit, and converts nothing. bertjax
refuses files that do not match their checksums.
"""

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from bertjax.checkpoints.pretrained import Pretrained

_LOG = logging.getLogger(__name__)

_FROM = flags.DEFINE_string("from", None, "Model to read: a workdir, a checkpoint, or a folder of another framework.")
_TO = flags.DEFINE_string("to", None, "Folder to write; must be new or empty.")
_FORMAT = flags.DEFINE_enum("format", None, ["huggingface", "bertjax"], "Format to write; default: the other format.")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "Folder of the tokenizer whose vocabulary the model moves to.")
_LOWERCASE = flags.DEFINE_bool(
    "lowercase",
    None,
    "Whether to lower-case text. Only for a vocab.txt or .model without tokenizer_config.json; default: inferred.",
)
_RESEAL = flags.DEFINE_bool("reseal", False, "Recompute the seal of --from after a deliberate edit; converts nothing.")
_VERIFY = flags.DEFINE_bool(
    "verify", False, "Compare the token ids of thousands of test lines, and the model's outputs, with `transformers`."
)


def main(args: list[str]) -> None:
    """Converts the model, and verifies the result if asked."""
    from bertjax.storage.files import local_path

    if args or _FROM.value is None or (_TO.value is None) != _RESEAL.value:
        usage = (
            "python -m bertjax.convert --from=DIR --to=DIR [--format=…] [--verify] [--tokenizer=DIR], or "
            "python -m bertjax.convert --reseal --from=DIR"
        )
        if _RESEAL.value and _TO.value is not None:
            raise UserError(f"--reseal changes the folder --from and writes no other; remove --to; usage: {usage}")
        raise cli.usage_error(args, {"--from": _FROM.value, "--to": _TO.value or _RESEAL.value}, usage)
    source = local_path(_FROM.value, "--from")
    if _TO.value is None:  # --reseal
        from bertjax.interop import resealing

        _LOG.info(f"{_FROM.value}: resealed {resealing.reseal(source)}")
        return
    if _VERIFY.value:
        _require("torch", "transformers")
    _convert(source, local_path(_TO.value, "--to"))


def _convert(source: Path, target: Path) -> None:
    from bertjax.checkpoints import pretrained
    from bertjax.interop import huggingface
    from bertjax.interop.loading import is_imported, load_model

    from_bertjax = not is_imported(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: already exists; choose another folder for --to")
    to_bertjax = (_FORMAT.value or ("huggingface" if from_bertjax else "bertjax")) == "bertjax"
    # Without a change of the vocabulary a Hugging Face source is the reference, else the exported target.
    source_is_reference = not from_bertjax and (source / "config.json").is_file() and not _TOKENIZER.value
    if _VERIFY.value and to_bertjax and not source_is_reference:
        raise UserError(
            "--verify: no Hugging Face folder to compare with; remove --verify, or add --format=huggingface"
        )
    model = load_model(source, _LOWERCASE.value)
    if _TOKENIZER.value:
        model = _with_tokenizer(model, _TOKENIZER.value)
    if to_bertjax:
        written = pretrained.save(target, model)
    else:
        written = target
        huggingface.export_model(model, target)
    _LOG.info(f"wrote {written}")
    if _VERIFY.value:
        from bertjax.inference.embedding import Embedder
        from bertjax.inference.runner import PredictOptions
        from bertjax.interop import verification

        converted, reference = (load_model(target), source) if source_is_reference else (model, target)
        if verification.is_sentence_transformer(reference):
            _require("sentence_transformers")

        def embed(texts: list[str]) -> "np.ndarray":
            return Embedder(converted, PredictOptions()).array(texts)

        print(verification.verify(converted, reference, embed))
    _LOG.info(f"next: {_next_command(target, to_bertjax, model)}")


def _with_tokenizer(model: "Pretrained", folder: str) -> "Pretrained":
    from bertjax.checkpoints import embedding_transfer
    from bertjax.text.tokenizer import load_tokenizer

    changed = embedding_transfer.transfer_embeddings(model, load_tokenizer(folder))
    before, after = (
        set(map(tokenizer.id_to_token, range(tokenizer.vocab_size)))
        for tokenizer in (model.tokenizer, changed.tokenizer)
    )
    _LOG.info(f"vocabulary: {len(before):,} pieces before, {len(after):,} now, {len(after - before):,} of them new")
    return changed


def _next_command(target: Path, to_bertjax: bool, model: "Pretrained") -> str:
    """A command that uses the result."""
    from bertjax.tasks.kinds.catalog import kind_named

    if not to_bertjax:
        if (target / "modules.json").is_file():
            return f'sentence_transformers.SentenceTransformer("{target}")'
        pretrained_head = "Model" if model.lacks_masked_lm_head else "ForMaskedLM"
        head = kind_named(model.task.kind).transformers_class if model.task else pretrained_head
        name = "AutoModel" + head.removesuffix("Model")
        return f'transformers.{name}.from_pretrained("{target}")'
    if model.task:
        return f"python -m bertjax.evaluate --checkpoint={target} --task=NAME --data_dir=DIR"
    if model.lacks_masked_lm_head:
        return f'python -m bertjax.predict embed --checkpoint={target} "A text."'
    return f'python -m bertjax.predict fill-mask --checkpoint={target} "The [MASK] is here."'


def _require(*packages: str) -> None:
    """Raises UserError if a package that --verify needs is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            name = package.replace("_", "-")
            raise UserError(f"--verify: {name} is not installed; pip install {name}, or remove --verify")


if __name__ == "__main__":
    cli.run(main)
