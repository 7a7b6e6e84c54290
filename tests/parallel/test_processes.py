"""Several processes as one run: equal results, stopping together, and errors for missing processes."""

import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from bertjax.checkpoints import store
from bertjax.config.layout import LayoutConfig
from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.pretraining import Phase
from bertjax.errors import UserError
from bertjax.parallel import output_filter
from bertjax.parallel.processes import find_cluster, join_cluster
from bertjax.pretraining.run import train
from bertjax.trainer import metrics
from tests.support.commands import ROOT, TINY_MODEL, assert_refused, command, overrides

LAYOUT = LayoutConfig(unroll=1)  # compiles faster than unrolled layers


def start_cluster(count: int, arguments: list, **variables: str) -> list[subprocess.Popen]:
    """Starts the processes of one run with the variables that launch scripts set."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    return [
        subprocess.Popen(
            arguments,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ
            | {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(number)}
            | variables,
        )
        for number in range(count)
    ]


def test_rows_and_checkpoints_are_the_same_for_any_mesh_and_number_of_processes(corpus, tmp_path):
    """Devices get exactly their rows; a checkpoint of fsdp 8 continues with the same losses on any mesh."""
    arguments = [sys.executable, "-m", "tests.support.hosts", corpus, tmp_path / "checkpoints"]
    losses_by_mesh = {}
    for processes, devices in ((1, 8), (2, 4)):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        for process in start_cluster(processes, arguments, XLA_FLAGS=flags):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        for path in tmp_path.glob(f"checkpoints-{processes}-*.json"):
            losses_by_mesh |= {f"{name} ({path.name})": losses for name, losses in json.loads(path.read_text()).items()}
    assert len(losses_by_mesh) == 5
    for name, losses in losses_by_mesh.items():
        assert losses == pytest.approx(losses_by_mesh["one device (checkpoints-1-0.json)"], rel=1e-5), name


class Pod:
    """A run of launch/local_pod.sh."""

    def __init__(self, processes: int, *arguments: str) -> None:
        script = ["bash", "launch/local_pod.sh", str(processes), *map(str, arguments)]
        environment = os.environ | {"PYTHON": sys.executable}
        self.script = subprocess.Popen(script, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        self.errors = ""

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *error: object) -> None:
        for process in psutil.Process(self.script.pid).children() if self.script.poll() is None else ():
            process.kill()
        self.script.wait(timeout=60)

    def process(self, number: int) -> psutil.Process:
        """Returns the process of a rank."""
        children = psutil.Process(self.script.pid).children()
        return next(child for child in children if child.environ().get("JAX_PROCESS_ID") == str(number))

    def wait_for_steps(self, count: int) -> None:
        """Waits until `count` steps have been logged."""
        for line in self.script.stderr:
            self.errors += line
            count -= line.startswith("step ")
            if count == 0:
                return
        raise AssertionError(self.errors)

    def end(self) -> tuple[int, str]:
        """Waits for the end; returns (exit code, stderr)."""
        self.errors += self.script.communicate(timeout=120)[1]
        return self.script.returncode, self.errors


def test_a_pod_recovers_from_a_death_stops_together_and_matches_one_process(tiny_config, tmp_path):
    """4 processes until one gets SIGKILL, then 2 until one gets SIGTERM; data, then tensor parallelism."""
    config = dataclasses.replace(
        tiny_config,
        phases=(Phase(1, 32, 32),) * 300,  # phases of one step need no TensorFlow, whose import is slow
        layout=LAYOUT,
        eval_every=4,
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup_steps=2),
        checkpoint_every=3,
    )
    settings = TINY_MODEL | {
        "corpus": config.corpus,
        "phases": "(" + '{"steps":1,"length":32,"batch":32},' * 300 + ")",
        "optimizer.schedule": "constant",
        "optimizer.warmup_steps": 2,
        "log_every": 1,
        "eval_every": 4,
        "eval_sequences": 32,
        "checkpoint_every": 3,
        "layout.unroll": LAYOUT.unroll,
    }
    arguments = ["--config=configs/tiny.py", f"--workdir={tmp_path}/pod", *overrides(settings), "--lost_timeout=20"]
    checkpoints = tmp_path / "pod/checkpoints"

    with Pod(4, *arguments) as pod:
        pod.wait_for_steps(6)
        killed, before = pod.process(1), time.monotonic()
        killed.kill()
        code, errors = pod.end()
    assert code not in (0, 128) and time.monotonic() - before < 60
    for prefix in ("", r"\[2\] ", r"\[3\] "):
        line = f"^{prefix}error: .* has ended or .*continues from the last checkpoint$"
        assert len(re.findall(line, errors, re.MULTILINE)) == 1, errors
    assert "Traceback" not in errors and "stack trace" not in errors
    saved = store.steps(checkpoints)[-1]

    with Pod(2, *arguments, "--config.mesh.data=1", "--config.mesh.tensor=2") as pod:
        pod.wait_for_steps(2)
        pod.process(1).terminate()
        code, errors = pod.end()
    assert code == 0, errors
    assert f"continuing at step {saved} of 300" in errors
    stopped = int(re.search(r"stopped at step (\d+) of 300, saved", errors)[1])
    assert store.steps(checkpoints)[-1] == stopped
    assert "[1]" not in errors  # only process 0 logs

    actual = metrics.read(tmp_path / "pod/metrics.jsonl")
    train(dataclasses.replace(config, phases=config.phases[:stopped]), tmp_path / "one")
    expected = metrics.read(tmp_path / "one/metrics.jsonl")
    if stopped % 4:
        expected.pop()  # the final evaluation
    assert [record["step"] for record in actual] == [record["step"] for record in expected]
    for single, several in zip(expected, actual, strict=True):
        for name in single.keys() & {"train/loss", "eval/mlm_loss"}:
            assert several[name] == pytest.approx(single[name], rel=1e-5), single["step"]


def test_every_started_process_names_a_missing_one(tmp_path):
    """The error comes after the timeout, before any device is used."""
    settings = overrides({"corpus": "none"})
    arguments = command("train", "--config=configs/tiny.py", f"--workdir={tmp_path}/run", *settings)
    first, second, third = start_cluster(3, [*arguments, "--start_timeout=6"])
    second.kill()
    for process in (first, third):
        _, errors = process.communicate(timeout=60)
        result = subprocess.CompletedProcess(arguments, process.returncode, stderr=errors)
        assert_refused(result, "process 1 of the 3 processes did not start", "within 6 s", "--start_timeout")
    assert not (tmp_path / "run").exists()


INVALID = [b'"a"\n', b"[7, 3]\n", b"[1]\n", b'{"missing": ["a"]}\n', b"[1e9, 3]\n", b"\xff\n", b"[" * 99_999 + b"\n"]


@pytest.mark.parametrize(("number", "missing"), [(0, "1, 2"), (1, "0")])
def test_other_programs_at_the_address_are_ignored(monkeypatch, number, missing):
    """By process 0, which listens there, and by another process, which another program answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", f"127.0.0.1:{address[1]}")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
    monkeypatch.setenv("JAX_PROCESS_ID", str(number))
    messages = []

    def connect() -> None:
        time.sleep(0.5)
        for message in [*INVALID, b"x" * 2_000_000]:
            with socket.create_connection(address) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(message)
                connection.recv(1)
            messages.append(message)

    def answer() -> None:
        for message in INVALID:
            with contextlib.suppress(ConnectionError), listening.accept()[0] as connection:
                connection.sendall(message)
            messages.append(message)

    with contextlib.ExitStack() as stack:
        if number:
            listening = stack.enter_context(socket.create_server(address))
        program = threading.Thread(target=answer if number else connect)
        program.start()
        stack.enter_context(pytest.raises(UserError, match=f"process {missing} of the 3 processes did not start"))
        stack.enter_context(join_cluster(6, 9))
    program.join()
    assert len(messages) >= len(INVALID)


@pytest.mark.parametrize(
    ("status", "process"),
    [
        ("UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\n3\nThe", "process 1, 3 of"),
        ("UNAVAILABLE: Failed to send RPC to coordination service. Either", "process 0 of"),
        ("INTERNAL: something else", "a process of this run is lost (INTERNAL: something else)"),
    ],
)
def test_a_message_of_jax_about_a_lost_process_becomes_one_line(status, process):
    """The output of JAX 0.10 before it aborts a process, with other output."""
    fatal = "F1121 22:43:22 291 client.h:80] Terminating process as the JAX distributed service detected fatal errors."
    printed = [
        "step 1/9: loss 7.1",
        "[Gloo] Rank 0 is connected to 1 peer ranks.",
        f"{fatal} absl::Status: {status}",
        "@ 0x",
    ]
    lines = list(output_filter.filter_lines(line + "\n" for text in printed for line in text.split("\n")))
    assert len(lines) == 2 and lines[0] == "step 1/9: loss 7.1\n" and lines[1].startswith(f"error: {process}")


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"JAX_NUM_PROCESSES": "4"}, "must be set together"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "'two'"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "one of 0 to 1"),
        ({"JAX_COORDINATOR_ADDRESS": "host", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "HOST:PORT"),
    ],
)
def test_a_contradictory_environment_is_refused(monkeypatch, variables, part):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=part):
        find_cluster(1)


def test_slurm_is_detected(monkeypatch):
    """With the variables of `srun`: process 0 is on the first node, and each process has its own device."""
    assert find_cluster(1) is None
    variables = {"JOB_ID": "4242", "STEP_NODELIST": "node[07-10]", "NTASKS": "8", "PROCID": "3", "LOCALID": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    cluster = find_cluster(1)
    assert (cluster.processes, cluster.process, cluster.devices) == (8, 3, [1])
    assert cluster.address.startswith("node07:")
