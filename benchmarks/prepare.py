"""Measures the speed of `prepare`, with and without the word cache, and its memory.

    python benchmarks/prepare.py [--source=SPEC …] [--megabytes=60] [--no-memory]

Without --source the text consists of the docstrings of this Python and its packages: varied technical English without
repetitions (collecting them takes two minutes). The first run trains a vocabulary, which the others load. MB/s per core
is text by CPU seconds of all processes, MB/s is text by wall-clock seconds; both include reading the sources twice.
"Library alone" is the same program without the word cache.

Memory is the resident set of all processes, sampled every 20 ms, for 50 and for 500 MB of text (every second during
measurements of speed, to reduce the overhead). The text is repeated to reach these sizes, with a number in each
document and one in ten words changed.
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
    """Writes documents of about this size for a text: source; returns the size in MB."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for source in sources.parse_sources(specs) if specs else [None]:
            documents = source.documents() if source else installed_docstrings()
            for document in documents:
                text = re.sub(r"\n\s*\n", "\n", source.clean(document) if source else document).strip() + "\n\n"
                size += file.write(text)
                if size > megabytes * 1e6:
                    return path.stat().st_size / 1e6
    return path.stat().st_size / 1e6


def installed_docstrings():
    """Yields the docstrings of the standard library, then of all installed modules."""
    yield from python_docs.documents()
    for folder in site.getsitepackages():
        for path in sorted(Path(folder).rglob("*.py")):
            try:
                text = python_docs.docstrings(path)
            except RecursionError:
                continue  # a generated module, nested too deeply for the parser
            if "\0" not in text:  # prepare treats it as binary data
                yield text


def write_varied(path: Path, text: str, megabytes: int) -> None:
    """Repeats the documents of a text with changes, so that no two are equal."""
    documents = text.split("\n\n")
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        size = number = 0
        while size < megabytes * 1e6:
            document = documents[number % len(documents)]
            if number >= len(documents):
                document = re.sub(r"\w+", lambda m: m[0][::-1] if rng.random() < 0.1 else m[0], document)
            size += file.write(f"{number}\n{document}\n\n")
            number += 1


def run(arguments: list[str], word_cache: bool = True, sampling_interval: float = 0.02) -> tuple[float, float, float]:
    """Runs prepare; returns wall-clock seconds, CPU seconds and peak memory in MB."""
    program = ["-m", "bertjax.prepare"] if word_cache else ["-c", WITHOUT_CACHE]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = psutil.Popen([sys.executable, *program, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process))
        time.sleep(sampling_interval)
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
        pass  # it has ended
    return total


def measure_speed(text: Path, size: float, folder: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    common = [f"--source=text:{text}"]
    trained = [*common, f"--tokenizer={folder / 'new' / 'tokenizer'}"]
    table = Table(f"{size:.0f} MB of text", "processes", "MB/s per core", "MB/s", "memory MB")
    for name, arguments, processes, word_cache in (
        ("new:wordpiece:30522, training included", [*common, "--tokenizer=new:wordpiece:30522"], cores, True),
        ("word cache", trained, 1, True),
        ("word cache, all cores", trained, cores, True),
        ("library alone", trained, 1, False),
    ):
        output = folder / ("new" if "new" in name else "again")
        wall, cpu, peak = run(
            [*arguments, f"--output={output}", f"--processes={processes}"], word_cache, sampling_interval=1.0
        )
        table.add_row(name, str(processes), f"{size / cpu:.1f}", f"{size / wall:.1f}", f"{peak:.0f}")
        if output.name == "again":
            check_equal(folder / "new", output)
            shutil.rmtree(output)
    Console(width=100).print(table)


def check_equal(corpus: Path, other: Path) -> None:
    """Checks that neither the word cache nor the number of processes changes the corpus."""
    if format.Corpus.open(corpus).fingerprint != format.Corpus.open(other).fingerprint:
        raise SystemExit(f"{other}: differs from {corpus}")


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
