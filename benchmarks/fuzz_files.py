"""Damaged files, read as bertjax reads them: what is refused, what comes back equal, and what else happens.

    python benchmarks/fuzz_files.py [--inputs=100_000] [--seed=0] [--kinds=corpus,metrics] [--output=FILE.json]
    python benchmarks/fuzz_files.py --kinds="shard record" --seed=3 --only=1234

Every kind of file is damaged in bits, bytes, lines and values (`tests/support/damage.py`) and read in a process of its
own, which takes at most 4 GiB more of address space than it starts with. Slow kinds get a share of the inputs. The bar:
a sealed file is refused or read as equal ("different" is 0), any other is refused or read ("failed" is 0), and a
refusal is one line. `--only` shows one input and what comes of it. Exit code 1 where the bar is missed.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests.support.trust import MEMORY  # noqa: E402 - once it can be found

_ADDRESS_SPACE = 4 * 2**30
_SHOWN = 5  # failures of each sort


def main() -> None:
    """Prints the table, kind by kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="Damaged files per kind.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the damage.")
    parser.add_argument("--kinds", default="", help="Beginnings of names of kinds, separated by commas; empty: all.")
    parser.add_argument("--output", type=Path, help="File for the figures, as JSON.")
    parser.add_argument("--only", type=int, help="Show one input.")
    parser.add_argument("--in-kind", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_kind:
        return print(json.dumps(measured(arguments.in_kind, arguments.inputs, arguments.seed)))
    from tests.support.trusted_files import kinds

    beginnings = tuple(arguments.kinds.split(","))
    names = [kind.name for kind in kinds()]
    names = [arguments.kinds] if arguments.kinds in names else [name for name in names if name.startswith(beginnings)]
    if arguments.only is not None:
        return show(names[0], arguments.seed, arguments.only)
    print("| kind | inputs | equal | different | accepted | refused | failed | slowest ms | memory MB | s |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = [row(name, arguments) for name in names]
    if arguments.output:
        arguments.output.write_text(json.dumps({"seed": arguments.seed, "kinds": rows}, indent=1) + "\n")
    if any(found["failures"] for found in rows):
        sys.exit(1)


def row(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures a kind in a process of its own and prints its row, and what failed."""
    flags = [f"--in-kind={name}", f"--inputs={arguments.inputs}", f"--seed={arguments.seed}"]
    with tempfile.NamedTemporaryFile("r") as current:
        command = [sys.executable, __file__, *flags]
        environment = os.environ | {"FUZZ_CURRENT": current.name}
        begin = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        seconds = time.perf_counter() - begin
        if result.returncode:
            last = (result.stderr.strip().splitlines() or [""])[-1]
            failure = f"the process ended with {result.returncode}: {last[:200]}"
            found = {"kind": name, "failures": {failure: [int(current.read() or -1)]}}
        else:
            found = json.loads(result.stdout.splitlines()[-1])
    found["seconds"] = round(seconds, 1)
    keys = ("inputs", "equal", "different", "accepted", "refused", "failed", "slowest_ms", "memory_mb", "seconds")
    print(f"| {name} | " + " | ".join(f"{found.get(key, '?'):,}" if key in found else "?" for key in keys) + " |")
    for failure, numbers in found["failures"].items():
        print(f"    {len(numbers)} × {failure}; --only={' or '.join(map(str, numbers[:_SHOWN]))}")
    sys.stdout.flush()
    return found


def measured(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """The figures of one kind."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        trial = opened(name, Path(folder), seed)
        limit()
        current = os.open(os.environ["FUZZ_CURRENT"], os.O_WRONLY) if "FUZZ_CURRENT" in os.environ else None

        def before(number: int) -> None:
            if current is not None:
                os.pwrite(current, f"{number:<12}".encode(), 0)

        report = trial.run(range(max(1, inputs // trial.kind.share)), before)
    counted = {key: report.outcomes[key] for key in ("equal", "different", "accepted", "refused", "failed")}
    failures = {failure: numbers[:100] for failure, numbers in report.failures.items()}
    return {
        "kind": name,
        "trust": trial.kind.trust,
        "inputs": report.inputs,
        **counted,
        "slowest_ms": round(1e3 * report.slowest[0], 1),
        "slowest_input": report.slowest[1],
        "memory_mb": round(report.memory),
        "failures": failures,
    }


def show(name: str, seed: int, number: int) -> None:
    """Prints one damaged file and what comes of it."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        trial = opened(name, Path(folder), seed)
        limit()
        file, content = trial.damaged(number)
        print(f"{file}, {len(content):,} bytes, {len(trial.files[file]):,} before: {content[:3000]!r}")
        begin = time.perf_counter()
        print(*trial.outcome(number), f"({1e3 * (time.perf_counter() - begin):.1f} ms)")
        (trial.folder / file).write_bytes(content)
        try:
            print(trial.kind.read(trial.folder))
        except BaseException:  # whatever it is, it is shown
            print(traceback.format_exc()[-3000:])


def opened(name: str, folder: Path, seed: int) -> Any:
    """The trial of a kind, with its whole files in a folder."""
    from tests.support.trust import Trial
    from tests.support.trusted_files import kinds

    kind = next(kind for kind in kinds() if kind.name == name)
    return Trial(dataclasses.replace(kind), folder / "files", seed)


def limit() -> None:
    """Bounds the address space of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    main()
