"""Filters the output of a process in a distributed run.

`start` pipes stdout and stderr through this module in a process of its own. JAX's coordination service reports a lost
process only by printing a message and a stack trace and aborting, which cannot be caught within the process.
"""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterable

REMEDY = "see the output of that process; the same command on all hosts continues from the last checkpoint"


def start() -> None:
    """Redirects stdout and stderr of this process through a filter to its stderr."""
    # A session of its own: a signal that ends this process must not end the filter before the last line.
    arguments = [sys.executable, "-m", "bertjax.parallel.output_filter"]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    sys.stdout.flush()
    sys.stderr.flush()
    assert process.stdin is not None
    for descriptor in (1, 2):
        os.dup2(process.stdin.fileno(), descriptor)
    process.stdin.close()


def filter_lines(lines: Iterable[str]) -> Iterable[str]:
    """Yields `lines` without messages of the communication libraries, up to and including the first error."""
    lines = iter(lines)
    for line in lines:
        if "JAX distributed service detected fatal errors" in line:
            ranks = list(itertools.takewhile(str.isdecimal, map(str.strip, lines)))  # one per line, if listed
            yield f"error: {_describe_loss(line, ranks)}; {REMEDY}\n"
            return
        if re.match(r"\[Gloo\] Rank|[IWE]\d{4} .* coordination_service|\d+$|The tasks have crashed", line):
            continue
        yield line
        if line.startswith("error: "):
            return


def _describe_loss(message: str, ranks: list[str]) -> str:
    ranks = ranks or re.findall(r"Task (\d+) heartbeat timeout", message)
    if ranks:
        return f"process {', '.join(ranks)} of this run has ended or does not respond"
    if "Failed to send RPC to coordination service" in message:
        return "process 0 of this run has ended or cannot be reached"
    reason = message.partition("absl::Status: ")[2].strip()[:160]
    return f"a process of this run is lost ({reason})"


def main() -> None:
    """Filters stdin to stdout."""
    with os.fdopen(0, errors="replace") as lines:
        for line in filter_lines(lines):
            print(line, end="", flush=True)
        for _ in lines:  # drained, so that the process never blocks on a full pipe
            pass


if __name__ == "__main__":
    main()
