"""Reference pages that are generated from the code when the site is built.

A page contains fenced blocks such as

    ```{generate} config bertjax.config.pretraining.Config
    ```

that are replaced by Markdown before the page is parsed. The first word names a function of `GENERATORS`; the rest of
the line, and the lines of the block, are its argument. Nothing that is generated is committed.
"""

import ast
import dataclasses
import html
import importlib
import inspect
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("prepare", "train", "evaluate", "predict", "finetune", "convert", "adapt", "plan")
_BLOCK = re.compile(r"^```\{generate\} *(\w+) *(.*)\n((?:(?!```).*\n)*)```$", re.MULTILINE)
_REPEATED = ";\n    repeat this option"  # what absl adds to the help of a list
_RESUME = {"FIXED": "fixed", "FREE": "may change", "PAST": "future steps only"}


def setup(app: Any) -> dict[str, bool]:
    """Registers the replacement of blocks."""
    app.connect("source-read", _replace)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _replace(app: Any, docname: str, source: list[str]) -> None:
    source[0] = _BLOCK.sub(lambda match: GENERATORS[match[1]]((match[2] + "\n" + match[3]).strip()), source[0])


def _outdated(app: Any, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Generated pages depend on code, so that they are always read again."""
    return [name for name in env.found_docs if _BLOCK.search(Path(env.doc2path(name)).read_text())]


# -- settings


def config(name: str) -> str:
    """The keys of a config dataclass, a table for each of its sections."""
    module, _, cls = name.rpartition(".")
    root = getattr(importlib.import_module(module), cls)
    prefix = {"Config": "train", "FinetuneConfig": "finetune"}.get(cls, cls.lower())
    return "\n\n".join(_section(root, "", prefix, "FIXED"))


def _section(cls: type, path: str, prefix: str, resume: str) -> Iterator[str]:
    from bertjax.config.fields import setting_of

    rows, sections = [], []
    for field in dataclasses.fields(cls):
        described = setting_of(field)
        rule = described.resume.name if resume == "FIXED" else resume
        section = _dataclass_of(field.type)
        key, label = path + field.name, f"{prefix}-{path}{field.name}".replace(".", "-").replace("[]", "")
        default = f"[see below](#{label}-keys)" if section else f"`{_default(field)}`".replace("`required`", "required")
        if section:
            sections.append((section, key + ("[]" if get_origin(field.type) else ""), label, rule))
        allowed, meaning = _allowed(described.allowed), _plain(described.meaning)
        rows.append([f"[`{key}`]{{#{label}}}", _type(field.type), default, allowed, meaning, _RESUME[rule]])
    yield _table(["key", "type", "default", "allowed", "meaning", "on resume"], rows)
    for section, key, label, rule in sections:
        yield f"({label}-keys)=\n## `{key}`"
        yield _paragraphs(section.__doc__)
        yield from _section(section, f"{key}.", prefix, rule)


def _dataclass_of(kind: Any) -> type | None:
    """The dataclass of a section, or of the items of a tuple of sections."""
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    return kind if dataclasses.is_dataclass(kind) else None


def _type(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"tuple of {getattr(get_args(kind)[0], '__name__', 'values')}"
    return "section" if dataclasses.is_dataclass(kind) else kind.__name__


def _default(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    return repr(field.default)


def _allowed(allowed: Any) -> str:
    from bertjax.config.fields import LocalPath

    if allowed is None:
        return ""
    if isinstance(allowed, tuple):
        return ", ".join(f"`{name or repr(name)}`" for name in allowed)
    return "a local path" if isinstance(allowed, LocalPath) else str(allowed)


# -- commands


def commands(_: str) -> str:
    """Every command: its module's docstring and the flags that it defines."""
    return "\n\n".join(part for name in COMMANDS for part in _command(name))


def _command(name: str) -> Iterator[str]:
    from absl import flags

    from bertjax import cli  # noqa: F401 (defines the flags that all commands share)

    shared = set(flags.FLAGS)
    module = importlib.import_module(f"bertjax.{name}")
    own = [flag for flag in flags.FLAGS if flag not in shared]
    summary, _, rest = module.__doc__.partition("\n")
    yield f"## {name}"
    yield html.escape(summary, quote=False)
    yield f"```text\n{rest.strip()}\n```"
    rows = []
    for flag in map(flags.FLAGS.__getitem__, own):
        kind = (flag.flag_type() or "string").replace("multi string", "string, repeatable")
        shown = f"`--[no]{flag.name}`" if kind == "bool" else f"`--{flag.name}`"
        if values := getattr(flag, "enum_values", None) or getattr(flag.parser, "enum_values", None):
            kind = ", ".join(f"`{value}`" for value in values)
        bounds = [
            f"{sign} {getattr(flag.parser, bound, None)}"
            for sign, bound in (("≥", "lower_bound"), ("≤", "upper_bound"))
        ]
        kind = " ".join([kind.replace("config object", "file"), *(bound for bound in bounds if "None" not in bound)])
        default = "" if flag.default in (None, "", []) else f"`{flag.default}`"
        rows.append([f"[{shown}]{{#{name}-{flag.name}}}", kind, default, _plain(flag.help.split(_REPEATED)[0])])
    yield _table(["flag", "type", "default", "meaning"], rows)
    flags.FLAGS.remove_flag_values(own)  # commands share names of flags, as each runs in a process of its own


# -- shipped configs and kinds of tasks


def configs(_: str) -> str:
    """Every file of configs/ with the first line of its docstring."""
    rows = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        summary = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
        command = "finetune" if "FinetuneConfig" in path.read_text() else "train"
        rows.append([f"`configs/{path.name}`", f"[{command}](commands.md#{command})", summary])
    return _table(["file", "command", "recipe"], rows)


def kinds(_: str) -> str:
    """Every kind of task, as the catalog has it."""
    from bertjax.tasks.kinds.catalog import KINDS

    rows = []
    for kind in KINDS.values():
        table = f"`table/{kind.name}`" if kind.has_table_task else ""
        mode, metric = f"`{kind.predict_mode}`", kind.default_metric or "the task's"
        rows.append([f"`{kind.name}`", _first_sentence(type(kind).__doc__).split(";")[0], table, mode, metric])
    return _table(["task kind", "prediction", "your own data", "mode of predict", "metric on dev"], rows)


def tasks(_: str) -> str:
    """The names of all tasks."""
    from bertjax.tasks import registry

    return ", ".join(f"`{name}`" for name in registry.names()) + "."


def equivalents(project: str) -> str:
    """Commands and settings of another project, and their equivalents."""
    from bertjax.config import equivalents

    parts = []
    for title, table in (("Commands", equivalents.COMMANDS), ("Settings", equivalents.SETTINGS)):
        chosen = [one for one in table if project in one.projects]
        cells = [
            [", ".join(f"`{name}`" for name in one.theirs), *map(_code, (one.pretraining, one.finetuning)), one.note]
            for one in chosen
        ]
        if cells:
            parts += [f"## {title}", _table([project, "in pre-training", "in fine-tuning", "note"], cells)]
    return "\n\n".join(parts)


def _code(text: str) -> str:
    """Text in which keys, flags and commands are marked as code; backticks mark code already."""
    if "`" in text:
        return text
    words = r"python -m bertjax\.\w+(?: --\S+| [a-z][a-z-]+$)*|config\.[\w.\[\]]+(?:=\w+)?|bertjax\.\w+\(\w*\)|--\w+"
    return re.sub(words, lambda match: f"`{match[0]}`", text)


# -- the Python interface


def api(listed: str) -> str:
    """The functions and classes of `module: name, name` lines, by autodoc."""
    parts = []
    for line in listed.splitlines():
        module, _, names = line.partition(":")
        directives = []
        for name in map(str.strip, names.split(",")):
            is_class = inspect.isclass(getattr(importlib.import_module(module), name))
            directives.append(f".. auto{'class' if is_class else 'function'}:: {module}.{name}")
            directives += ["   :members:"] * is_class + [""]
        parts += [f"## `{module}`", "\n".join(["```{eval-rst}", *directives, "```"])]
    return "\n\n".join(parts)


# -- the structure of the code


def layers(_: str) -> str:
    """The layers of the import contract, each with its packages and their docstrings."""
    rows = []
    for number, packages in enumerate(_contract(), 1):
        rows += [[str(number), f"`{package}`", _about(package)] for package in packages]
    return _table(["layer", "module or package", "contents"], rows)


def imports(_: str) -> str:
    """A matrix of all imports between packages, drawn from the source."""
    names = [name for layer in _contract() for name in layer]
    counts = _import_counts(names)
    cell, left, top = 15, 120, 96
    size = len(names) * cell
    parts = [
        f'<svg class="imports" viewBox="0 0 {left + size + 48} {top + size + 4}" role="img" '
        'font-family="monospace" font-size="10" fill="currentColor">',
        "<title>Imports between the packages of bertjax</title>",
    ]
    begin = 0
    for layer in _contract():  # packages of one layer do not import each other
        width = len(layer) * cell
        x, y = left + begin * cell, top + begin * cell
        parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{width}" fill-opacity="0.12"/>')
        begin += len(layer)
    for number, name in enumerate(names):
        middle = number * cell + cell * 0.7
        parts.append(f'<text x="{left - 6}" y="{top + middle:.1f}" text-anchor="end">{name}</text>')
        x, y = left + middle, top - 5
        parts.append(f'<text x="{x:.1f}" y="{y}" transform="rotate(-60 {x:.1f} {y})">{name}</text>')
    for (importer, imported), count in sorted(counts.items()):
        x = left + names.index(imported) * cell + cell / 2
        y = top + names.index(importer) * cell + cell / 2
        radius = min(cell / 2 - 1, 1.5 + count**0.5)
        title = f"<title>{importer} imports {imported} in {count} module{'s' * (count > 1)}</title>"
        parts.append(f'<circle cx="{x}" cy="{y}" r="{radius:.1f}">{title}</circle>')
    parts += [
        f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="currentColor"/>',
        "</svg>",
    ]
    return "\n".join(["```{raw} html", *parts, "```"])


def _contract() -> list[list[str]]:
    """The layers that tests/test_layout.py enforces, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [layer.split(" | ") for layer in settings["tool"]["importlinter"]["contracts"][0]["layers"]]


def _import_counts(names: Sequence[str]) -> Counter[tuple[str, str]]:
    """How many modules of a package import another package."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in (ROOT / "bertjax").rglob("*.py"):
        importer = path.relative_to(ROOT / "bertjax").parts[0].removesuffix(".py")
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                full = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                full = [alias.name for alias in node.names]
            else:
                continue
            imported |= {name.split(".")[1] for name in full if name.startswith("bertjax.")}
        counts.update((importer, name) for name in imported - {importer} if importer in names and name in names)
    return counts


def _about(package: str) -> str:
    """The first sentence of a module's or package's docstring."""
    path = ROOT / "bertjax" / package
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return _first_sentence(ast.get_docstring(ast.parse(path.read_text())))


# -- Markdown


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def _plain(text: str) -> str:
    """Text whose characters mean themselves in Markdown, but for code in backticks."""
    parts = text.split("`")
    parts[::2] = (re.sub(r"([*<$])", r"\\\1", part) for part in parts[::2])
    return "`".join(parts)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", r"\|") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


_FUNCTIONS = (config, commands, configs, kinds, tasks, equivalents, api, layers, imports)
GENERATORS = {function.__name__: function for function in _FUNCTIONS}
