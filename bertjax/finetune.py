"""Fine-tunes a pre-trained model on a task: a sweep over learning rates, epochs and seeds, the best on dev kept.

python -m bertjax.finetune --config=configs/glue.py:sst2 --workdir=DIR --config.init_from=DIR --config.data_dir=DIR

Running the same command again goes on with the runs that are not finished. The workdir then holds results.json, the
best run's checkpoint and predictions, runs.jsonl with the scores of every run, and for GLUE files to submit.
"""

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

_CONFIG = cli.define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the sweep's files go; it is continued if it is there already.")


def main(args: list[str]) -> None:
    """Reads the flags and fine-tunes, on one task or all of GLUE."""
    from bertjax.storage.files import local_path

    cli.keep_memory()
    values = cli.config_value(_CONFIG)
    if args or values is None or _WORKDIR.value is None:
        raise UserError("usage: python -m bertjax.finetune --config=FILE --workdir=DIR [--config.KEY=VALUE …]")
    from bertjax.config.finetuning import from_config_dict
    from bertjax.finetuning import run

    config = from_config_dict(values)
    finetune = run.finetune_all if config.task == "glue/all" else run.finetune
    finetune(config, local_path(_WORKDIR.value, "--workdir"), cli.show_progress())


if __name__ == "__main__":
    cli.run(main)
