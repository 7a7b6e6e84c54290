"""Named implementations that configs refer to: those of bertjax, and those that a user's module registers."""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from bertjax.errors import UserError

T = TypeVar("T")

_INTERACTIVE = "an interactive session"


@dataclasses.dataclass(frozen=True)
class Source:
    """The module that registers an extension."""

    name: str  # what `load_extension` takes: a module name or the path of a file
    file: str  # absolute path of its file; "" in an interactive session


class Registry(Generic[T]):
    """Implementations of one extension point by name.

    A module that is not part of bertjax, such as a config file, adds its own. `source` names that module, so that a
    checkpoint can record which module it needs.
    """

    def __init__(self, noun: str, builtin: Mapping[str, T]) -> None:
        """`noun` is how messages call an entry, e.g. "optimizer"."""
        self.noun, self._entries, self._builtin = noun, dict(builtin), tuple(builtin)
        self._sources: dict[str, Source] = {}

    def add(self, name: str, entry: T, source: Source) -> None:
        """Registers `entry` under `name`.

        A module that is executed again, as in a notebook, replaces its own entry.

        Raises:
          UserError: the name belongs to bertjax or to another module.
        """
        owner = "bertjax" if name in self._builtin else ""
        if name in self._sources and self._sources[name].file != source.file:
            owner = self._sources[name].name
        if owner:
            raise UserError(f"{source.name}: {self.noun} {name!r} is already registered by {owner}; rename it")
        self._entries[name], self._sources[name] = entry, source

    def get(self, name: str, where: str = "") -> T:
        """Returns the entry of a name; `where` locates the name in the message, e.g. "config.optimizer.name".

        Raises:
          UserError: the name is not registered; the message suggests the nearest name.
        """
        if name in self._entries:
            return self._entries[name]
        nearest = difflib.get_close_matches(name, self._entries, n=1, cutoff=0)
        raise UserError(
            f"{f'{where}: ' if where else ''}unknown {self.noun} {name!r}; did you mean {nearest[0]!r}? Registered: "
            f"{', '.join(self._entries)}. Add --import=MODULE for one of your own"
        )

    def require(self, name: str, source: str, where: str) -> None:
        """Checks that the entry a checkpoint was made with is registered.

        Args:
          name: the entry.
          source: the module that registered it, as recorded in the checkpoint; "" for those of bertjax.
          where: the checkpoint.

        Raises:
          UserError: the entry is not registered; the message names the module to import.
        """
        if name not in self._entries and source:
            remedy = f"pass extensions=[{source!r}] to load_model (--import={source})"
            if source == _INTERACTIVE:
                remedy = "put its definition into a .py file and add --import=FILE"
            raise UserError(f"{where}: needs the {self.noun} {name!r}, which {source} registered; {remedy}")
        self.get(name, where)

    def source(self, name: str) -> str:
        """Returns the module that registered a name, as `load_extension` takes it; "" for those of bertjax."""
        return self._sources[name].name if name in self._sources else ""

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """Returns all names with their entries."""
        return list(self._entries.items())

    def values(self) -> list[T]:
        """Returns all entries."""
        return list(self._entries.values())

    def builtin(self) -> list[T]:
        """Returns the entries of bertjax."""
        return [self._entries[name] for name in self._builtin]


def registering(registry: Registry[T], name: str) -> Callable[[T], T]:
    """Returns a decorator that registers under `name`, for the module two calls above.

    Raises:
      UserError: `name` is not a string, as where the parentheses of the decorator were forgotten.
    """
    source = calling_module(2)
    if not isinstance(name, str):
        example = getattr(name, "__name__", "my_name")
        raise UserError(f"the name of the {registry.noun} is missing; write the decorator as @bertjax.…({example!r})")

    def decorate(entry: T) -> T:
        registry.add(name, entry, source)
        return entry

    return decorate


def calling_module(depth: int) -> Source:
    """Returns the module `depth` calls above the caller.

    Config files and scripts have no name that imports them; their absolute path does.
    """
    variables = sys._getframe(depth + 1).f_globals
    name, file = variables.get("__name__", "__main__"), variables.get("__file__")
    if file is None:
        return Source(_INTERACTIVE if name == "__main__" else name, "")
    path = str(Path(file).resolve())
    return Source(name if _is_importable(name) else path, path)


def load_extension(source: str) -> ModuleType:
    """Imports a module by its dotted name, or by the path of its file, e.g. `examples/task_kind.py`.

    Raises:
      UserError: there is no such module, or it fails to import.
    """
    try:
        return execute_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except UserError:
        raise
    except Exception as error:  # whatever a user's module raises
        raise UserError(
            f"--import={source}: cannot be imported ({type(error).__name__}: {error}); give a module's name or the "
            "path of a .py file"
        ) from error


def execute_file(path: Path) -> ModuleType:
    """Executes a Python file as a module; its name is derived from the absolute path."""
    path = path.resolve()
    name = f"bertjax_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_importable(module: str) -> bool:
    """Whether Python finds a module by its name, rather than because a file was loaded under that name."""
    top = module.partition(".")[0]
    return top != "__main__" and importlib.machinery.PathFinder.find_spec(top) is not None
