"""Tasks read from TensorFlow Datasets: data_dir is `tfds`, or `tfds:DIR` with a folder of prepared data."""

from typing import Any

from bertjax.errors import UserError
from bertjax.text import readers

# Split → its name in TFDS, if that differs.
_SPLITS = {"dev": "validation", "dev_matched": "validation_matched", "dev_mismatched": "validation_mismatched"}


def is_tfds(data_dir: str) -> bool:
    """Whether a data_dir means TFDS instead of a folder."""
    return data_dir.partition(":")[0] == "tfds"


def read(builder: str, split: str, data_dir: str, splits: dict[str, str] = _SPLITS) -> tuple[list[dict[str, Any]], str]:
    """Returns the records of a split in TFDS's order, and the name of the split for messages.

    Raises:
      UserError: bertjax does not read the task from TFDS, or TFDS is not installed or cannot read it.
    """
    if not builder:
        raise unsupported(data_dir)
    split = splits.get(split, split)
    dataset, _ = readers.open_tfds(builder, split, data_dir.partition(":")[2])
    records = list(dataset.as_numpy_iterator())
    if not records:
        raise UserError(f"tfds:{builder}:{split}: no examples; prepare the data again")
    return records, f"tfds:{builder}:{split}"


def unsupported(data_dir: str) -> UserError:
    """Returns the error for a task that is read only from its own files."""
    return UserError(f"{data_dir}: bertjax does not read this task from TFDS; set data_dir to a folder with its files")


def class_names(builder: str, feature: str, data_dir: str) -> tuple[str, ...]:
    """Returns the class names of a feature that is a sequence of labels."""
    return tuple(readers.tfds_builder(builder, data_dir.partition(":")[2]).info.features[feature].feature.names)
