"""The embedded corpus: the documentation that every Python carries.

Documents are the topics of `help()` (the language reference) and, for each module of the standard library that has
some, all its docstrings. Nothing is imported or run: sources are parsed. So the corpus is the same on every machine
with the same Python.
"""

import ast
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from bertjax.errors import UserError

# A few words of documentation are no document.
MIN_CHARACTERS = 500

_TOPICS = "pydoc_data/topics.py"
# Not documentation of the library: tests, other people's packages, and generated tables.
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
    """Topics, then modules, both in alphabetical order.

    Raises:
      UserError: this Python was installed without the sources of its library.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    topics = library / _TOPICS
    if not topics.is_file():
        raise UserError(
            f"pydoc: this Python has no {topics}; install its full standard library, or give another source"
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
    """The values of the dictionary literal that the module assigns to `topics`."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Assign):
            topics = ast.literal_eval(statement.value)
            for name in sorted(topics):
                if len(topics[name]) >= MIN_CHARACTERS:
                    yield inspect.cleandoc(topics[name])


def docstrings(path: Path) -> str:
    """All docstrings of a module in the order of its source, with a blank line between them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ""  # samples of broken code that test other modules
    return "\n\n".join(filter(None, map(ast.get_docstring, _documented(tree))))


def _documented(node: ast.AST) -> Iterator[ast.AST]:
    """What can have a docstring, in the order of the source; `ast.walk` would visit every expression too."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node
    for block in ("body", "handlers", "orelse", "finalbody"):
        statements = getattr(node, block, ())
        if isinstance(statements, list):  # a lambda's body is one expression
            for statement in statements:
                yield from _documented(statement)
