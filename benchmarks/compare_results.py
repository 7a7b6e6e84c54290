"""Compares the results of one case of compare_commits.py at two commits.

Each public function takes the folders of the case at both commits, with the output files in `out/` and the printed text
in `stdout`, and describes the first difference, or returns None. Independent of bertjax, whose modules may move:
checkpoints are read with Orbax alone.
"""

import functools
import itertools
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

TIMING_KEYS = {"seconds", "examples_per_second"}  # of results.json
ROUNDING = 1e-6  # relative tolerance for Muon, whose state may change its layout
# Softmax is invariant to the bias of the keys: its gradient, and the bias itself, are rounding errors.
NOISE = "['attention']['key']['bias']"
PREDICTION_TOLERANCE = 1e-5  # absolute


def compare_corpora(old: Path, new: Path) -> str | None:
    """Compares all files byte by byte, except `cache/`, which training creates and which contains times of files.

    build/plan.json and corpus.json contain only paths and times of the sources, which are the same files.
    """
    for name, in_both in _names(old, new, "**/*"):
        if name.parts[1] == "cache":
            continue
        if not in_both or (old / name).read_bytes() != (new / name).read_bytes():
            return f"{name}{'' if in_both else ': exists at one commit only'}"
    return None


def compare_training(old: Path, new: Path, relative: float = 0.0) -> str | None:
    """Compares metrics.jsonl and the last checkpoint, bit for bit or with a relative tolerance."""
    if difference := _compare_lines(old / "out" / "metrics.jsonl", new / "out" / "metrics.jsonl", relative):
        return difference
    last = [max((folder / "out" / "checkpoints").iterdir(), key=lambda path: int(path.name)) for folder in (old, new)]
    if last[0].name != last[1].name:
        return f"last checkpoint: {last[0].name} → {last[1].name}"
    # Only the values of the meta that concern the arrays: its format and the keys of the config may change.
    keys = ("step",) if relative else ("step", "checksums")
    metas = [json.loads((path / "meta" / "metadata").read_bytes()) for path in last]
    if difference := _compare_values(*({key: meta[key] for key in keys} for meta in metas), "meta"):
        return difference
    return _compare_arrays(*last, "params", relative) or _compare_arrays(*last, "optimizer", relative)


compare_muon_training = functools.partial(compare_training, relative=ROUNDING)


def compare_finetuning(old: Path, new: Path) -> str | None:
    """Compares results without times, digests, and losses and scores of all runs exactly; predictions approximately."""
    for name in ("data.json", "results.json"):
        values = [_without_timing(json.loads((folder / "out" / name).read_bytes())) for folder in (old, new)]
        if difference := _compare_values(*values, name):
            return difference
    for pattern, absolute in (("runs/*/metrics.jsonl", 0.0), ("predictions/*.jsonl", PREDICTION_TOLERANCE)):
        for name, in_both in _names(old, new, pattern):
            if not in_both:
                return f"{name}: exists at one commit only"
            if difference := _compare_lines(old / name, new / name, absolute=absolute):
                return difference
    return None


def compare_predictions(old: Path, new: Path) -> str | None:
    """Compares the printed JSON lines: numbers approximately, everything else exactly."""
    return _compare_lines(old / "stdout", new / "stdout", absolute=PREDICTION_TOLERANCE)


def _names(old: Path, new: Path, pattern: str) -> list[tuple[Path, bool]]:
    """The files in `out/` that match the pattern, at least one, and whether both commits have them."""
    names = [
        {path.relative_to(folder) for path in folder.glob(f"out/{pattern}") if path.is_file()} for folder in (old, new)
    ]
    if not names[0]:
        raise FileNotFoundError(f"{old}/out: no {pattern}")
    return [(name, name in names[0] & names[1]) for name in sorted(names[0] | names[1])]


def _compare_lines(old: Path, new: Path, relative: float = 0.0, absolute: float = 0.0) -> str | None:
    """Compares two files of JSON lines, byte by byte if there is no tolerance."""
    texts = [path.read_text(encoding="utf-8") for path in (old, new)]
    if not texts[0]:
        return f"{old} is empty"
    for number, (a, b) in enumerate(itertools.zip_longest(*map(str.splitlines, texts)), start=1):
        place = f"{old.name}, line {number}"
        if a is None or b is None:
            return f"{place}: exists at one commit only"
        if a != b and (difference := _compare_values(json.loads(a), json.loads(b), place, relative, absolute)):
            return difference
    return None if relative or absolute or texts[0] == texts[1] else f"{old.name}: equal values in another notation"


def _compare_values(a: Any, b: Any, place: str, relative: float = 0.0, absolute: float = 0.0) -> str | None:
    """Compares two JSON values, and names the place where they differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return f"{place}: keys {', '.join(a)} → {', '.join(b)}"
        pairs = [(a[key], b[key], f"{place}, {key}") for key in a]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(*pair, f"{place}[{number}]") for number, pair in enumerate(zip(a, b, strict=True))]
    else:
        is_close = (
            isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=relative, abs_tol=absolute)
        )
        return None if is_close or a == b else f"{place}: {a!r:.60} → {b!r:.60}"
    return next(filter(None, (_compare_values(*pair, relative, absolute) for pair in pairs)), None)


def _without_timing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_timing(inner) for key, inner in value.items() if key not in TIMING_KEYS}
    return [_without_timing(inner) for inner in value] if isinstance(value, list) else value


def _compare_arrays(old: Path, new: Path, item: str, relative: float) -> str | None:
    """Compares an item of two checkpoints; tolerances are relative to the largest number of each array.

    With a tolerance, arrays of the optimizer state that exist at one commit only, or have another shape, are ignored.
    """
    import numpy as np

    arrays = [_restore(checkpoint / item) for checkpoint in (old, new)]
    if not arrays[0].keys() & arrays[1].keys():
        return f"{item}: no common array names"
    for name in sorted(arrays[0].keys() | arrays[1].keys()):
        a, b = (tree.get(name) for tree in arrays)
        if a is None or b is None or (a.dtype, a.shape) != (b.dtype, b.shape):
            if relative and item == "optimizer":
                continue
            forms = ("none" if array is None else f"{array.dtype}{list(array.shape)}" for array in (a, b))
            return f"{item}{name}: {' → '.join(forms)}"
        if a.tobytes() != b.tobytes():
            largest_difference = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
            scale = 1.0 if name.endswith(NOISE) else float(np.abs(a).max())
            if not largest_difference <= relative * scale:
                return f"{item}{name}: differs by up to {largest_difference:.2g}"
    return None


def _restore(path: Path) -> dict[str, Any]:
    """Path → array of an item."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns about files that bertjax's checkpoints lack
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(path).item_metadata.tree
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored)
        leaves = jax.tree_util.tree_flatten_with_path(checkpointer.restore(path, abstract))[0]
    return {jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in leaves}
