"""Pre-trains an encoder.

python -m bertjax.train --config=configs/base.py --workdir=runs/base --config.corpus=DIR [--config.KEY=VALUE …]

The workdir gets config.json, metrics.jsonl, perf.jsonl, TensorBoard events, checkpoints/, tokenizer/ and
curves.png. Running the same command again continues the run. Ctrl-C and SIGTERM save a checkpoint and leave.
"""

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

_CONFIG = cli.define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run; it is made, or continued.")
_START_TIMEOUT = flags.DEFINE_integer("start_timeout", 300, "Seconds for all processes of a run to come together.")
_LOST_TIMEOUT = flags.DEFINE_integer("lost_timeout", 100, "Seconds of silence after which a process counts as lost.")


def main(args: list[str]) -> None:
    """Reads the flags and trains."""
    from bertjax.storage.files import local_path

    cli.keep_memory()
    if args:
        raise UserError(f"unexpected argument {args[0]}; settings are given as --config.KEY=VALUE")
    values = cli.config_value(_CONFIG)
    if values is None or _WORKDIR.value is None:
        raise UserError("--config=FILE and --workdir=DIR are needed, e.g. --config=configs/tiny.py --workdir=runs/tiny")
    from bertjax.config.parse import from_config_dict

    config = from_config_dict(values)
    if not config.corpus:
        raise UserError(
            "config.corpus is not set; make a corpus with python -m bertjax.prepare, give --config.corpus=DIR"
        )
    from bertjax.parallel import processes
    from bertjax.pretraining.run import train

    with processes.joined(_START_TIMEOUT.value, _LOST_TIMEOUT.value, cli.debug()):
        train(config, local_path(_WORKDIR.value, "--workdir").absolute(), cli.show_progress())


if __name__ == "__main__":
    cli.run(main)
