"""Several processes as one run: joining, agreeing and ending together.

Each process runs the same program on the devices of its host. A process that dies or stops responding ends all others
with a one-line error; the same command on all hosts then continues from the last checkpoint.
"""

import contextlib
import dataclasses
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, TypeVar

import msgspec

from bertjax import decoding
from bertjax.decoding import ShortText, Size
from bertjax.errors import UserError, exit_now, first_line
from bertjax.parallel import output_filter


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The place of this process among the processes of a run."""

    address: str  # HOST:PORT of process 0, the same for all processes
    processes: int
    process: int
    devices: Sequence[int] | None  # local device ids of this process; None: all of the host

    @property
    def host_and_port(self) -> tuple[str, int]:
        """(host, port) of the address."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


@contextlib.contextmanager
def join_cluster(start_timeout: int, lost_timeout: int, debug: bool = False) -> Iterator[None]:
    """Joins the other processes of the run, if any; to be entered before the first use of a device.

    An exception in the context is printed and ends this process at once, which also ends the others.

    Args:
      start_timeout: seconds to wait until all processes have started.
      lost_timeout: seconds without a heartbeat after which a process counts as lost.
      debug: whether to print everything, including tracebacks and messages of libraries.

    Raises:
      UserError: the environment is contradictory, or a process did not start in time.
    """
    cluster = find_cluster(start_timeout)
    if cluster is None:
        yield
        return
    _call_roll(cluster, start_timeout)
    try:
        if not debug:
            output_filter.start()
        _start(cluster, start_timeout, lost_timeout)
        yield
        _shut_down()
    except BaseException as error:  # must not wait for the others, which wait for this process
        exit_now(_explain(error), debug)


def is_first() -> bool:
    """Whether this is process 0, which logs and writes files for all."""
    import jax

    return jax.process_index() == 0


def all_agree(condition: bool) -> bool:
    """Whether `condition` holds on every process; a collective call, which all processes must make."""
    return all(gather_values(condition))


def gather_values(value: int) -> list[int]:
    """Returns the `value` of every process by rank; a collective call, which all processes must make."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [value]
    return multihost_utils.process_allgather(np.array(value)).tolist()


def should_stop(step: int, requested: bool, ahead: int) -> bool:
    """Whether to stop at `step`; true for the same step on every process, soon after one of them requests it.

    Args:
      step: steps done; every process calls this after each step.
      requested: whether this process requests to stop.
      ahead: how many steps any other process may be ahead of this one.
    """
    import jax
    from jax._src.distributed import global_state

    store, key = global_state.client, "bertjax/stop"
    if jax.process_count() == 1 or store is None:
        return requested
    if requested:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # a request exists; the first one counts
            store.key_value_set(f"{key}/step", str(step + ahead))
    return any(step >= int(value) for _, value in store.key_value_dir_get(key))


# -- finding the cluster


def find_cluster(timeout: int) -> Cluster | None:
    """Returns the cluster from JAX's variables or the environment (Cloud TPU, SLURM, Kubernetes …); None if alone.

    Raises:
      UserError: the variables are incomplete or contradictory.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes, process = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")
    devices = None
    if processes == 1:
        return None
    if None in (address, processes, process):
        # JAX has no public function that detects the environment without initializing.
        from jax._src.clusters import ClusterEnv

        configured = (address, processes, process) != (None, None, None)
        try:
            address, processes, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
                address, processes, process, None, None, timeout
            )
        except Exception as error:  # of many types: metadata servers, the Kubernetes API, missing variables
            raise UserError(
                f"cannot find the other processes of this run ({first_line(error)}); set JAX_COORDINATOR_ADDRESS, "
                "JAX_NUM_PROCESSES and JAX_PROCESS_ID, or JAX_NUM_PROCESSES=1 to train with one process"
            ) from error
        if not configured and processes in (None, 1):
            return None
    if address is None or processes is None or process is None:
        raise UserError(
            "JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID must be set "
            "together; set all three, or none of them"
        )
    if not re.fullmatch(r".+:\d+", address):
        raise UserError(f"JAX_COORDINATOR_ADDRESS is {address}; it must be HOST:PORT")
    if not 0 <= process < processes:
        raise UserError(f"JAX_PROCESS_ID is {process}; with {processes} processes it is one of 0 to {processes - 1}")
    return Cluster(address, processes, process, devices)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isdecimal():
        raise UserError(f"{variable} is {text!r}; it must be a number")
    return int(text)


# -- roll call: with a missing process JAX would abort without naming it

T = TypeVar("T")

_Rank = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_MAX_MESSAGE_BYTES = 2**20  # holds the ranks of 100,000 missing processes


@dataclasses.dataclass(frozen=True)
class _Reply:
    """The reply of process 0 to another process."""

    refused: ShortText | None = None  # the reason
    missing: tuple[_Rank, ...] = ()


def _call_roll(cluster: Cluster, timeout: int) -> None:
    """Waits until all processes have reported to process 0, at the address where it will start JAX's service.

    Raises:
      UserError: processes are missing, which are listed, or two processes have the same rank.
    """
    missing = _collect_reports(cluster, timeout) if cluster.process == 0 else _report(cluster, timeout)
    if missing:
        ranks = ", ".join(map(str, missing))
        raise UserError(
            f"{cluster.address}: process {ranks} of the {cluster.processes} processes did not start within {timeout} "
            "s; check its output and the network, or raise --start_timeout, and run the same command again"
        )


def _collect_reports(cluster: Cluster, timeout: int) -> list[int]:
    """Receives and answers the reports at process 0; returns the missing ranks."""
    present: dict[int, socket.socket] = {}
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as accepted:
        server = accepted.enter_context(_listen(cluster))
        while len(present) < cluster.processes - 1 and (remaining := deadline - time.monotonic()) > 0:
            server.settimeout(remaining)
            with contextlib.ExitStack() as pending:
                try:
                    connection = pending.enter_context(server.accept()[0])
                    rank, count = _receive(connection, min(remaining, 10), tuple[_Rank, Size])
                except (OSError, decoding.DecodingError):
                    continue  # a timeout, or a connection from outside this run
                if count != cluster.processes:
                    _send(connection, _Reply(f"process 0 expects {cluster.processes} processes, not {count}"))
                elif rank == 0 or rank in present:
                    _send(connection, _Reply(f"there is another process {rank}"))
                elif rank < count:
                    present[rank] = connection
                    accepted.push(pending.pop_all())
        missing = [rank for rank in range(1, cluster.processes) if rank not in present]
        for connection in present.values():
            _send(connection, _Reply(missing=tuple(missing)))
    return missing


def _report(cluster: Cluster, timeout: int) -> list[int]:
    """Reports this process to process 0; returns the missing ranks."""
    deadline = time.monotonic() + timeout
    while (remaining := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(cluster.host_and_port, timeout=min(remaining, 10)) as connection:
                _send(connection, (cluster.process, cluster.processes))
                reply = _receive(connection, timeout + 10, _Reply)  # process 0 may have started waiting only now
        except (OSError, decoding.DecodingError):
            time.sleep(min(remaining, 0.5))  # process 0 is not up yet, or another program answers
            continue
        if reply.refused is not None:
            raise UserError(
                f"process {cluster.process} at {cluster.address}: {reply.refused}; give every process the same "
                "JAX_NUM_PROCESSES and its own JAX_PROCESS_ID"
            )
        return list(reply.missing)
    return [0]


def _listen(cluster: Cluster) -> socket.socket:
    _, port = cluster.host_and_port
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on port {port} ({error.strerror}); choose another JAX_COORDINATOR_ADDRESS"
        ) from error


def _send(connection: socket.socket, message: object) -> None:
    with contextlib.suppress(OSError):  # a lost process is noticed later
        connection.sendall(msgspec.json.encode(message) + b"\n")


def _receive(connection: socket.socket, timeout: float, cls: type[T]) -> T:
    """Receives a message, one line of JSON.

    Raises:
      OSError: the message is not complete within `timeout` seconds.
      DecodingError: it is not a `cls`.
    """
    deadline, line = time.monotonic() + timeout, bytearray()
    while not line.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = connection.recv(4096)
        line += part
        if not part or len(line) > _MAX_MESSAGE_BYTES or time.monotonic() > deadline:
            raise ConnectionError("incomplete message")
    where, remedy = "message between processes", "start all processes with the same version of bertjax"
    return decoding.convert(decoding.parse(bytes(line), where, remedy), cls, where, remedy)


# -- JAX's coordination service: connects the devices and detects lost processes by heartbeats


def _start(cluster: Cluster, start_timeout: int, lost_timeout: int) -> None:
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # `should_stop` handles Ctrl-C as well
    jax.distributed.initialize(
        cluster.address,
        cluster.processes,
        cluster.process,
        local_device_ids=cluster.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=start_timeout,
        heartbeat_timeout_seconds=lost_timeout,
    )


def _shut_down() -> None:
    import jax

    jax.distributed.shutdown()


def _explain(error: BaseException) -> BaseException:
    """Turns a broken connection into a UserError with a remedy; returns any other error unchanged."""
    if isinstance(error, UserError) or not re.search("Gloo|UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat", str(error)):
        return error
    return UserError(
        f"another process of this run has ended or cannot be reached ({first_line(error)}); {output_filter.REMEDY}"
    )
