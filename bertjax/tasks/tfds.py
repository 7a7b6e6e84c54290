"""The same tasks from TensorFlow Datasets: `tfds`, or `tfds:DIR` for a folder of prepared data."""

from typing import Any

from bertjax.errors import UserError
from bertjax.text import readers

# Names of splits; those of others are the same.
_SPLITS = {"dev": "validation", "dev_matched": "validation_matched", "dev_mismatched": "validation_mismatched"}


def named(data_dir: str) -> bool:
    """Whether a data_dir means TFDS and not a folder."""
    return data_dir.partition(":")[0] == "tfds"


def read(builder: str, split: str, data_dir: str, splits: dict[str, str] = _SPLITS) -> tuple[list[dict[str, Any]], str]:
    """A split's records, in TFDS's order, and its name for messages.

    Raises:
      UserError: the task is not read from TFDS, or TFDS is not installed or cannot read it.
    """
    if not builder:
        raise not_read(data_dir)
    split = splits.get(split, split)
    dataset, _ = readers.open_tfds(builder, split, data_dir.partition(":")[2])
    records = list(dataset.as_numpy_iterator())
    if not records:
        raise UserError(f"tfds:{builder}:{split}: there are no examples in it; prepare it again")
    return records, f"tfds:{builder}:{split}"


def not_read(data_dir: str) -> UserError:
    """What to say of a task that only its own files give."""
    return UserError(f"{data_dir}: bertjax does not read this task from TFDS; give data_dir a folder with its files")


def class_names(builder: str, feature: str, data_dir: str) -> tuple[str, ...]:
    """The names of the classes of a feature that is a sequence of them."""
    return tuple(readers.tfds_builder(builder, data_dir.partition(":")[2]).info.features[feature].feature.names)
