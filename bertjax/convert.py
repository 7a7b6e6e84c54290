"""Converts a model to or from Hugging Face's format.

python -m bertjax.convert --from=DIR --to=DIR [--format=huggingface|bertjax] [--verify]

--from is a workdir of bertjax.train, one of its checkpoints, or a Hugging Face folder. Without --format, a Hugging Face
folder becomes a bertjax workdir and a bertjax model a Hugging Face folder. --verify runs the Hugging Face side in
`transformers` (which must be installed) and compares its scores with ours.
"""

import tempfile
from pathlib import Path

from absl import flags

from bertjax import command
from bertjax.errors import UserError

_FROM = flags.DEFINE_string("from", None, "The model: a workdir, a checkpoint, or a Hugging Face folder.")
_TO = flags.DEFINE_string("to", None, "The folder to write; it must not hold anything yet.")
_FORMAT = flags.DEFINE_enum("format", None, ["huggingface", "bertjax"], "What to write; by default the other format.")
_VERIFY = flags.DEFINE_bool("verify", False, "Compare the scores with those of transformers.")


def main(args: list[str]) -> None:
    """Reads, writes, and compares if asked."""
    if args or _FROM.value is None or _TO.value is None:
        raise UserError("usage: python -m bertjax.convert --from=DIR --to=DIR [--format=…] [--verify]")
    if _VERIFY.value:
        _need_transformers()
    from bertjax import checkpoint, pretrained
    from bertjax.interop import huggingface, verification

    source, target = Path(_FROM.value), Path(_TO.value)
    is_huggingface = (source / "config.json").is_file() and not (source / "checkpoints").is_dir()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already; choose another folder for --to")
    to_bertjax = (_FORMAT.value or ("bertjax" if is_huggingface else "huggingface")) == "bertjax"
    if _VERIFY.value and to_bertjax and not is_huggingface:
        raise UserError("--verify has no Hugging Face folder to compare with; leave it or --format=bertjax out")
    model = pretrained.load(source, command.say)
    if to_bertjax:
        written = pretrained.save(target, model)
        hint = f'python -m bertjax.predict fill-mask --checkpoint={target} "The [MASK] is here."'
    else:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.write_tokenizer({"tokenizer": {"files": model.tokenizer_files}}, Path(folder))
            huggingface.export_bert(model.config.model, model.params, folder, target, model.tokenizer.pad_id)
        written = target
        hint = f'transformers.AutoModelForMaskedLM.from_pretrained("{target}")'
    command.say(f"wrote {written}")
    if _VERIFY.value:
        # What bertjax reads against what transformers reads, of which one lies at --from, the other at --to.
        ours, theirs = (pretrained.load(target, command.say), source) if is_huggingface else (model, target)
        print(verification.verify(ours.config.model, ours.params, theirs, ours.tokenizer))
    command.say(f"next: {hint}")


def _need_transformers() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--verify needs {error.name}, which is not installed; pip install torch transformers, or leave it out"
        ) from error


if __name__ == "__main__":
    command.run(main)
