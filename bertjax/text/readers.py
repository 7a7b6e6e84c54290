"""Readers of files of documents. Each streams: what it holds in memory does not grow with the file.

A reader raises UserError with the file and the place (line, row or byte) of what it cannot read.
"""

import bz2
import contextlib
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bertjax import decoding, host_tensorflow
from bertjax.errors import UserError, listed

# A longer document is cut at a line end or a space. A thick novel is longer; it bounds the memory of a reader.
MAX_CHARACTERS = 1_000_000
# Of a line that is read whole. A longer one is a mistake, as where a file has other line ends; it bounds the memory.
MAX_LINE = 1 << 26

_BLOCK = 1 << 20
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_TFDS = re.compile(r"(?P<name>[^:]+)(:(?P<split>[^:\[]+(\[[^\]]*\])?))?(:(?P<feature>[^:]+))?")
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes, unpacking .gz, .bz2 and .xz.

    Raises:
      UserError: the file cannot be read, or its compression is damaged; also while the caller reads.
    """
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged or cut short ({error}); get the file again") from error
    except OSError as error:  # bz2 says with a plain OSError that the data is damaged
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error


def decoded_blocks(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in blocks of about a megabyte that end with a line end, except where lines are longer.

    Windows line ends become plain ones; a byte order mark is dropped.

    Raises:
      UserError: binary data (a NUL byte) or broken UTF-8, with file, line and byte.
    """
    with opened(path) as file:
        offset = lines = 0
        rest = b""
        while True:
            data = file.read(_BLOCK)
            block = rest + data
            # Cut after the last line end; a longer line is cut before an incomplete character.
            end = block.rfind(b"\n") + 1 if data else len(block)
            if not end and len(block) > _BLOCK:
                end = _character_end(block)
            block, rest = block[:end], block[end:]
            if block:
                text = _decode(block, path, offset, lines)
                yield text.removeprefix("\ufeff") if not offset else text
                offset += len(block)
                lines += block.count(b"\n")
            if not data:
                return


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line of a UTF-8 file.

    Raises:
      UserError: as `decoded_blocks`; a line of more than `MAX_LINE` characters.
    """
    number, rest = 1, ""
    for block in decoded_blocks(path):
        *whole, rest = (rest + block).split("\n")
        for line in whole:
            yield number, line
            number += 1
        if len(rest) > MAX_LINE:
            raise UserError(
                f"{path}, line {number}: it has more than {MAX_LINE:,} characters; put line ends between its parts"
            )
    if rest:
        yield number, rest


def text(path: Path, argument: str = "") -> Iterator[str]:
    """Documents with a blank line between them."""
    rest = ""
    for block in decoded_blocks(path):
        *whole, rest = _BLANK_LINES.split(rest + block)
        for document in whole:
            yield from bounded(document)
        *whole, rest = bounded(rest)
        yield from whole
    yield from bounded(rest)


def file(path: Path, argument: str = "") -> Iterator[str]:
    """The whole file as one document (as several where it is longer than `MAX_CHARACTERS`)."""
    rest = ""
    for block in decoded_blocks(path):
        *whole, rest = bounded(rest + block)
        yield from whole
    yield rest


def jsonl(path: Path, field: str) -> Iterator[str]:
    """One JSON object a line; the text is the string under `field`."""
    cure = "put the line right, or give jsonl:PATH:FIELD"
    name, schema = str(path), decoding.columns_type({"content": (field, str)})
    for number, line in lines(path):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        record = decoding.decode(line, schema, where, cure)
        if record.content is msgspec.UNSET:
            found = listed(decoding.parse(line, where, cure))
            raise UserError(f"{where}: no text under {field!r} (found: {found}); give jsonl:PATH:FIELD")
        yield from bounded(record.content)


def parquet(path: Path, column: str) -> Iterator[str]:
    """A row a document; the text is the column `column`. Nulls are skipped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
        if column not in names:
            raise UserError(f"{path}: no column {column!r} (found: {', '.join(names)}); give parquet:PATH:COLUMN")
        kind = table.schema_arrow.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise UserError(f"{path}: the column {column!r} holds {kind}, not text; give parquet:PATH:COLUMN")
        for batch in table.iter_batches(batch_size=256, columns=[column]):
            for value in batch.column(0):
                if value.is_valid:
                    yield from bounded(value.as_py())
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a parquet file, or a damaged one ({error}); get the file again") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: column {column!r} holds broken UTF-8 ({error.reason}); write the file again"
        ) from error


def tfds(where: str) -> Iterator[str]:
    """`NAME[:SPLIT[:FEATURE]]` of TensorFlow Datasets, downloaded where it is missing.

    Without SPLIT it is "train"; without FEATURE it is "text", or the only feature that is text.
    """
    match = _TFDS.fullmatch(where)
    if not match:
        raise UserError(f"tfds:{where}: give tfds:NAME[:SPLIT[:FEATURE]], e.g. tfds:wikipedia/20230601.en:train")
    name, split = match["name"], match["split"] or "train"
    dataset, features = open_tfds(name, split)
    import tensorflow_datasets

    texts = [key for key in features if isinstance(features[key], tensorflow_datasets.features.Text)]
    feature = match["feature"] or ("text" if "text" in texts else texts[0] if len(texts) == 1 else "")
    if feature not in texts:
        raise UserError(
            f"tfds:{name}: which feature is the text? Give tfds:{name}:{split}:FEATURE, one of {', '.join(texts)}"
        )
    for example in dataset.as_numpy_iterator():
        content = example[feature]
        try:
            yield from bounded(content.decode() if isinstance(content, bytes) else str(content))
        except UnicodeDecodeError as error:
            raise UserError(f"tfds:{where}: broken UTF-8 in {feature!r} ({error}); use another feature") from error


def tfds_builder(name: str, directory: str = "") -> Any:
    """A dataset's TFDS builder, kept off the accelerators; `directory` is where prepared data lies, "" for TFDS's own.

    Raises:
      UserError: TFDS does not know the name.
    """
    host_tensorflow.load()
    import tensorflow_datasets

    try:
        return tensorflow_datasets.builder(name, data_dir=directory or None)
    except Exception as error:  # tfds has no common class for an unknown name, an unknown version and no network
        raise UserError(f"tfds:{name}: cannot be opened ({error}); check the name and the network") from error


def open_tfds(name: str, split: str, directory: str = "") -> tuple[Any, Any]:
    """A split as a tf.data.Dataset in a fixed order, downloaded where it is missing, and its features.

    Raises:
      UserError: as `tfds_builder`; an unknown split, or data that cannot be had.
    """
    builder = tfds_builder(name, directory)
    import tensorflow_datasets

    config = tensorflow_datasets.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=split, shuffle_files=False, read_config=config)
    except Exception as error:  # nor here
        raise UserError(
            f"tfds:{name}:{split}: cannot be opened ({error}); check the name, the split and the network"
        ) from error
    return dataset, builder.info.features


def bounded(document: str) -> list[str]:
    """A document, or the pieces of one that is longer than `MAX_CHARACTERS`.

    Cuts at line ends, else at spaces, else anywhere; only the last piece may be shorter than half the bound.
    """
    pieces = []
    while len(document) > MAX_CHARACTERS:
        end = document.rfind("\n", MAX_CHARACTERS // 2, MAX_CHARACTERS)
        if end < 0:
            end = document.rfind(" ", MAX_CHARACTERS // 2, MAX_CHARACTERS)
        end = end if end >= 0 else MAX_CHARACTERS
        pieces.append(document[:end])
        document = document[end:]
    return [*pieces, document]


def _decode(block: bytes, path: Path, offset: int, lines_before: int) -> str:
    nul = block.find(b"\0")
    if nul >= 0:
        raise UserError(
            f"{path}: binary data (a zero byte at byte {offset + nul:,}), not UTF-8 text; leave the file out"
        )
    try:
        decoded = block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = lines_before + block.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: broken UTF-8 in line {line:,} (byte {offset + error.start:,}, {error.reason}); "
            "convert the file to UTF-8 (iconv -f latin1 -t utf-8)"
        ) from error
    return decoded.replace("\r\n", "\n") if "\r" in decoded else decoded


def _character_end(block: bytes) -> int:
    """The end of the last whole UTF-8 character: before a lead byte in the last three bytes."""
    for back in range(1, min(4, len(block) + 1)):
        if block[-back] >= 0xC0:
            return len(block) - back
    return len(block)


def valid(content: str, place: str) -> str:
    """JSON can spell half a surrogate pair, which is no character."""
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: broken text (half a surrogate pair at {error.start}); put the line right") from error
    return content
