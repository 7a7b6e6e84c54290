"""What differs first between the results of one case at two commits; compare_commits.py says what the cases are.

Each function takes the folders of the case at both commits, where `out/` is what the command wrote and `stdout` what it
printed, and returns a few words, or None where nothing differs. Nothing of bertjax is imported, so that its modules may
move: checkpoints are read with Orbax alone.
"""

import functools
import itertools
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

CLOCK = {"seconds", "examples_per_second"}  # of results.json; no two runs agree in them
ROUNDING = 1e-6  # relative: what Muon's numbers may differ by, as the layout of its state may change
# Softmax takes no notice of the bias of keys, so that its gradient is nothing but rounding, and so is the bias.
NOISE = "['attention']['key']['bias']"
PREDICTED = 1e-5  # what the numbers of predictions may differ by


def of_corpus(old: Path, new: Path) -> str | None:
    """To the byte, in all files but `cache/`, which training makes and which holds the times of files.

    There are paths and times in build/plan.json and corpus.json, but only of the sources, which are the same files.
    """
    for name, in_both in _names(old, new, "**/*"):
        if name.parts[1] == "cache":
            continue
        if not in_both or (old / name).read_bytes() != (new / name).read_bytes():
            return f"{name}{'' if in_both else ' is in one only'}"
    return None


def of_training(old: Path, new: Path, relative: float = 0.0) -> str | None:
    """To the bit, in metrics.jsonl and the last checkpoint; with `relative` only beyond that."""
    if found := _of_lines(old / "out" / "metrics.jsonl", new / "out" / "metrics.jsonl", relative):
        return found
    last = [max((folder / "out" / "checkpoints").iterdir(), key=lambda path: int(path.name)) for folder in (old, new)]
    if last[0].name != last[1].name:
        return f"the last checkpoint: {last[0].name} became {last[1].name}"
    # Of the meta only what says something about the arrays: its form and the keys of the config may change.
    same = ("step",) if relative else ("step", "checksums")
    metas = [json.loads((path / "meta" / "metadata").read_bytes()) for path in last]
    if found := _of_values(*({key: meta[key] for key in same} for meta in metas), "meta"):
        return found
    return _of_arrays(*last, "params", relative) or _of_arrays(*last, "optimizer", relative)


of_muon = functools.partial(of_training, relative=ROUNDING)


def of_finetuning(old: Path, new: Path) -> str | None:
    """Exactly, in results but for the clock, digests, and each run's losses and scores; nearly in predictions."""
    for name in ("data.json", "results.json"):
        values = [_without_clock(json.loads((folder / "out" / name).read_bytes())) for folder in (old, new)]
        if found := _of_values(*values, name):
            return found
    for pattern, absolute in (("runs/*/metrics.jsonl", 0.0), ("predictions/*.jsonl", PREDICTED)):
        for name, in_both in _names(old, new, pattern):
            if not in_both:
                return f"{name} is in one only"
            if found := _of_lines(old / name, new / name, absolute=absolute):
                return found
    return None


def of_predictions(old: Path, new: Path) -> str | None:
    """Nearly in numbers, exactly in all else of the JSON lines that a command printed."""
    return _of_lines(old / "stdout", new / "stdout", absolute=PREDICTED)


def _names(old: Path, new: Path, pattern: str) -> list[tuple[Path, bool]]:
    """The files in `out/` that fit the pattern, at least one, and whether both have them."""
    found = [{path.relative_to(one) for path in one.glob(f"out/{pattern}") if path.is_file()} for one in (old, new)]
    if not found[0]:
        raise FileNotFoundError(f"there is no {pattern}")
    return [(name, name in found[0] & found[1]) for name in sorted(found[0] | found[1])]


def _of_lines(old: Path, new: Path, relative: float = 0.0, absolute: float = 0.0) -> str | None:
    """Of two files of JSON lines; without a tolerance to the byte."""
    texts = [path.read_text(encoding="utf-8") for path in (old, new)]
    if not texts[0]:
        return f"{old} is empty"
    for number, (a, b) in enumerate(itertools.zip_longest(*map(str.splitlines, texts)), start=1):
        place = f"{old.name}, line {number}"
        if a is None or b is None:
            return f"{place}, is in one only"
        if a != b and (found := _of_values(json.loads(a), json.loads(b), place, relative, absolute)):
            return found
    return None if relative or absolute or texts[0] == texts[1] else f"{old.name}, though no value of it"


def _of_values(a: Any, b: Any, place: str, relative: float = 0.0, absolute: float = 0.0) -> str | None:
    """Of two JSON values, with the place where they differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return f"{place}: keys {', '.join(a)} became {', '.join(b)}"
        pairs = [(a[key], b[key], f"{place}, {key}") for key in a]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(*pair, f"{place}[{number}]") for number, pair in enumerate(zip(a, b, strict=True))]
    else:
        near = isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=relative, abs_tol=absolute)
        return None if near or a == b else f"{place}: {a!r:.60} became {b!r:.60}"
    return next(filter(None, (_of_values(*pair, relative, absolute) for pair in pairs)), None)


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(inner) for key, inner in value.items() if key not in CLOCK}
    return [_without_clock(inner) for inner in value] if isinstance(value, list) else value


def _of_arrays(old: Path, new: Path, item: str, relative: float) -> str | None:
    """Of an item of two checkpoints, relative to each array's largest number.

    With `relative`, an array of the optimizer's state that only one has, or that has another shape, does not count.
    """
    import numpy as np

    arrays = [_restored(checkpoint / item) for checkpoint in (old, new)]
    if not arrays[0].keys() & arrays[1].keys():
        return f"{item}: no array has its name in both"
    for name in sorted(arrays[0].keys() | arrays[1].keys()):
        a, b = (one.get(name) for one in arrays)
        if a is None or b is None or (a.dtype, a.shape) != (b.dtype, b.shape):
            if relative and item == "optimizer":
                continue
            forms = ("none" if one is None else f"{one.dtype}{list(one.shape)}" for one in (a, b))
            return f"{item}{name}: {' became '.join(forms)}"
        if a.tobytes() != b.tobytes():
            furthest = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
            scale = 1.0 if name.endswith(NOISE) else float(np.abs(a).max())
            if not furthest <= relative * scale:
                return f"{item}{name}: by up to {furthest:.2g}"
    return None


def _restored(path: Path) -> dict[str, Any]:
    """The arrays of an item, by their paths in it."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)  # of files that bertjax's checkpoints do without
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(path).item_metadata.tree
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), stored)
        leaves = jax.tree_util.tree_flatten_with_path(checkpointer.restore(path, abstract))[0]
    return {jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in leaves}
