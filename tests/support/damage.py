"""Changes files: deliberate edits with a new seal, and damage of bits, bytes and values as by a broken disk."""

import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertjax import decoding
from bertjax.interop import export_seal

_NUMBERS = (0, 1, -1, 2, 7, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, 10**30, 0.5, -0.0, 1.5, 1e-320, 1e308)
_NUMBERS += (float("nan"), float("inf"))
_TEXTS = ("", " ", "a", "0", "1", "-1", "true", "null", "é漢😀", "a\nb", "\x00", "\x1b[2J", "x" * 5000, "0" * 64)
_PATHS = ("../x", "..", ".", "/etc/passwd", "C:\\x", "a/../../x", "a\x00b", "~", "./a", "a/b", "n" * 300)
_SURROGATES = ("\ud800", "a\udfffb")
# Valid or nearly valid JSON that Python does not write.
_LITERALS = ("1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 4000, "9" * 5001, "-0", "1.0", "1E2", "0.1e-999")
_DEPTHS = (10, 30, 31, 32, 33, 100, 990, 1000, 10_000, 100_000)
_MARK = "\uf8ff{}\uf8ff"  # placeholder for raw text, which replaces it in the JSON text


def edit_sealed(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the values of a sealed JSON file and seals it again."""
    values = decoding.without_seal(json.loads(path.read_text(encoding="utf-8")))
    edit(values)
    path.write_text(json.dumps(decoding.sealed(values)), encoding="utf-8")


def resealed(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values with a valid seal, whatever their old one is."""
    return decoding.sealed(decoding.without_seal(values))


def unsealed(folder: Path) -> Path:
    """Removes the seal of an exported folder, as if another program had written it."""
    (folder / export_seal.NAME).unlink()
    config = folder / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    for key in export_seal.KEYS:
        del values[key]
    config.write_text(json.dumps(values), encoding="utf-8")
    return folder


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Returns content with one to three changes of bits, bytes, lines or length."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(_BYTE_DAMAGES)(data, rng)
    return data


def _flipped(data: bytes, rng: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, len(data) - 1, rng.randint(0, len(data))))]


def _inserted(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    inserted = rng.choice(
        (b"\n", b"\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\t", b'"', b",", b"0" * 5000, b"[" * 2000, bytes(4096))
    )
    return data[:at] + rng.choice((inserted, rng.randbytes(rng.randint(1, 9)))) + data[at:]


def _cut_out(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randint(0, len(data))
    return data[:begin] + data[begin + rng.choice((1, 2, 16, 512)) :]


def _repeated(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randint(0, len(data))
    end = begin + rng.choice((1, 8, 64, 4096))
    return data[:end] + data[begin:end] + data[end:]


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    """Like a page that a disk lost."""
    begin = rng.randint(0, len(data))
    size = min(rng.choice((1, 8, 512, 4096)), len(data) - begin)
    return data[:begin] + bytes(size) + data[begin + size :]


def _lines_changed(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            del lines[at]
        case 1:
            lines.insert(other, lines[at])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
    return b"\n".join(lines)


_BYTE_DAMAGES = (_flipped, _flipped, _truncated, _inserted, _cut_out, _repeated, _zeroed, _lines_changed)


def damaged_json(values: Any, rng: random.Random, seal: Callable[..., Any] | None = None) -> bytes:
    """Returns the text of JSON values with one to three changes of values or notation.

    `seal` seals the changed values, so that only their content can be refused.
    """
    root, raw = [decoding.without_seal(copy.deepcopy(values)) if seal else copy.deepcopy(values)], {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change_value(root, rng, raw)
    values = root[0]
    if seal:
        return json.dumps(seal(values) if isinstance(values, dict) else values).encode()
    text = json.dumps(values, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1)))
    if rng.random() < 0.1:
        text = _with_repeated_key(text, rng)
    for mark, literal in raw.items():
        text = text.replace(json.dumps(mark), literal).replace(f'"{mark}"', literal)
    return text.encode("utf-8", "surrogatepass")


def _change_value(root: list[Any], rng: random.Random, raw: dict[str, str]) -> None:
    """Changes one value, key or item somewhere below `root[0]`."""
    parent, key = _random_place(root, rng)
    old = parent[key]
    match rng.randrange(8):
        case 0 if isinstance(parent, dict) or len(parent) > 1:
            del parent[key]
        case 1 if isinstance(old, dict):
            old[rng.choice((*_TEXTS, *_PATHS, *_SURROGATES, *old))] = _odd_value(rng, raw)
        case 1 if isinstance(old, list):
            old.insert(rng.randint(0, len(old)), rng.choice(old) if old and rng.random() < 0.5 else rng.choice(_TEXTS))
        case 2:
            other, where = _random_place(root, rng)
            if other is not root and parent is not root:  # a value must not become part of itself
                parent[key], other[where] = copy.deepcopy(other[where]), copy.deepcopy(old)
        case 3 if isinstance(parent, dict):
            parent[rng.choice((*_TEXTS, *_PATHS, *_SURROGATES, *parent))] = parent.pop(key)
        case 4 if isinstance(old, str) and old:
            parent[key] = damaged_bytes(old.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
        case 4 | 5 if isinstance(old, int | float):
            parent[key] = rng.choice((old + 1, old - 1, -old, old * 2, float(old), str(old), bool(old)))
        case _:
            parent[key] = _odd_value(rng, raw)


def _random_place(root: list[Any], rng: random.Random) -> tuple[Any, Any]:
    """Returns (container, key) of a random value; each level is about as likely as all deeper ones."""
    parent, key = root, 0
    while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.8:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    return parent, key


def _odd_value(rng: random.Random, raw: dict[str, str]) -> Any:
    match rng.randrange(8):
        case 0 | 1:
            return rng.choice(_NUMBERS)
        case 2:
            return rng.choice((*_TEXTS, *_PATHS, *_SURROGATES))
        case 3 | 4:
            return rng.choice(([], {}, [1], ["a"], [[]], [{}], {"a": 1}, {"": None}, {"0": "a"}, [None], {"a": {}}))
        case 5:
            return rng.choice((None, True, False))
        case 6:
            return _raw(rng.choice(_LITERALS), raw)
        case _:
            depth, (opening, closing) = rng.choice(_DEPTHS), rng.choice((("[", "]"), ('{"a":', "}")))
            return _raw(opening * depth + "1" * (opening != "[") + closing * depth, raw)


def _raw(text: str, raw: dict[str, str]) -> str:
    mark = _MARK.format(len(raw))
    raw[mark] = text
    return mark


def _with_repeated_key(text: str, rng: random.Random) -> str:
    keys = list(re.finditer(r'"[^"\\]*":', text))
    if not keys:
        return text
    key = rng.choice(keys)
    return text[: key.start()] + key[0] + rng.choice(("null", "[]", "1", '"a"')) + "," + text[key.start() :]
