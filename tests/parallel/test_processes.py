"""Several processes as one run: what they compute, how they stop together, and what is said of one that is missing."""

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
from bertjax.parallel.processes import find_cluster, joined
from bertjax.pretraining.run import train
from bertjax.trainer import metrics
from tests.support.commands import ROOT, TINY_MODEL, assert_refused, command, overrides

LAYOUT = LayoutConfig(unroll=1)  # compiling layer by layer would take most of the time


def started_together(count: int, arguments: list, **variables: str) -> list[subprocess.Popen]:
    """Processes of one run, told of each other as launch scripts do it."""
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
    """Devices get their rows to the bit; a checkpoint of fsdp 8 goes on anywhere with the same losses."""
    arguments = [sys.executable, "-m", "tests.support.hosts", corpus, tmp_path / "checkpoints"]
    found = {}
    for processes, devices in ((1, 8), (2, 4)):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        for process in started_together(processes, arguments, XLA_FLAGS=flags):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        for path in tmp_path.glob(f"checkpoints-{processes}-*.json"):
            found |= {f"{name} ({path.name})": losses for name, losses in json.loads(path.read_text()).items()}
    assert len(found) == 5
    for name, losses in found.items():
        assert losses == pytest.approx(found["one device (checkpoints-1-0.json)"], rel=1e-5), name


class Pod:
    """launch/local_pod.sh as a user starts it."""

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
        """One of its processes."""
        children = psutil.Process(self.script.pid).children()
        return next(child for child in children if child.environ().get("JAX_PROCESS_ID") == str(number))

    def wait_for_steps(self, count: int) -> None:
        """Until so many steps have been reported."""
        for line in self.script.stderr:
            self.errors += line
            count -= line.startswith("step ")
            if count == 0:
                return
        raise AssertionError(self.errors)

    def end(self) -> tuple[int, str]:
        """(exit code, what was said)."""
        self.errors += self.script.communicate(timeout=120)[1]
        return self.script.returncode, self.errors


def test_a_pod_survives_a_death_stops_together_and_computes_what_one_process_computes(tiny_config, tmp_path):
    """4 processes, ended by SIGKILL of one, then 2 that go on, ended by SIGTERM to one; data, then tensor parallel."""
    config = dataclasses.replace(
        tiny_config,
        phases=(Phase(1, 32, 32),) * 300,  # a phase of one step needs no TensorFlow, which takes long to import
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
    assert "[1]" not in errors  # process 0 speaks for all

    found = metrics.read(tmp_path / "pod/metrics.jsonl")
    train(dataclasses.replace(config, phases=config.phases[:stopped]), tmp_path / "one")
    expected = metrics.read(tmp_path / "one/metrics.jsonl")
    if stopped % 4:
        expected.pop()  # the evaluation at the end
    assert [record["step"] for record in found] == [record["step"] for record in expected]
    for one, several in zip(expected, found, strict=True):
        for name in one.keys() & {"train/loss", "eval/mlm_loss"}:
            assert several[name] == pytest.approx(one[name], rel=1e-5), one["step"]


def test_a_missing_process_is_named_by_those_that_are_there(tmp_path):
    """Before a device is touched, when the time is over."""
    settings = overrides({"corpus": "none"})
    arguments = command("train", "--config=configs/tiny.py", f"--workdir={tmp_path}/run", *settings)
    first, second, third = started_together(3, [*arguments, "--start_timeout=6"])
    second.kill()
    for process in (first, third):
        _, errors = process.communicate(timeout=60)
        result = subprocess.CompletedProcess(arguments, process.returncode, stderr=errors)
        assert_refused(result, "of the 3 processes 1 did not come", "within 6 s", "--start_timeout")
    assert not (tmp_path / "run").exists()


STRANGE = [b'"a"\n', b"[7, 3]\n", b"[1]\n", b'{"missing": ["a"]}\n', b"[1e9, 3]\n", b"\xff\n", b"[" * 99_999 + b"\n"]


@pytest.mark.parametrize(("number", "missing"), [(0, "1, 2"), (1, "0")])
def test_strangers_at_the_address_are_not_taken_for_processes(monkeypatch, number, missing):
    """Neither by process 0, which listens there, nor by another one, which something else answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", f"127.0.0.1:{address[1]}")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
    monkeypatch.setenv("JAX_PROCESS_ID", str(number))
    met = []

    def knock() -> None:
        time.sleep(0.5)
        for message in [*STRANGE, b"x" * 2_000_000]:
            with socket.create_connection(address) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(message)
                connection.recv(1)
            met.append(message)

    def answer() -> None:
        for message in STRANGE:
            with contextlib.suppress(ConnectionError), listening.accept()[0] as connection:
                connection.sendall(message)
            met.append(message)

    with contextlib.ExitStack() as stack:
        if number:
            listening = stack.enter_context(socket.create_server(address))
        stranger = threading.Thread(target=answer if number else knock)
        stranger.start()
        stack.enter_context(pytest.raises(UserError, match=f"of the 3 processes {missing} did not come"))
        stack.enter_context(joined(6, 9))
    stranger.join()
    assert len(met) >= len(STRANGE)


@pytest.mark.parametrize(
    ("status", "who"),
    [
        ("UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\n3\nThe", "process 1, 3 of"),
        ("UNAVAILABLE: Failed to send RPC to coordination service. Either", "process 0 of"),
        ("INTERNAL: something else", "a process of this run is lost (INTERNAL: something else)"),
    ],
)
def test_the_end_by_jax_s_service_becomes_one_line(status, who):
    """What JAX 0.10 prints before it aborts a process, among what else is printed."""
    fatal = "F1121 22:43:22 291 client.h:80] Terminating process as the JAX distributed service detected fatal errors."
    printed = [
        "step 1/9: loss 7.1",
        "[Gloo] Rank 0 is connected to 1 peer ranks.",
        f"{fatal} absl::Status: {status}",
        "@ 0x",
    ]
    seen = list(output_filter.pass_on(line + "\n" for text in printed for line in text.split("\n")))
    assert len(seen) == 2 and seen[0] == "step 1/9: loss 7.1\n" and seen[1].startswith(f"error: {who}")


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


def test_slurm_is_found(monkeypatch):
    """As `srun` sets it: the first node is process 0's, and each process of a node has a device of its own."""
    assert find_cluster(1) is None
    variables = {"JOB_ID": "4242", "STEP_NODELIST": "node[07-10]", "NTASKS": "8", "PROCID": "3", "LOCALID": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    cluster = find_cluster(1)
    assert (cluster.processes, cluster.process, cluster.devices) == (8, 3, [1])
    assert cluster.address.startswith("node07:")
