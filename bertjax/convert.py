"""Converts a model to or from Hugging Face's format, and from Google's TensorFlow checkpoints.

python -m bertjax.convert --from=DIR --to=DIR [--format=huggingface|bertjax] [--verify] [--tokenizer=DIR]
python -m bertjax.convert --reseal --from=DIR

--from is a workdir of bertjax.train or bertjax.finetune, one of its checkpoints, a Hugging Face folder, or the folder
of a TensorFlow checkpoint with its bert_config.json and vocab.txt. Without --format, what is not bertjax's becomes a
bertjax workdir and a bertjax model a Hugging Face folder. --verify runs the Hugging Face side in `transformers` (which
must be installed) and compares the ids of thousands of hard lines, and the scores, with ours. --lowercase says
whether text is lower-cased for a vocab.txt or .model that lies alone, without tokenizer_config.json; by default the
folder's name or the vocabulary decides. --tokenizer moves the model to another vocabulary: pieces that it knows keep
their embeddings, new ones start as the mean of the pieces that their text had before.

bertjax seals what it writes: a corpus, workdir or export with a changed bit is refused. After a deliberate edit,
--reseal computes the seal again; it converts nothing.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

_LOG = logging.getLogger(__name__)

_FROM = flags.DEFINE_string("from", None, "The model: a workdir, a checkpoint, or a folder of another framework.")
_TO = flags.DEFINE_string("to", None, "The folder to write; it must not hold anything yet.")
_FORMAT = flags.DEFINE_enum("format", None, ["huggingface", "bertjax"], "What to write; by default the other format.")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "A folder with another tokenizer, to change the vocabulary to.")
_LOWERCASE = flags.DEFINE_bool("lowercase", None, "Lower-case text, for a vocab.txt or .model without a config.")
_RESEAL = flags.DEFINE_bool("reseal", False, "Recompute the seal of --from after a deliberate edit; converts nothing.")
_VERIFY = flags.DEFINE_bool("verify", False, "Compare ids and scores with those of transformers.")


def main(args: list[str]) -> None:
    """Reads, writes, and compares if asked."""
    from bertjax.storage.files import local_path

    if args or _FROM.value is None or (_TO.value is None) != _RESEAL.value:
        raise UserError(
            "usage: python -m bertjax.convert --from=DIR --to=DIR [--format=…] [--verify] [--tokenizer=DIR], or "
            "python -m bertjax.convert --reseal --from=DIR"
        )
    if _RESEAL.value:
        from bertjax.interop import resealing

        _LOG.info(f"sealed {resealing.reseal(local_path(_FROM.value, '--from'))} in {_FROM.value} as it is now")
        return
    if _VERIFY.value:
        _need("torch", "transformers")
    from bertjax.checkpoints import pretrained
    from bertjax.interop import huggingface
    from bertjax.interop.loading import is_imported, load_model

    source, target = local_path(_FROM.value, "--from"), local_path(_TO.value, "--to")
    is_imported = is_imported(source)
    is_huggingface = is_imported and (source / "config.json").is_file()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already; choose another folder for --to")
    to_bertjax = (_FORMAT.value or ("bertjax" if is_imported else "huggingface")) == "bertjax"
    is_same = is_huggingface and not _TOKENIZER.value
    if _VERIFY.value and to_bertjax and not is_same:
        raise UserError("--verify has no Hugging Face folder to compare with; leave it out or add --format=huggingface")
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
        from bertjax.inference import predictor
        from bertjax.interop import verification

        # What bertjax reads against what transformers reads, of which one lies at --from, the other at --to.
        ours, theirs = (load_model(target), source) if is_same else (model, target)
        if verification.gives_vectors(theirs):
            _need("sentence_transformers")
        print(verification.verify(ours, theirs, lambda texts: predictor.make(ours, "embed").array(texts)))
    _LOG.info(f"next: {_next(target, to_bertjax, model)}")


def _with_tokenizer(model: Any, folder: str) -> Any:
    from bertjax.checkpoints import embedding_transfer
    from bertjax.text.tokenizer import load_tokenizer

    changed = embedding_transfer.change(model, load_tokenizer(folder))
    before, after = (set(map(one.tokenizer.id_to_token, range(one.tokenizer.vocab_size))) for one in (model, changed))
    _LOG.info(
        f"the vocabulary goes from {len(before):,} pieces to {len(after):,}, of which {len(after - before):,} are new"
    )
    return changed


def _next(target: Path, to_bertjax: bool, model: Any) -> str:
    """What to do with the result."""
    from bertjax.tasks.kinds.catalog import kind_named

    if not to_bertjax:
        head = kind_named(model.task.kind).transformers_class if model.task else "ForMaskedLM"
        name = "AutoModel" + head.removesuffix("Model")
        return f'transformers.{name}.from_pretrained("{target}")'
    if model.task:
        return f"python -m bertjax.evaluate --checkpoint={target} --task=NAME --data_dir=DIR"
    return f'python -m bertjax.predict fill-mask --checkpoint={target} "The [MASK] is here."'


def _need(*packages: str) -> None:
    """Refuses --verify where a package that it compares with is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            name = package.replace("_", "-")
            raise UserError(f"--verify needs {name}, which is not installed; pip install {name}, or leave it out")


if __name__ == "__main__":
    cli.run(main)
