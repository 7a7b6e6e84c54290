"""bertjax as a library: inside another absl app, and quiet in a notebook."""

import os
import re
import subprocess
import sys

from tests.support.commands import ROOT, TINY_MODEL

APP = """
import logging, sys, warnings
from absl import app, flags

flags.DEFINE_string("checkpoint", None, "A flag of the app.")
flags.DEFINE_string("config", "mine", "Another one.")
flags.DEFINE_bool("debug", False, "And one more.")

def main(argv):
    import bertjax
    level, filters = logging.getLogger().level, list(warnings.filters)
    model = bertjax.load_model(flags.FLAGS.checkpoint)
    assert model.fill_mask("the [MASK] is")["masks"]
    for name in bertjax._MODULES:
        getattr(bertjax, name)
    assert flags.FLAGS.config == "mine"
    assert logging.getLogger().level == level
    assert [f for f in warnings.filters if f not in filters and "bertjax" in str(f)] == []
    assert logging.getLogger("bertjax").handlers == [] and logging.getLogger("bertjax").level == logging.NOTSET
    defined = [module for module in flags.FLAGS.flags_by_module_dict() if "bertjax" in module]
    assert defined == [], defined

app.run(main)
"""

NOTEBOOK = """
import logging, sys
import bertjax, matplotlib
matplotlib.use("svg")
logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stdout)
logging.getLogger("bertjax").setLevel(logging.INFO)
config = bertjax.load_config("configs/tiny.py", {SETTINGS!r}, corpus={CORPUS!r})
bertjax.run_pretraining(config, {WORKDIR!r})
assert matplotlib.get_backend() == "svg" and "tensorflow" not in sys.modules
"""


def _run(code, *arguments):
    """In a new process with a user's environment: without the variables that the tests set."""
    hidden = ("JAX_PLATFORMS", "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "GRPC_VERBOSITY")
    environment = {name: value for name, value in os.environ.items() if name not in hidden and name[:4] != "TPU_"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )


def test_inside_another_absl_app(trained):
    """It defines no flag, leaves logging and warnings alone, and prints nothing."""
    result = _run(APP, f"--checkpoint={trained}")
    # An app shows what libraries log to absl; bertjax does not use it.
    lines = [line for line in result.stderr.splitlines() if not re.match(r"[IW]\d{4} ", line)]
    assert (result.returncode, result.stdout, lines) == (0, "", [])
    assert "bertjax" not in result.stderr


def test_a_notebook_shows_the_log_of_bertjax_and_nothing_else(tiny_config, tmp_path):
    """Neither libtpu nor another library prints a line; TensorFlow, which takes seconds to import, is not loaded."""
    settings = TINY_MODEL | {"phases": ({"steps": 4, "length": 32, "batch": 8},), "eval_every": 0, "log_every": 1}
    code = NOTEBOOK.format(SETTINGS=settings, CORPUS=tiny_config.corpus, WORKDIR=str(tmp_path / "run"))
    result = _run(code)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(line.startswith("bertjax.") for line in result.stdout.splitlines()), result.stdout
    assert "step 4/4: loss" in result.stdout


PROGRAM = """
import logging, sys
import bertjax
assert logging.getLogger().handlers == []
model = bertjax.load_model(sys.argv[1])
model.embed("a list")
bertjax.export_model(model, sys.argv[2] + "/export", "bertjax")
assert logging.getLogger().handlers == [], logging.getLogger().handlers
config = bertjax.load_config("configs/tiny.py", {SETTINGS!r}, corpus={CORPUS!r})
bertjax.run_pretraining(config, sys.argv[2] + "/run")
assert logging.getLogger().handlers == [], logging.getLogger().handlers
logging.basicConfig(format="mine: %(message)s", stream=sys.stdout)
logging.warning("seen")
"""


def test_the_root_logger_of_a_plain_program_stays_bare(trained, tiny_config, tmp_path):
    """absl, through which Orbax logs, would give it a handler, and the program's own basicConfig would do nothing."""
    settings = TINY_MODEL | {"phases": ({"steps": 4, "length": 32, "batch": 8},), "eval_every": 0, "log_every": 1}
    code = PROGRAM.format(SETTINGS=settings, CORPUS=tiny_config.corpus)
    result = _run(code, str(trained), str(tmp_path))
    lines = [line for line in result.stderr.splitlines() if not line.startswith("WARNING:absl:")]  # Orbax's
    assert (result.returncode, result.stdout, lines) == (0, "mine: seen\n", [])
