"""Predicts with a trained model; prints one JSON object per input, in input order.

python -m bertjax.predict fill-mask --checkpoint=DIR "Text with a [MASK]." …
python -m bertjax.predict classify  --checkpoint=DIR "A text." …
python -m bertjax.predict answer    --checkpoint=DIR "Which question?" "The passage with the answer."
python -m bertjax.predict tag       --checkpoint=DIR "Words to tag ." …
python -m bertjax.predict choose    --checkpoint=DIR "A text" "one ending" "another ending" …
python -m bertjax.predict embed     --checkpoint=DIR "A text." … [--output=FILE.npy]
python -m bertjax.predict search    --checkpoint=DIR --texts=FILE "A query." …

Inputs are arguments, the lines of --input=FILE, or the lines of stdin. A line is a text or, if it begins with {, a JSON
object: {"text": …, "text_pair": …} for a pair of texts, {"question": …, "passage": …} (or "context"), {"words": […]}
for tagging (a text is split at white space), {"text": …, "choices": […]}.
"""

import contextlib
import functools
import itertools
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from absl import flags

from bertjax import cli
from bertjax.errors import UserError, short_repr
from bertjax.inference.modes import MODES

if TYPE_CHECKING:
    import numpy as np

_LOG = logging.getLogger(__name__)

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Workdir, checkpoint, or model folder of another framework (docs/reference/model-folders.md)."
)
_INPUT = flags.DEFINE_string(
    "input", None, "File with one input per line, or - for stdin; stdin is also read if there are no arguments."
)
_OUTPUT = flags.DEFINE_string("output", None, "embed: .npy file for the embeddings [texts, width], instead of JSON.")
_TEXTS = flags.DEFINE_string("texts", None, "search: file with the texts to search, one per line.")
_TOP = flags.DEFINE_integer(
    "top", 5, "fill-mask: tokens per mask; answer: answers in `best`; search: texts per query.", lower_bound=1
)
_POOLING = flags.DEFINE_string(
    "pooling", "", "embed: pooling of the token states: mean, cls or max; default: as trained, or else mean."
)
_NORMALIZE = flags.DEFINE_bool("normalize", None, "embed: scaling of embeddings to length 1; default: as trained.")
_PROMPT = flags.DEFINE_string(
    "prompt", None, "embed, search: name of the prompt prepended to each text; default: the model's own."
)
_DTYPE = flags.DEFINE_string("dtype", "float32", "Dtype of the computation: float32 or bfloat16.")
_WEIGHT_DTYPE = flags.DEFINE_string(
    "weight_dtype", "", "Dtype of the weights: int8 takes a quarter of the memory; default: that of the computation."
)
_TOKENS_PER_BATCH = flags.DEFINE_integer(
    "tokens_per_batch", 1024, "Tokens per batch; a GPU or TPU needs about 16 times the default.", lower_bound=1
)

_CHUNK_SIZE = 2048  # inputs that are read, sorted by length and predicted together
_MAX_LINE_BYTES = 1 << 26
_JSON_REMEDY = 'write {"text": "{…"} for a text that begins with {'


def main(args: list[str]) -> None:
    """Loads the model and prints a JSON line per input."""
    from bertjax.storage.files import check_room, local_path

    if args and args[0] not in MODES:
        raise UserError(f"unknown mode {short_repr(args[0])}; choose one of {', '.join(MODES)}")
    if not args or _CHECKPOINT.value is None:
        usage = f'python -m bertjax.predict {"|".join(MODES)} --checkpoint=DIR "A text." …'
        raise cli.usage_error([], {"the mode": args, "--checkpoint": _CHECKPOINT.value}, usage)
    mode, *arguments = args
    if _OUTPUT.value and not (mode == "embed" and _OUTPUT.value.endswith(".npy")):
        raise UserError(
            f"--output={_OUTPUT.value}: only embed supports it, and the file must end in .npy; change or remove it"
        )
    if _OUTPUT.value:
        check_room(local_path(_OUTPUT.value, "--output").absolute().parent, "--output")
    inputs = _read_inputs(mode, arguments)
    chunk = list(itertools.islice(inputs, _CHUNK_SIZE))  # reports invalid inputs before loading the model

    from bertjax.inference.embedding import Embedder
    from bertjax.inference.predictor import PredictOptions, make_predictor
    from bertjax.interop.loading import load_model

    options = PredictOptions(
        dtype=_DTYPE.value,
        weight_dtype=_WEIGHT_DTYPE.value,
        tokens_per_batch=_TOKENS_PER_BATCH.value,
        top=_TOP.value,
        pooling=_POOLING.value,
        normalize=_NORMALIZE.value,
        texts=_read_search_texts(mode),
        prompt=_PROMPT.value,
    )
    model = load_model(_CHECKPOINT.value)
    if _OUTPUT.value:
        embed = Embedder(model, options)
        array = embed.array(*_unzip([*chunk, *inputs]))
        _LOG.info(embed.counts.total.describe())
        _write_array(Path(_OUTPUT.value), array)
        return
    predict = make_predictor(model, mode, options)
    while chunk:
        for record in predict(*_unzip(chunk)):
            print(json.dumps(record, ensure_ascii=False))
        sys.stdout.flush()
        chunk = list(itertools.islice(inputs, _CHUNK_SIZE))
    _LOG.info(predict.counts.total.describe())


def _read_search_texts(mode: str) -> tuple[str, ...]:
    """Reads the texts of --texts."""
    if bool(_TEXTS.value) != (mode == "search"):
        raise UserError("--texts=FILE names the texts to search; search requires it, and other modes do not accept it")
    if not _TEXTS.value:
        return ()
    from bertjax.inference.inputs import read_texts

    return tuple(example.text for example in read_texts(*_unzip(_read_file(_TEXTS.value, "--texts"))))


def _unzip(located: Iterable[tuple[str, object]]) -> tuple[list[object], list[str]]:
    """Returns (inputs, locations)."""
    pairs = list(located)
    return [value for _, value in pairs], [where for where, _ in pairs]


def _read_inputs(mode: str, arguments: list[str]) -> Iterator[tuple[str, object]]:
    """Yields (location, input) for each input from the arguments, --input or stdin."""
    if arguments and _INPUT.value:
        raise UserError("both arguments and --input are given; choose one of them")
    for argument in arguments:
        if not argument.strip():
            raise UserError("the command line: a text is empty; remove it")
        if any("\ud800" <= character <= "\udfff" for character in argument):  # Python's escapes of undecodable bytes
            raise UserError(f"the command line: the text {argument!a} is not UTF-8; convert it first")
    if not arguments:
        yield from _read_file(_INPUT.value or "-", "--input")
    elif mode == "answer":
        if len(arguments) != 2:
            raise UserError(
                f"the command line: answer takes a question and a passage, not {len(arguments)} texts; "
                "use --input for more"
            )
        yield "the command line", tuple(arguments)
    elif mode == "choose":
        yield "the command line", {"text": arguments[0], "choices": arguments[1:]}
    else:
        yield from _parse_lines("text", enumerate(arguments, 1))


def _read_file(path: str, flag: str) -> Iterator[tuple[str, object]]:
    """Yields (location, input) for each line of the file that a flag names; "-" is stdin."""
    name = "stdin" if path == "-" else path
    empty = True
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            for pair in _parse_lines(f"{name}, line", _decode_lines(name, file)):
                yield pair
                empty = False
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); check {flag}") from error
    if empty:
        raise UserError(f"{name}: no text found; provide one text per line")


def _decode_lines(name: str, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yields (number, text) for each line."""
    offset = 0
    for number, line in enumerate(iter(functools.partial(file.readline, _MAX_LINE_BYTES + 1), b""), 1):
        if len(line) > _MAX_LINE_BYTES:
            raise UserError(f"{name}, line {number}: longer than {_MAX_LINE_BYTES:,} bytes; split it")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: not UTF-8 at byte {offset + error.start}; convert it first") from error
        yield number, text if offset else text.removeprefix("\ufeff")
        offset += len(line)


def _parse_lines(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, object]]:
    """Yields (location, input) for each line that is not empty."""
    from bertjax import decoding

    for number, line in lines:
        if text := line.strip():
            where = f"{name} {number}"
            yield where, decoding.parse(text, where, _JSON_REMEDY) if text.startswith("{") else text


def _write_array(path: Path, array: "np.ndarray") -> None:
    import numpy as np

    from bertjax.storage.files import atomic_write

    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, array)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); check --output") from error
    _LOG.info(f"wrote {path}: {array.shape[0]:,} embeddings of width {array.shape[1]}")


if __name__ == "__main__":
    cli.run(main, keep_freed_memory=True)
