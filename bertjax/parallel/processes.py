"""Many processes, one run: how they find each other, agree, and end together.

Each process runs the same program on the devices of its host. A process that dies, or falls silent, ends all others
with one line; the same command on all hosts then goes on from the last checkpoint.
"""

import contextlib
import dataclasses
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec

from bertjax import decoding
from bertjax.decoding import ShortText, Size
from bertjax.errors import UserError, exit_now, first_line
from bertjax.parallel import output_filter


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where this process stands among the processes of a run."""

    address: str  # HOST:PORT of process 0, the same for all
    processes: int
    process: int
    devices: list[int] | None  # of this host's devices those that are this process's; None: all

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The address in two parts."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


@contextlib.contextmanager
def joined(start_timeout: int, lost_timeout: int, debug: bool = False) -> Iterator[None]:
    """Joins the other processes of the run, where there are others, before the devices are used for the first time.

    An exception within ends the process at once, with its message, and so ends the others too.

    Args:
      start_timeout: seconds that all processes have to come together.
      lost_timeout: seconds without a sign of life after which a process counts as lost.
      debug: whether everything is printed, tracebacks and the messages of libraries included.

    Raises:
      UserError: the environment is contradictory, or a process did not come.
    """
    cluster = find_cluster(start_timeout)
    if cluster is None:
        yield
        return
    _call_roll(cluster, start_timeout)
    try:
        if not debug:
            output_filter.start()
        if cluster.process != 0:  # the first process logs for all; the others log errors only
            logging.getLogger("bertjax").setLevel(logging.ERROR)
        _start(cluster, start_timeout, lost_timeout)
        yield
        _shut_down()
    except BaseException as error:  # no wait for the others: they wait for this process
        exit_now(_explained(error), debug)


def is_first() -> bool:
    """Whether this is the process that speaks and writes for all."""
    import jax

    return jax.process_index() == 0


def everywhere(condition: bool) -> bool:
    """Whether `condition` holds on every process; all must ask, and wait for each other."""
    return all(of_all(condition))


def of_all(value: int) -> list[int]:
    """The `value` of every process, in their order; all must ask, and wait for each other."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [value]
    return multihost_utils.process_allgather(np.array(value)).tolist()


def agreed_to_stop(step: int, wanted: bool, ahead: int) -> bool:
    """Whether to stop at `step`, the same step on every process, soon after one of them wants to.

    Args:
      step: steps done; every process asks after each.
      wanted: whether this process wants to stop.
      ahead: how many more steps any other process may have begun when this one asks.
    """
    import jax
    from jax._src.distributed import global_state

    if jax.process_count() == 1:
        return wanted
    store, key = global_state.client, "bertjax/stop"
    if wanted:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the first wish holds
            store.key_value_set(f"{key}/step", str(step + ahead))
    return any(step >= int(value) for _, value in store.key_value_dir_get(key))


# -- finding the others


def find_cluster(timeout: int) -> Cluster | None:
    """The cluster, from JAX's own variables or the environment (Cloud TPU, SLURM, Kubernetes …); None for one process.

    Raises:
      UserError: they tell only a part, or what cannot be.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes, process = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")
    devices = None
    if processes == 1:
        return None
    if None in (address, processes, process):
        # No public function of JAX tells what it would find without starting it.
        from jax._src.clusters import ClusterEnv

        given = (address, processes, process) != (None, None, None)
        try:
            address, processes, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
                address, processes, process, None, None, timeout
            )
        except Exception as error:  # of many kinds: metadata servers, Kubernetes' API, missing variables
            raise UserError(
                f"cannot find the other processes of this run: {first_line(error)}; set JAX_COORDINATOR_ADDRESS, "
                "JAX_NUM_PROCESSES and JAX_PROCESS_ID, or JAX_NUM_PROCESSES=1 to train alone"
            ) from error
        if not given and processes in (None, 1):
            return None
    if None in (address, processes, process):
        raise UserError(
            "JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID must be set "
            "together, or none of them"
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


# -- the roll call: JAX would end the process if one is missing, and not say which

T = TypeVar("T")

_Rank = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_LONGEST_MESSAGE = 2**20  # bytes; the numbers of 100,000 missing processes


@dataclasses.dataclass(frozen=True)
class _Reply:
    """What process 0 tells another one."""

    refused: ShortText | None = None  # why
    missing: tuple[_Rank, ...] = ()


def _call_roll(cluster: Cluster, timeout: int) -> None:
    """Waits until all processes are there; process 0 hears them at the address where it will start JAX's service.

    Raises:
      UserError: some did not come in time, which ones; or two have the same number.
    """
    missing = _hear_others(cluster, timeout) if cluster.process == 0 else _answer(cluster, timeout)
    if missing:
        names = ", ".join(map(str, missing))
        raise UserError(
            f"of the {cluster.processes} processes {names} did not come to {cluster.address} within {timeout} s; "
            "look at their output and at the network, or raise --start_timeout, and run the same command again"
        )


def _hear_others(cluster: Cluster, timeout: int) -> list[int]:
    """Process 0's part; the numbers that are missing."""
    present: dict[int, socket.socket] = {}
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(_listen(cluster))
        while len(present) < cluster.processes - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.ExitStack() as stray:
                try:
                    connection = stray.enter_context(server.accept()[0])
                    number, count = _receive(connection, min(left, 10), tuple[_Rank, Size])
                except (OSError, decoding.DecodingError):
                    continue  # the time is over, or it was none of this run's
                if count != cluster.processes:
                    _send(connection, _Reply(f"process 0 expects {cluster.processes} processes, not {count}"))
                elif number == 0 or number in present:
                    _send(connection, _Reply(f"there is another process {number}"))
                elif number < count:
                    present[number] = connection
                    opened.push(stray.pop_all())
        missing = [number for number in range(1, cluster.processes) if number not in present]
        for connection in present.values():
            _send(connection, _Reply(missing=tuple(missing)))
    return missing


def _answer(cluster: Cluster, timeout: int) -> list[int]:
    """The part of the others."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(cluster.host_and_port, timeout=min(left, 10)) as connection:
                _send(connection, (cluster.process, cluster.processes))
                reply = _receive(connection, timeout + 10, _Reply)  # process 0 may have begun to wait only now
        except (OSError, decoding.DecodingError):
            time.sleep(min(left, 0.5))  # it is not there yet, or something else is
            continue
        if reply.refused is not None:
            raise UserError(f"process {cluster.process} at {cluster.address}: {reply.refused}")
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


def _send(connection: socket.socket, message: Any) -> None:
    with contextlib.suppress(OSError):  # who has left is noticed later
        connection.sendall(msgspec.json.encode(message) + b"\n")


def _receive(connection: socket.socket, timeout: float, cls: type[T]) -> T:
    """A message, which is a line.

    Raises:
      OSError: it does not come whole within `timeout` seconds.
      DecodingError: it is something else.
    """
    deadline, line = time.monotonic() + timeout, bytearray()
    while not line.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = connection.recv(4096)
        line += part
        if not part or len(line) > _LONGEST_MESSAGE or time.monotonic() > deadline:
            raise ConnectionError("no whole message")
    where, cure = "a message between processes", "start all of them with the same version"
    return decoding.convert(decoding.parse(bytes(line), where, cure), cls, where, cure)


# -- JAX's own service: it starts the devices together, and its heartbeats notice who is lost


def _start(cluster: Cluster, start_timeout: int, lost_timeout: int) -> None:
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # `agreed_to_stop` hears of Ctrl-C as well
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


def _explained(error: BaseException) -> BaseException:
    """A broken connection as a UserError, which says what to do; any other error as it is."""
    if isinstance(error, UserError) or not re.search("Gloo|UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat", str(error)):
        return error
    return UserError(
        f"another process of this run has ended or cannot be reached ({first_line(error)}); {output_filter.REMEDY}"
    )
