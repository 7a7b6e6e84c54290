"""Streaming readers of document files; their memory use does not grow with the file.

Each reader raises UserError with the file and the line, row or byte that it cannot read.
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
from bertjax.errors import UserError, join_names

# Longer documents are split at a line end or a space, to bound the memory of a reader. Thick novels are longer.
MAX_CHARACTERS = 1_000_000
# Characters of a line that is read whole. Longer lines are an error (other line ends, for example); bounds memory.
MAX_LINE = 1 << 26

_BLOCK = 1 << 20
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_TFDS = re.compile(r"(?P<name>[^:]+)(:(?P<split>[^:\[]+(\[[^\]]*\])?))?(:(?P<feature>[^:]+))?")
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes, decompressing .gz, .bz2 and .xz.

    Raises:
      UserError: the file cannot be read, or its compressed data is damaged; also raised while the caller reads.
    """
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged or truncated ({error}); download the file again") from error
    except OSError as error:  # bz2 raises a plain OSError for damaged data
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error


def decoded_blocks(path: Path) -> Iterator[str]:
    """Yields a UTF-8 file in blocks of about a megabyte. Blocks end at line ends unless a line is longer.

    Windows line ends are converted, and a byte order mark is dropped.

    Raises:
      UserError: binary data (a NUL byte) or invalid UTF-8, with file, line and byte.
    """
    with opened(path) as file:
        offset = lines = 0
        rest = b""
        while True:
            data = file.read(_BLOCK)
            block = rest + data
            # Split after the last line end; a longer line is split before an incomplete character.
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
    """Yields (number from 1, text) of each line of a UTF-8 file.

    Raises:
      UserError: as `decoded_blocks`, or a line has more than `MAX_LINE` characters.
    """
    number, rest = 1, ""
    for block in decoded_blocks(path):
        *complete, rest = (rest + block).split("\n")
        for line in complete:
            yield number, line
            number += 1
        if len(rest) > MAX_LINE:
            raise UserError(f"{path}, line {number}: longer than {MAX_LINE:,} characters; split it into several lines")
    if rest:
        yield number, rest


def text(path: Path, argument: str = "") -> Iterator[str]:
    """Yields documents separated by blank lines."""
    rest = ""
    for block in decoded_blocks(path):
        *complete, rest = _BLANK_LINES.split(rest + block)
        for document in complete:
            yield from bounded(document)
        *complete, rest = bounded(rest)
        yield from complete
    yield from bounded(rest)


def file(path: Path, argument: str = "") -> Iterator[str]:
    """Yields the whole file as one document, or as several if it is longer than `MAX_CHARACTERS`."""
    rest = ""
    for block in decoded_blocks(path):
        *complete, rest = bounded(rest + block)
        yield from complete
    yield rest


def jsonl(path: Path, field: str) -> Iterator[str]:
    """Yields the string under `field` of each line, a JSON object."""
    remedy = "correct the line, or pass jsonl:PATH:FIELD"
    name, schema = str(path), decoding.columns_type({"content": (field, str)})
    for number, line in lines(path):
        if not line.strip():
            continue
        location = f"{name}, line {number}"
        record = decoding.decode(line, schema, location, remedy)
        if record.content is msgspec.UNSET:
            values = decoding.convert(decoding.parse(line, location, remedy), dict[str, object], location, remedy)
            keys = join_names(values)
            raise UserError(f"{location}: no field {field!r} (fields: {keys}); pass jsonl:PATH:FIELD")
        yield from bounded(record.content)


def parquet(path: Path, column: str) -> Iterator[str]:
    """Yields the non-null values of a text column, one document per table row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
        if column not in names:
            raise UserError(f"{path}: no column {column!r} (columns: {', '.join(names)}); pass parquet:PATH:COLUMN")
        dtype = table.schema_arrow.field(column).type
        if not (pa.types.is_string(dtype) or pa.types.is_large_string(dtype)):
            raise UserError(f"{path}: column {column!r} holds {dtype}, not text; pass parquet:PATH:COLUMN")
        for batch in table.iter_batches(batch_size=256, columns=[column]):
            for value in batch.column(0):
                if value.is_valid:
                    yield from bounded(value.as_py())
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged, or not a parquet file ({error}); download the file again") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: column {column!r} holds invalid UTF-8 ({error.reason}); write the file again"
        ) from error


def tfds(dataset_spec: str) -> Iterator[str]:
    """Yields the texts of `NAME[:SPLIT[:FEATURE]]` from TensorFlow Datasets, downloading it if necessary.

    SPLIT defaults to "train". FEATURE defaults to "text", or to the only text feature.
    """
    match = _TFDS.fullmatch(dataset_spec)
    if not match:
        raise UserError(
            f"tfds:{dataset_spec}: malformed; pass tfds:NAME[:SPLIT[:FEATURE]], e.g. tfds:wikipedia/20230601.en:train"
        )
    name, split = match["name"], match["split"] or "train"
    dataset, features = open_tfds(name, split)
    import tensorflow_datasets

    texts = [key for key in features if isinstance(features[key], tensorflow_datasets.features.Text)]
    feature = match["feature"] or ("text" if "text" in texts else texts[0] if len(texts) == 1 else "")
    if feature not in texts:
        problem = f"{feature!r} is not a text feature" if feature else "cannot choose the text feature"
        raise UserError(f"tfds:{name}: {problem}; pass tfds:{name}:{split}:FEATURE, one of {', '.join(texts)}")
    for example in dataset.as_numpy_iterator():
        content = example[feature]
        try:
            yield from bounded(content.decode() if isinstance(content, bytes) else str(content))
        except UnicodeDecodeError as error:
            raise UserError(
                f"tfds:{dataset_spec}: invalid UTF-8 in {feature!r} ({error}); use another feature"
            ) from error


def tfds_builder(name: str, directory: str = "") -> Any:  # noqa: ANN401
    """Returns the TFDS builder of a dataset; TensorFlow is kept off the accelerators.

    Args:
      name: of the dataset in TFDS.
      directory: of the prepared data; "" for the default of TFDS.

    Raises:
      UserError: TFDS does not know the name.
    """
    host_tensorflow.load()
    import tensorflow_datasets

    try:
        return tensorflow_datasets.builder(name, data_dir=directory or None)
    except Exception as error:  # no common base class for an unknown name, an unknown version and network errors
        raise UserError(f"tfds:{name}: cannot be opened ({error}); check the name and the network") from error


def open_tfds(name: str, split: str, directory: str = "") -> tuple[Any, Any]:
    """Returns a split as a tf.data.Dataset in a fixed order, and its features; downloads the data if necessary.

    Raises:
      UserError: as `tfds_builder`, or the split is unknown, or its data is not available.
    """
    builder = tfds_builder(name, directory)
    import tensorflow_datasets

    config = tensorflow_datasets.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=split, shuffle_files=False, read_config=config)
    except Exception as error:  # no common base class, as above
        raise UserError(
            f"tfds:{name}:{split}: cannot be opened ({error}); check the name, the split and the network"
        ) from error
    return dataset, builder.info.features


def bounded(document: str) -> list[str]:
    """Splits a document into pieces of at most `MAX_CHARACTERS`.

    Splits at line ends, else at spaces, else anywhere; only the last piece may be shorter than half the bound.
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
        raise UserError(f"{path}: binary data (a zero byte at byte {offset + nul:,}), not UTF-8 text; exclude the file")
    try:
        decoded = block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = lines_before + block.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: invalid UTF-8 in line {line:,} (byte {offset + error.start:,}, {error.reason}); "
            "convert the file to UTF-8 (iconv -f latin1 -t utf-8)"
        ) from error
    return decoded.replace("\r\n", "\n") if "\r" in decoded else decoded


def _character_end(block: bytes) -> int:
    """Returns the end of the last complete UTF-8 character: before a lead byte in the last three bytes."""
    for back in range(1, min(4, len(block) + 1)):
        if block[-back] >= 0xC0:
            return len(block) - back
    return len(block)


def valid(content: str, location: str) -> str:
    """Returns `content` after checking that it contains no unpaired surrogate, which JSON escapes can produce.

    Raises:
      UserError: it does.
    """
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{location}: invalid text (unpaired surrogate at character {error.start}); correct the line"
        ) from error
    return content
