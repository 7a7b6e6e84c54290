"""How fast `prepare` is, what the word cache gives, and how much memory it takes.

    python benchmarks/prepare.py [--source=SPEC …] [--megabytes=60] [--no-memory]

Without --source the text is what this Python and its packages document: docstrings (gathering them takes two minutes),
real and varied English of a technical kind, without repetitions. A vocabulary is trained first, and timed; the other
runs load it. MB/s a core is text over CPU seconds of all processes; beside it, text over wall-clock seconds. The
reading of the sources, twice, counts everywhere. "Library alone" is the same program with the word cache off.

Memory is the resident set of all processes together, the highest of samples taken every 20 ms, at 50 and at 500 MB (and
every second while speed is measured, as looking takes time of its own). For that the text is written again and again,
with a number in each document and one word in ten altered.
"""

import argparse
import os
import random
import re
import resource
import shutil
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from bertjax.corpus import format
from bertjax.text import python_docs, sources

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_CACHE = (
    "from bertjax.text import word_cache; word_cache.word_rule = lambda content: None; "
    "from bertjax import cli, prepare; cli.run(prepare.main)"
)


def write_text(path: Path, specs: list[str], megabytes: float) -> float:
    """Writes documents as a text: source of about a size; gives the size in MB."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for source in sources.parse(specs) if specs else [None]:
            documents = source.documents() if source else installed_docstrings()
            for document in documents:
                text = re.sub(r"\n\s*\n", "\n", source.clean(document) if source else document).strip() + "\n\n"
                size += file.write(text)
                if size > megabytes * 1e6:
                    return path.stat().st_size / 1e6
    return path.stat().st_size / 1e6


def installed_docstrings():
    """Of the standard library, then of every module that is installed beside bertjax."""
    yield from python_docs.documents()
    for folder in site.getsitepackages():
        for path in sorted(Path(folder).rglob("*.py")):
            try:
                text = python_docs.docstrings(path)
            except RecursionError:
                continue  # a generated module, deeper than the parser
            if "\0" not in text:  # which prepare would take for binary data
                yield text


def write_varied(path: Path, text: str, megabytes: int) -> None:
    """The documents of a text, again and again, none twice the same."""
    documents = text.split("\n\n")
    words = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        size = number = 0
        while size < megabytes * 1e6:
            document = documents[number % len(documents)]
            if number >= len(documents):
                document = re.sub(r"\w+", lambda m: m[0][::-1] if words.random() < 0.1 else m[0], document)
            size += file.write(f"{number}\n{document}\n\n")
            number += 1


def run(arguments: list[str], word_cache: bool = True, look_every: float = 0.02) -> tuple[float, float, float]:
    """Runs prepare; gives wall-clock seconds, CPU seconds and the highest memory in MB, looked at every so often."""
    program = ["-m", "bertjax.prepare"] if word_cache else ["-c", WITHOUT_CACHE]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = psutil.Popen([sys.executable, *program, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process))
        time.sleep(look_every)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"prepare failed with exit code {process.returncode}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak / 1e6


def memory(process: psutil.Process) -> int:
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended between two looks
    return total


def measure_speed(text: Path, size: float, folder: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    common = [f"--source=text:{text}"]
    trained = [*common, f"--tokenizer={folder / 'new' / 'tokenizer'}"]
    table = Table(f"{size:.0f} MB of text", "processes", "MB/s a core", "MB/s", "memory MB")
    for name, arguments, processes, word_cache in (
        ("new:wordpiece:30522, training included", [*common, "--tokenizer=new:wordpiece:30522"], cores, True),
        ("word cache", trained, 1, True),
        ("word cache, all cores", trained, cores, True),
        ("library alone", trained, 1, False),
    ):
        output = folder / ("new" if "new" in name else "again")
        wall, cpu, peak = run(
            [*arguments, f"--output={output}", f"--processes={processes}"], word_cache, look_every=1.0
        )
        table.add_row(name, str(processes), f"{size / cpu:.1f}", f"{size / wall:.1f}", f"{peak:.0f}")
        if output.name == "again":
            check_equal(folder / "new", output)
            shutil.rmtree(output)
    Console(width=100).print(table)


def check_equal(one: Path, other: Path) -> None:
    """The word cache, and the number of processes, must not change a bit."""
    if format.Corpus.open(one).fingerprint != format.Corpus.open(other).fingerprint:
        raise SystemExit("the corpora differ")


def measure_memory(text: Path, folder: Path) -> None:
    content = text.read_text(encoding="utf-8")
    peaks = {}
    for megabytes in (50, 500):
        varied = folder / "varied.txt"
        write_varied(varied, content, megabytes)
        tokenizer = folder / "new" / "tokenizer"
        arguments = [f"--source=text:{varied}", f"--tokenizer={tokenizer}", f"--output={folder / 'memory'}"]
        _, _, peaks[megabytes] = run(arguments)
        shutil.rmtree(folder / "memory")
    table = Table("text", "memory MB", "share")
    for megabytes, peak in peaks.items():
        table.add_row(f"{megabytes} MB", f"{peak:.0f}", f"{peak / peaks[50]:.3f}")
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", default=[])
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--no-memory", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        text = folder / "text.txt"
        size = write_text(text, arguments.source, arguments.megabytes)
        measure_speed(text, size, folder)
        if not arguments.no_memory:
            measure_memory(text, folder)


if __name__ == "__main__":
    main()
