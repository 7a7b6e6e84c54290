"""Counts lines of code, without blank lines, comments and docstrings.

python benchmarks/count_lines.py [FOLDER …]     (default: bertjax)
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(source: str) -> int:
    """Returns the number of code lines of a module."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for token in tokens if token.type not in _LAYOUT for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def main(folders: list[str]) -> None:
    """Prints the counts per package and in total."""
    counts = Counter()
    for folder in map(Path, folders or ["bertjax"]):
        for path in sorted(folder.rglob("*.py")):
            package = path.relative_to(folder).parts[0] if len(path.relative_to(folder).parts) > 1 else "."
            counts[f"{folder}/{package}"] += code_lines(path.read_text())
    for package, count in sorted(counts.items()):
        print(f"{count:7,} {package}")
    print(f"{counts.total():7,} total")


if __name__ == "__main__":
    main(sys.argv[1:])
