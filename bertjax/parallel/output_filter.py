"""Reads what a process among several prints, and passes on what its user should see.

`start` puts this reader, a process of its own, behind stdout and stderr. JAX's coordination service can tell of a lost
process only by printing a message and a stack and aborting, which nothing within that process can catch.
"""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterable

REMEDY = "its own output says why; the same command on all hosts continues from the last checkpoint"


def start() -> None:
    """From here on what this process prints goes through a reader to its stderr."""
    # In a session of its own: what ends this process by a signal must not end the reader before its last line.
    arguments = [sys.executable, "-m", "bertjax.parallel.output_filter"]
    reader = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(reader.stdin.fileno(), descriptor)
    reader.stdin.close()


def pass_on(lines: Iterable[str]) -> Iterable[str]:
    """What is to be seen of `lines`: without greetings and what comes before an end, and of several ends the first."""
    lines = iter(lines)
    for line in lines:
        if "JAX distributed service detected fatal errors" in line:
            silent = list(itertools.takewhile(str.isdecimal, map(str.strip, lines)))  # a line each, where it is they
            yield f"error: {_who_is_lost(line, silent)}; {REMEDY}\n"
            return
        if re.match(r"\[Gloo\] Rank|[IWE]\d{4} .* coordination_service|\d+$|The tasks have crashed", line):
            continue
        yield line
        if line.startswith("error: "):
            return


def _who_is_lost(message: str, silent: list[str]) -> str:
    silent = silent or re.findall(r"Task (\d+) heartbeat timeout", message)
    if silent:
        return f"process {', '.join(silent)} of this run has ended or has fallen silent"
    if "Failed to send RPC to coordination service" in message:
        return "process 0 of this run has ended or cannot be reached"
    reason = message.partition("absl::Status: ")[2].strip()[:160]
    return f"a process of this run is lost ({reason})"


def main() -> None:
    """Passes stdin on to stdout."""
    with os.fdopen(0, errors="replace") as lines:
        for line in pass_on(lines):
            print(line, end="", flush=True)
        for _ in lines:  # to the end, so that the process never waits at a full pipe
            pass


if __name__ == "__main__":
    main()
