"""Pre-trains an encoder, or continues a run.

python -m bertjax.train --config=configs/base.py --workdir=runs/base --config.corpus=DIR [--config.KEY=VALUE …]

Writes config.json, metrics.jsonl, perf.jsonl, TensorBoard events, checkpoints/, tokenizer/ and curves.png to the
workdir. The same command continues the run from its last checkpoint. Ctrl-C and SIGTERM save a checkpoint and stop.
"""

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

_CONFIG = cli.define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, created if it does not exist.")
_START_TIMEOUT = flags.DEFINE_integer("start_timeout", 300, "Seconds to wait until all processes have started.")
_LOST_TIMEOUT = flags.DEFINE_integer("lost_timeout", 100, "Seconds without a heartbeat until a process counts as lost.")


def main(args: list[str]) -> None:
    """Starts or continues the run."""
    from bertjax.storage.files import local_path

    if args:
        raise UserError(f"unexpected argument {args[0]}; give settings as --config.KEY=VALUE")
    values = cli.config_value(_CONFIG)
    if values is None or _WORKDIR.value is None:
        raise UserError("--config or --workdir is missing; give e.g. --config=configs/tiny.py --workdir=runs/tiny")
    from bertjax.config.parse import from_config_dict

    config = from_config_dict(values)
    from bertjax.parallel import processes
    from bertjax.pretraining.run import train

    with processes.join_cluster(_START_TIMEOUT.value, _LOST_TIMEOUT.value, cli.debug()):
        if not processes.is_first():
            cli.log_errors_only()
        train(config, local_path(_WORKDIR.value, "--workdir").absolute(), cli.show_progress())


if __name__ == "__main__":
    cli.run(main, keep_freed_memory=True)
