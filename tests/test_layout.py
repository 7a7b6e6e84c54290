"""The structure of the code base: allowed imports, and the existence of modules named in texts."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import bertjax
from tests.support.commands import ROOT

SOURCES = sorted((ROOT / "bertjax").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# The lazy public names, and the modules of users.
IMPORT_BY_NAME = (ROOT / "bertjax/__init__.py", ROOT / "bertjax/config/registry.py")
# Files with commands that users read or run.
TEXTS = [*SOURCES, *TESTS, *(path for suffix in ("md", "sh", "py", "toml") for path in ROOT.glob(f"*.{suffix}"))]
TEXTS += [path for folder in ("configs", "docs", "launch", "benchmarks") for path in (ROOT / folder).rglob("*.*")]


def imports(path: Path) -> set[str]:
    """The modules that a file imports, and `module.name` for each name that it imports from them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_a_package_imports_from_the_layers_below_its_own():
    """pyproject.toml defines the layers, exhaustively."""
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def in_a_module(name: str) -> bool:
    """Whether a dotted name is a module or package, or a name below a module."""
    prefixes = [name.rsplit(".", cut)[0] for cut in range(name.count("."))]
    return is_module(name) or any((ROOT / part.replace(".", "/")).with_suffix(".py").is_file() for part in prefixes)


def test_no_module_imports_the_package_itself_or_by_name():
    for path in SOURCES:
        names = imports(path)
        if path not in IMPORT_BY_NAME:
            assert not {"importlib.import_module", "__import__"} & names and "import_module(" not in path.read_text(), (
                path
            )
        # Only modules are imported from packages.
        imported = {name for name in names if is_module(name.rpartition(".")[0]) and name.startswith("bertjax")}
        packages = {name for name in imported if (ROOT / name.rpartition(".")[0].replace(".", "/")).is_dir()}
        assert all(is_module(name) for name in packages), (path, packages)


def test_the_root_holds_only_commands_and_shared_modules():
    assert len(list((ROOT / "bertjax").glob("*.py"))) <= 1 + 13


def test_no_test_imports_another():
    for path in TESTS:
        others = {name for name in imports(path) if re.search(r"(^|\.)(test_\w+|conftest)(\.|$)", name)}
        assert not others, path


def test_modules_named_in_texts_exist():
    missing = []
    for path in TEXTS:
        text = path.read_text() if path.suffix in (".py", ".md", ".sh", ".toml") else ""
        names = set(re.findall(r"-m\s+(bertjax(?:\.[a-z_]+)+)", text)) if path not in TESTS else set()
        names |= set(re.findall(r"from (bertjax(?:\.\w+)+) import", text))  # also in docs and docstrings
        for package, name in re.findall(r"from (bertjax(?:\.\w+)*) import ([a-z_]+)", text):
            names |= {f"{package}.{name}"} if (ROOT / package.replace(".", "/")).is_dir() else set()
        names |= {name for name in re.findall(r"`(bertjax\.[\w.]+)[`(]", text) if not in_a_module(name)}
        names |= {name[:-3].replace("/", ".") for name in re.findall(r"\bbertjax/[\w/]+\.py\b", text)}
        names -= {f"bertjax.{name}" for name in bertjax._MODULES}
        missing += [f"{path.relative_to(ROOT)}: {name}" for name in sorted(names) if not is_module(name)]
    assert not missing


def test_types_are_checked():
    """pyright passes, with few exceptions that give their rule and reason; `Any` is left at untyped libraries only."""
    result = subprocess.run(
        [Path(sys.executable).with_name("pyright"), "--pythonpath", sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    code = [line for path in SOURCES for line in path.read_text().splitlines()]
    ignored = [line for line in code if "pyright: ignore" in line or "type: ignore" in line]
    assert len(ignored) <= 20 and all(re.search(r"# pyright: ignore\[\w+\]  # \w+", line) for line in ignored), ignored
    assert sum(len(re.findall(r"\bAny\b", line)) for line in code) <= 60
