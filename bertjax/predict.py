"""Uses a checkpoint on text: JSON lines out, in the order of the input.

python -m bertjax.predict fill-mask --checkpoint=DIR "Text with a [MASK]." …
python -m bertjax.predict classify  --checkpoint=DIR "A text." …
python -m bertjax.predict answer    --checkpoint=DIR "Which question?" "The passage with the answer."
python -m bertjax.predict tag       --checkpoint=DIR "Words to tag ." …
python -m bertjax.predict choose    --checkpoint=DIR "A text" "one end of it" "another end" …
python -m bertjax.predict embed     --checkpoint=DIR "A text." … [--output=FILE.npy]
python -m bertjax.predict search    --checkpoint=DIR --texts=FILE "What is looked for." …

What is to be read comes from the command line, from --input=FILE, or from stdin. In a file each line is a text; a line
that begins with { is a JSON object, for what has more than one part: {"text": …, "second": …} for pairs,
{"question": …, "passage": …} (or "context"), {"words": […]} for words (a text is split at white space),
{"text": …, "choices": […]}.
"""

import contextlib
import functools
import itertools
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from absl import flags

from bertjax import cli
from bertjax.errors import UserError
from bertjax.inference.modes import MODES

_LOG = logging.getLogger(__name__)

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A workdir, one of its checkpoints, or a model of another framework (docs/interop.md)."
)
_INPUT = flags.DEFINE_string("input", None, "A file with a text or a JSON object a line; - reads stdin.")
_OUTPUT = flags.DEFINE_string("output", None, "embed: an .npy file for the array [texts, hidden], in place of JSON.")
_TEXTS = flags.DEFINE_string("texts", None, "search: a file with a text or a JSON object with `text` a line.")
_TOP = flags.DEFINE_integer("top", 5, "fill-mask: tokens a mask; answer: answers in `best`; search: texts.", 1)
_POOLING = flags.DEFINE_string(
    "pooling", "", "embed: mean, cls or max of the tokens' states; by default as the model was trained, else mean."
)
_NORMALIZE = flags.DEFINE_bool("normalize", None, "embed: vectors of length 1; by default as the model was trained.")
_PROMPT = flags.DEFINE_string(
    "prompt", None, "embed, search: name of the prompt prepended to each text; by default the model's own."
)
_DTYPE = flags.DEFINE_string("dtype", "float32", "Of the computation: float32 or bfloat16.")
_WEIGHTS = flags.DEFINE_string("weights", "float", "int8 keeps weights in a quarter of the memory.")
_TOKENS = flags.DEFINE_integer("tokens", 1024, "That are computed at once; more for a GPU or TPU.", lower_bound=1)

_CHUNK = 2048  # inputs that are read and sorted by length together; their answers appear together
_LONGEST_LINE = 1 << 26  # bytes
_NO_JSON = 'a line that begins with { is JSON; write {"text": "{…"} for a text that does'


def main(args: list[str]) -> None:
    """Restores the model and prints its predictions, a JSON line an input."""
    from bertjax.storage.files import check_room, local_path

    cli.keep_memory()
    if not args or args[0] not in MODES or _CHECKPOINT.value is None:
        raise UserError(f'usage: python -m bertjax.predict {"|".join(MODES)} --checkpoint=DIR "A text." …')
    mode, *words = args
    if _OUTPUT.value and not (mode == "embed" and _OUTPUT.value.endswith(".npy")):
        raise UserError(f"--output={_OUTPUT.value} must be an .npy file, and is for embed only; others print to stdout")
    if _OUTPUT.value:
        check_room(local_path(_OUTPUT.value, "--output").absolute().parent, "--output")
    inputs = _inputs(mode, words)
    chunk = list(itertools.islice(inputs, _CHUNK))  # before the model is read: what is wrong is said at once

    from bertjax.inference import predictor
    from bertjax.interop.loading import load_model

    options = predictor.Options(
        dtype=_DTYPE.value,
        weights=_WEIGHTS.value,
        tokens=_TOKENS.value,
        top=_TOP.value,
        pooling=_POOLING.value,
        normalize=_NORMALIZE.value,
        texts=_texts(mode),
        prompt=_PROMPT.value,
    )
    predict = predictor.make(load_model(_CHECKPOINT.value), mode, options)
    if _OUTPUT.value:
        places, texts = zip(*chunk, *inputs, strict=True)
        array = predict.array(texts, places)
        _LOG.info(f"read {predict.counts.total.describe()}")
        _write_array(Path(_OUTPUT.value), array)
        return
    while chunk:
        places, texts = zip(*chunk, strict=True)
        for record in predict(texts, places):
            print(json.dumps(record, ensure_ascii=False))
        sys.stdout.flush()
        chunk = list(itertools.islice(inputs, _CHUNK))
    _LOG.info(f"read {predict.counts.total.describe()}")


def _texts(mode: str) -> tuple[str, ...]:
    """Those of --texts."""
    if bool(_TEXTS.value) != (mode == "search"):
        raise UserError("--texts=FILE is what search looks in, and for search only")
    if not _TEXTS.value:
        return ()
    from bertjax.inference.inputs import read_texts

    places, found = zip(*_of_file(_TEXTS.value, "--texts"), strict=True)
    return tuple(example.text for example in read_texts(found, places))


def _inputs(mode: str, words: list[str]) -> Iterator[tuple[str, Any]]:
    """(place, input) of each, from where the user put them."""
    if words and _INPUT.value:
        raise UserError("give texts on the command line or --input=FILE, not both")
    for word in words:
        if not word.strip():
            raise UserError("a text of the command line is empty; leave it out")
        if any("\ud800" <= character <= "\udfff" for character in word):  # how Python keeps bytes that it cannot read
            raise UserError(f"the text {word!a} is not UTF-8; convert it first")
    if not words:
        yield from _of_file(_INPUT.value or "-", "--input")
    elif mode == "answer":
        if len(words) != 2:
            raise UserError("answer takes a question and a passage from the command line; more come from --input=FILE")
        yield "the command line", tuple(words)
    elif mode == "choose":
        yield "the command line", {"text": words[0], "choices": words[1:]}
    else:
        yield from _read("text", enumerate(words, 1))


def _of_file(path: str, flag: str) -> Iterator[tuple[str, Any]]:
    """(place, input) of each line of the file that a flag names."""
    name = "stdin" if path == "-" else path
    empty = True
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            for pair in _read(f"{name}, line", _lines(name, file)):
                yield pair
                empty = False
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}; check {flag}") from error
    if empty:
        raise UserError(f"there is no text in {name}; give one text a line")


def _lines(name: str, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """(number, text) of each line."""
    offset = 0
    for number, line in enumerate(iter(functools.partial(file.readline, _LONGEST_LINE + 1), b""), 1):
        if len(line) > _LONGEST_LINE:
            raise UserError(f"{name}, line {number}: it has more than {_LONGEST_LINE:,} bytes; cut it")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 at byte {offset + error.start}; convert it first") from error
        yield number, text if offset else text.removeprefix("\ufeff")
        offset += len(line)


def _read(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, Any]]:
    from bertjax import decoding

    for number, line in lines:
        if text := line.strip():
            place = f"{name} {number}"
            yield place, decoding.parse(text, place, _NO_JSON) if text.startswith("{") else text


def _write_array(path: Path, array: Any) -> None:
    import numpy as np

    from bertjax.storage.files import written_whole

    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, array)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; check --output") from error
    _LOG.info(f"{array.shape[0]:,} embeddings of {array.shape[1]} numbers are in {path}")


if __name__ == "__main__":
    cli.run(main)
