"""`import bertjax` is light, its names are documented, and their examples run."""

import doctest
import pydoc
import re
import subprocess
import sys

import pytest

import bertjax
from tests.support.commands import ROOT, TINY_MODEL

SCREEN = 60  # lines
# Settings that shrink the runs of examples; they are added to every config that an example loads.
SHRUNK = TINY_MODEL | {"phases": ({"steps": 4, "length": 32, "batch": 32},), "eval_every": 0, "log_every": 1}
NAMES = sorted(set(bertjax._MODULES) - {"UserError", "Model"})


def test_importing_loads_nothing_heavy():
    """Neither by `import bertjax` nor by completion of its names."""
    code = "import bertjax, sys; dir(bertjax); print(sorted({'jax', 'tensorflow', 'numpy', 'absl'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout == "[]\n"


def test_help_fits_on_a_screen_and_lists_every_name():
    text = pydoc.plain(pydoc.render_doc(bertjax))
    assert len(text.splitlines()) <= SCREEN, text
    for name in NAMES:
        assert name in bertjax.__doc__


def test_type_checkers_know_the_lazy_names():
    source = (ROOT / "bertjax/__init__.py").read_text()
    assert re.findall(r"    from ([\w.]+) import (\w+) as \2", source) == [
        (module, name) for module, name in sorted((module, name) for name, module in bertjax._MODULES.items())
    ]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = bertjax.load_modle


@pytest.mark.parametrize("name", [*NAMES, *(f"Model.{method}" for method in vars(bertjax.Model) if method[0] != "_")])
def test_examples_of_docstrings_run(name, home, monkeypatch, tmp_path):
    """Every function of the public API has an example. Its output is not compared: the models are tiny and random."""
    monkeypatch.chdir(home)
    subject = bertjax
    for part in name.split("."):
        subject = getattr(subject, part)
    examples = doctest.DocTestParser().get_examples(subject.__doc__ or "")
    if isinstance(subject, property) or name == "Model.export":
        return
    assert examples, f"{name} has no example"
    source = "".join(example.source for example in examples)
    for old in ("exports/mail", 'iter_pretraining(config, "runs/books"', 'run_pretraining(config, "runs/books"'):
        source = source.replace(
            old, old.replace("exports/mail", str(tmp_path / "export")).replace("runs/", f"{tmp_path}/")
        )
    source = source.replace('run_finetuning(config, "runs/mail"', f'run_finetuning(config, "{tmp_path}/mail"')
    exec(compile(source, name, "exec"), {"bertjax": _Shrunk(), "__name__": "__main__"})


class _Shrunk:
    """The package, with every loaded config shrunk to a run of seconds."""

    def __getattr__(self, name):
        return getattr(bertjax, name)

    def load_config(self, path, changes=None, **settings):
        small = {"length": 32, "epochs": (1,)} if "classify" in path else SHRUNK
        return bertjax.load_config(path, {**small, **(changes or {})}, **settings)
