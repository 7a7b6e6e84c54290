"""Reads damaged files with bertjax's readers, and counts refusals, equal values and failures.

    python benchmarks/fuzz_files.py [--inputs=100_000] [--seed=0] [--kinds=corpus,metrics] [--output=FILE.json]
    python benchmarks/fuzz_files.py --kinds="shard record" --seed=3 --only=1234

Damages bits, bytes, lines and values of every kind of file (`tests/support/damage.py`), and reads them in one process
per kind, limited to 4 GiB of additional address space. Slow kinds get a share of the inputs. Requirements: a sealed
file is refused or read as equal ("different" is 0), any other file is refused or read ("failed" is 0), and a refusal is
one line. `--only` shows one input and its outcome. Exit code 1 if a requirement is missed.
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

from tests.support.trust import MEMORY  # noqa: E402 - needs the path above

_ADDRESS_SPACE = 4 * 2**30
_SHOWN = 5  # inputs per failure


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="Damaged files per kind.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the damage.")
    parser.add_argument("--kinds", default="", help="Prefixes of names of kinds, separated by commas; empty: all.")
    parser.add_argument("--output", type=Path, help="JSON file for the results.")
    parser.add_argument("--only", type=int, help="Number of a single input to show.")
    parser.add_argument("--in-kind", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_kind:
        return print(json.dumps(measure(arguments.in_kind, arguments.inputs, arguments.seed)))
    from tests.support.trusted_files import kinds

    prefixes = tuple(arguments.kinds.split(","))
    names = [kind.name for kind in kinds()]
    names = [arguments.kinds] if arguments.kinds in names else [name for name in names if name.startswith(prefixes)]
    if arguments.only is not None:
        return show(names[0], arguments.seed, arguments.only)
    print("| kind | inputs | equal | different | accepted | refused | failed | slowest ms | memory MB | s |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = [measure_in_process(name, arguments) for name in names]
    if arguments.output:
        arguments.output.write_text(json.dumps({"seed": arguments.seed, "kinds": rows}, indent=1) + "\n")
    if any(result["failures"] for result in rows):
        sys.exit(1)


def measure_in_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures a kind in a separate process, and prints its line of the table and its failures."""
    flags = [f"--in-kind={name}", f"--inputs={arguments.inputs}", f"--seed={arguments.seed}"]
    with tempfile.NamedTemporaryFile("r") as current:
        command = [sys.executable, __file__, *flags]
        environment = os.environ | {"FUZZ_CURRENT": current.name}
        begin = time.perf_counter()
        process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        seconds = time.perf_counter() - begin
        if process.returncode:
            last = (process.stderr.strip().splitlines() or [""])[-1]
            failure = f"exit code {process.returncode}: {last[:200]}"
            result = {"kind": name, "failures": {failure: [int(current.read() or -1)]}}
        else:
            result = json.loads(process.stdout.splitlines()[-1])
    result["seconds"] = round(seconds, 1)
    keys = ("inputs", "equal", "different", "accepted", "refused", "failed", "slowest_ms", "memory_mb", "seconds")
    print(f"| {name} | " + " | ".join(f"{result.get(key, '?'):,}" if key in result else "?" for key in keys) + " |")
    for failure, numbers in result["failures"].items():
        print(f"    {len(numbers)} × {failure}; --only={' or '.join(map(str, numbers[:_SHOWN]))}")
    sys.stdout.flush()
    return result


def measure(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """Measures one kind."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        trial = make_trial(name, Path(folder), seed)
        limit_memory()
        current = os.open(os.environ["FUZZ_CURRENT"], os.O_WRONLY) if "FUZZ_CURRENT" in os.environ else None

        def before(number: int) -> None:
            if current is not None:
                os.pwrite(current, f"{number:<12}".encode(), 0)

        report = trial.run(range(max(1, inputs // trial.kind.share)), before)
    counts = {key: report.outcomes[key] for key in ("equal", "different", "accepted", "refused", "failed")}
    failures = {failure: numbers[:100] for failure, numbers in report.failures.items()}
    return {
        "kind": name,
        "trust": trial.kind.trust,
        "inputs": report.inputs,
        **counts,
        "slowest_ms": round(1e3 * report.slowest[0], 1),
        "slowest_input": report.slowest[1],
        "memory_mb": round(report.memory),
        "failures": failures,
    }


def show(name: str, seed: int, number: int) -> None:
    """Prints one damaged file and its outcome."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        trial = make_trial(name, Path(folder), seed)
        limit_memory()
        file, content = trial.damaged(number)
        print(f"{file}, {len(content):,} bytes, {len(trial.files[file]):,} before: {content[:3000]!r}")
        begin = time.perf_counter()
        print(*trial.outcome(number), f"({1e3 * (time.perf_counter() - begin):.1f} ms)")
        (trial.folder / file).write_bytes(content)
        try:
            print(trial.kind.read(trial.folder))
        except BaseException:  # shown, whatever it is
            print(traceback.format_exc()[-3000:])


def make_trial(name: str, folder: Path, seed: int) -> Any:
    """The trial of a kind, with its undamaged files in a folder."""
    from tests.support.trust import Trial
    from tests.support.trusted_files import kinds

    kind = next(kind for kind in kinds() if kind.name == name)
    return Trial(dataclasses.replace(kind), folder / "files", seed)


def limit_memory() -> None:
    """Limits the address space of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    main()
