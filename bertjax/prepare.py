"""Prepares a corpus from raw text.

    python -m bertjax.prepare --source=pydoc: --output=data/pydoc --tokenizer=new:wordpiece:8192

Repeating the command resumes an interrupted build; a finished corpus is left unchanged. docs/how-to/prepare-data.md
lists the sources and tokenizers.

    python -m bertjax.prepare --output=data/pydoc --verify

compares a finished corpus with its hashes, without its sources.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

if TYPE_CHECKING:
    from bertjax.corpus.build import BuildSummary

_LOG = logging.getLogger(__name__)

_TOKENS_FOR_BASE = 100_000_000  # less text is not worth the training of BERT-Base

_SOURCE = flags.DEFINE_multi_string(
    "source",
    [],
    "KIND:LOCATION[@WEIGHT]; KIND is text, file, wiki, jsonl, parquet, tfds or pydoc (docs/how-to/prepare-data.md).",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the corpus.")
_TOKENIZER = flags.DEFINE_string(
    "tokenizer",
    "new:wordpiece:30522",
    "A folder with tokenizer.json, vocab.txt or a .model; or new:KIND:SIZE with KIND wordpiece, wordpiece-cased, "
    "unigram or bpe, trained on a sample of the sources; or extend:NUMBER:FOLDER, which adds that many words of the "
    "text to the vocabulary in FOLDER.",
)
_LOWERCASE = flags.DEFINE_bool(
    "lowercase",
    None,
    "Whether to lower-case text. Only for a vocab.txt or .model without tokenizer_config.json; default: inferred.",
)
_HELDOUT = flags.DEFINE_float(
    "heldout", 0.005, "Share of the documents to hold out for evaluation during training; 0 for none.", 0.0, 0.5
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Seed that selects the held-out documents, and the documents taken from a source with a fractional weight.",
)
_LANGUAGE = flags.DEFINE_string("language", "en", "ISO 639 code of the text, for splitting sentences.")
_PROCESSES = flags.DEFINE_integer("processes", 0, "Number of processes; 0 for one per core.", 0, 4096)
_SHARD = flags.DEFINE_float(
    "shard_megabytes", 4.0, "Text per shard, in millions of characters (megabytes for ASCII text).", 0.01, 2000.0
)
_VERIFY = flags.DEFINE_bool(
    "verify", False, "Compare every shard with its hash after the build; without --source, only verify."
)


def main(args: list[str]) -> None:
    """Builds the corpus and prints a summary."""
    from bertjax.corpus import build
    from bertjax.corpus.progress import BuildProgress
    from bertjax.storage.files import local_path
    from bertjax.text import sources
    from bertjax.text.text_counts import TextCounts, log_counts

    if args:
        raise UserError(f"{args[0]}: unexpected argument; pass flags only, e.g. --source={args[0]}")
    if not _OUTPUT.value:
        raise UserError("--output is missing; pass the folder for the corpus")
    output = local_path(_OUTPUT.value, "--output")
    if _VERIFY.value and not _SOURCE.value:
        return _verify(output)
    shard_characters = round(_SHARD.value * 1e6)
    options = build.BuildOptions(
        _TOKENIZER.value, _HELDOUT.value, _SEED.value, _LANGUAGE.value, shard_characters, _LOWERCASE.value
    )
    processes = _PROCESSES.value or cli.cores()
    with BuildProgress(cli.show_progress()) as progress:
        summary = build.build_corpus(
            output, sources.parse_sources(_SOURCE.value), options, processes=processes, progress=progress
        )
    if _VERIFY.value:
        _verify(output)
    _print_summary(output, summary, progress.megabytes_per_second)
    if _HELDOUT.value and not summary.splits["heldout"].documents:
        _LOG.warning(
            f"{output}: {summary.total.documents} documents are too few to hold any out, and training needs held-out "
            "documents; split the files, or use text: if blank lines may separate documents"
        )
    log_counts(_LOG, str(output), TextCounts(summary.total.tokens, summary.total.unknown))


def _verify(output: Path) -> None:
    from bertjax.corpus import format

    format.verify(output)
    _LOG.info(f"{output}: all shards match their hashes")


def _print_summary(output: Path, summary: "BuildSummary", megabytes_per_second: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(output), title_justify="left")
    for name in ("", *summary.splits, "total"):
        table.add_column(name, justify="right" if name else "left")
    columns = [*summary.splits.values(), summary.total]
    for name in ("documents", "sentences", "words", "tokens"):
        table.add_row(name, *(f"{getattr(counts, name):,}" for counts in columns))
    table.add_row("tokens per word", *(f"{counts.tokens / max(counts.words, 1):.3f}" for counts in columns))
    table.add_row("[UNK]", *(f"{counts.unknown / max(counts.tokens, 1):.3%}" for counts in columns))
    table.add_row("megabytes of text", *(f"{counts.bytes / 1e6:,.1f}" for counts in columns))
    for name, count in (
        ("duplicates dropped", summary.duplicates),
        ("dropped by weight", summary.thinned),
        ("empty, dropped", summary.total.empty),
    ):
        table.add_row(name, *([""] * len(summary.splits)), f"{count:,}")
    speed = f"{megabytes_per_second:.1f}" if megabytes_per_second else "(already complete)"
    table.add_row("MB/s", *([""] * len(summary.splits)), speed)
    # Keeps numbers complete in a narrow terminal, or without one.
    Console(width=max(Console().width, 80), highlight=False).print(table)
    print(f"\nThe corpus is in {output}, its tokenizer ({summary.vocab_size:,} pieces) in {output / 'tokenizer'}.")
    print("To train a model on it:")
    config, overrides = "base", ""
    if summary.splits["train"].tokens < _TOKENS_FOR_BASE:
        config = "quickstart"  # a small model, which takes any vocabulary
    elif summary.vocab_size > 30522:
        overrides = f" --config.model.vocab_size={summary.vocab_size}"
    command = f"python -m bertjax.train --config=configs/{config}.py --workdir=runs/{config}"
    print(f"  {command} --config.corpus={output}{overrides}")


if __name__ == "__main__":
    cli.run(main)
