"""Uses a checkpoint on text.

python -m bertjax.predict fill-mask --checkpoint=DIR ["Text with a [MASK]." …] [--input=FILE] [--top=5]

Texts come from the command line, from a file with one a line, or from stdin. Each gives one JSON line on stdout:
the text, and for every mask the likeliest tokens with their probabilities.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import flags

from bertjax import command
from bertjax.errors import UserError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A workdir, one of its checkpoints, or a Hugging Face folder.")
_INPUT = flags.DEFINE_string("input", None, "A file with one text a line; - reads stdin.")
_TOP = flags.DEFINE_integer("top", 5, "Predictions a mask.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 32, "Texts a step.", lower_bound=1)


def main(args: list[str]) -> None:
    """Restores the model and prints its predictions, a JSON line a text."""
    if not args or args[0] != "fill-mask" or _CHECKPOINT.value is None:
        raise UserError('usage: python -m bertjax.predict fill-mask --checkpoint=DIR "Text with a [MASK]."')
    from bertjax import pretrained
    from bertjax.fill_mask import FillMask

    texts = list(_texts(args[1:]))
    fill = FillMask(pretrained.load(_CHECKPOINT.value, command.say))
    for start in range(0, len(texts), _BATCH.value):
        batch = texts[start : start + _BATCH.value]
        for text, predictions in zip(batch, fill(batch, top=_TOP.value), strict=True):
            print(json.dumps({"text": text, "masks": predictions}, ensure_ascii=False), flush=True)


def _texts(words: list[str]) -> Iterator[str]:
    """The texts, from where the user put them."""
    if words and _INPUT.value:
        raise UserError("give texts on the command line or --input=FILE, not both")
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):  # how Python keeps bytes that it cannot read
            raise UserError(f"the text {word!a} is not UTF-8; convert it first")
    lines: Iterable[str] = words or _lines(_INPUT.value or "-")
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UserError(f"there is no text in {_INPUT.value or 'stdin'}; give one text a line")
    yield from found


def _lines(path: str) -> list[str]:
    name = "stdin" if path == "-" else path
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return content.decode("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}; check --input") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 at byte {error.start}; convert it first") from error


if __name__ == "__main__":
    command.run(main)
