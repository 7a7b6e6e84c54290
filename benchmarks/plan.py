"""Plans BERT-Large on TPU slices with `bertjax.plan`, and measures the time of the command; needs no TPU.

python benchmarks/plan.py [--only=v5e:16x16]

Runs one process per case, in sequence. Memory is in GiB per chip.
"""

import argparse
import json
import os
import subprocess
import sys
import time

SLICES = ("v5e:4x4", "v5e:16x16", "v4:4x4x8", "v5p:4x4x4", "v6e:16x16")
ONE_CHIP = ('--config.phases=({"steps":1,"length":128,"batch":128},)',)
LARGE_BATCH = ("--config.mesh.fsdp=8", "--config.layout.accumulation=8")
CASES = [("large", name, ()) for name in SLICES]
CASES += [("large", "v5e:1x1", ONE_CHIP), ("large_lamb", "v5e:16x16", LARGE_BATCH)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="Topology or config to run; default: all.")
    only = parser.parse_args().only
    print(f"{os.cpu_count()} cores; time of the whole command\n")
    print(
        "| config | slice | phase | memory, free | compute, HBM, links ms | bound by | program / model FLOPs | time |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for config, topology, flags in CASES:
        if only in ("", config, topology):
            for phase in (1,) if flags is ONE_CHIP else (1, 2):
                show(config, topology, flags, phase)


def show(config: str, topology: str, flags: tuple[str, ...], phase: int) -> None:
    """Plans one phase and prints its line of the table."""
    command = [sys.executable, "-m", "bertjax.plan", f"--config=configs/{config}.py", f"--topology={topology}", *flags]
    # Without cached programs.
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": ""}
    begin = time.perf_counter()
    result = subprocess.run(
        [*command, f"--phase={phase}", "--json"], capture_output=True, text=True, env=environment, check=False
    )
    seconds = time.perf_counter() - begin
    if not result.stdout:
        sys.exit(f"{' '.join(command)} failed with {result.returncode}: {result.stderr}")
    plan = json.loads(result.stdout)
    name = " ".join((config, *flags))
    if not plan["fits"]:
        return print(f"| {name} | {topology} | {phase} | does not fit | | | | {seconds:.0f} s |", flush=True)
    shape = "{batch} × {length}".format(**plan["shape"])
    free = 1 - plan["total"] / plan["limit"]
    times = ", ".join(f"{1e3 * value:.1f}" for value in plan["seconds"].values())
    ratio = plan["program_flops"] / plan["model_flops"]
    memory = f"{plan['total'] / 2**30:.2f}, {free:.0%}"
    print(
        f"| {name} | {topology} | {shape} | {memory} | {times} | {plan['bound']} | {ratio:.2f} | {seconds:.0f} s |",
        flush=True,
    )


if __name__ == "__main__":
    main()
