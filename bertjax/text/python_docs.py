"""The built-in corpus: the documentation bundled with Python.

Its documents are the topics of `help()` (the language reference) and the docstrings of each documented module of the
standard library. Sources are parsed, never imported or run, so the corpus is the same on every machine with the same
Python.
"""

import ast
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from bertjax.errors import UserError

# Shorter texts are dropped.
MIN_CHARACTERS = 500

_TOPICS = "pydoc_data/topics.py"
# Tests, third-party packages and generated tables.
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "lib-dynload",
}


def documents() -> Iterator[str]:
    """Yields the topics, then the modules, both in alphabetical order.

    Raises:
      UserError: this Python was installed without the sources of its standard library.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    topics = library / _TOPICS
    if not topics.is_file():
        raise UserError(
            f"pydoc: {topics} does not exist; install Python's full standard library, or use another source"
        )
    yield from _topics(topics)
    for path in sorted(library.rglob("*.py"), key=lambda path: path.relative_to(library).as_posix()):
        parts = path.relative_to(library).parts
        if path == topics or not _SKIPPED_FOLDERS.isdisjoint(parts) or parts[0].startswith("config-"):
            continue
        text = docstrings(path)
        if len(text) >= MIN_CHARACTERS:
            yield text


def _topics(path: Path) -> Iterator[str]:
    """Yields the values of the dictionary literal that the module assigns to `topics`."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Assign):
            topics = ast.literal_eval(statement.value)
            for name in sorted(topics):
                if len(topics[name]) >= MIN_CHARACTERS:
                    yield inspect.cleandoc(topics[name])


def docstrings(path: Path) -> str:
    """Returns all docstrings of a module in source order, separated by blank lines."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ""  # deliberately broken test samples
    return "\n\n".join(filter(None, map(ast.get_docstring, _documented(tree))))


def _documented(node: ast.AST) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yields the nodes that can have a docstring, in source order; `ast.walk` would visit every expression too."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    for block in ("body", "handlers", "orelse", "finalbody"):
        statements = getattr(node, block, ())
        if isinstance(statements, list):  # the body of a lambda is a single expression
            for statement in statements:
                yield from _documented(statement)
