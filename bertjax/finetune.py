"""Fine-tunes a pre-trained model on a task.

python -m bertjax.finetune --config=configs/glue.py:sst2 --workdir=DIR --config.init_from=DIR --config.data_dir=DIR

Trains one run for each learning rate, number of epochs and seed of the config, prints their dev scores, and saves the
best run. The same command continues a stopped sweep. The workdir then holds results.json, runs.jsonl with the scores of
every run, the checkpoint and predictions of the best run, and the submission files of GLUE tasks.
"""

from absl import flags

from bertjax import cli

_CONFIG = cli.define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep, created if missing.")


def main(args: list[str]) -> None:
    """Fine-tunes on one task or on all of GLUE, and prints the scores."""
    from bertjax.storage.files import local_path

    values = cli.config_value(_CONFIG)
    if args or values is None or _WORKDIR.value is None:
        usage = "python -m bertjax.finetune --config=FILE --workdir=DIR [--config.KEY=VALUE …]"
        raise cli.usage_error(args, {"--config": values, "--workdir": _WORKDIR.value}, usage)
    from bertjax.config.finetuning import from_config_dict
    from bertjax.finetuning import report, run

    config, workdir = from_config_dict(values), local_path(_WORKDIR.value, "--workdir")
    if config.task == "glue/all":
        for text in run.finetune_all(config, workdir, cli.show_progress()):
            print(text)
    elif results := run.finetune(config, workdir, cli.show_progress()):
        print(report.format_results(results))


if __name__ == "__main__":
    cli.run(main, keep_freed_memory=True)
