"""Ray: a cluster that is there, or one on this machine for as long as it is needed.

Ray is looked for when a cluster is opened, and nowhere else is it imported.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from worldrt.engine.errors import BackendError, InputError
from worldrt.runtime.parallel.control import LOOPBACK
from worldrt.runtime.parallel.pools.base import Lost, Make, Ref

STARTS = 4
"""Ray gives its processes half a minute to start, which is little on a machine that has other things to do."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_failure_threshold": "40",
    "RAY_worker_niceness": "0",
}
"""A worker that takes its time to start, or a machine that has other things to do, is not lost; and workers, which
Ray has give way to all else, are what the machine is there for."""
OF_OWN_CLUSTER = {
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "180",
    "RAY_py_gcs_connect_timeout_s": "300",
    "RAY_health_check_timeout_ms": "60000",
}
"""What is on one machine, and not behind a network, has time to start and to answer."""
PLACE_S = 300.0
"""How long workers may wait for their places."""
_OURS = "WORLDRT_"


class RayCluster:
    """Workers as Ray actors, each in a place of a group that was reserved; Ray restarts and retries nothing, since who
    supervises must know what was done."""

    def __init__(self, ray: Any, group: Any, gpus: float, *, local: bool) -> None:
        self._ray = ray
        strategy = importlib.import_module("ray.util.scheduling_strategies").PlacementGroupSchedulingStrategy(group)
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        if not local:  # workers of another machine do not inherit it
            environment = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
            options |= {"runtime_env": {"env_vars": environment}}
        self._actor = ray.remote(scheduling_strategy=strategy, **options)(_Host)

    def start(self, make: Make) -> RayHandle:
        return RayHandle(self._ray, self._actor.remote(make, os.getcwd()))

    def ready(self, ref: Ref) -> bool:
        return bool(self._ray.wait([ref[1]], timeout=0)[0])

    def first(self, refs: Sequence[Ref]) -> int:
        marks = [ref[1] for ref in refs]
        return marks.index(self._ray.wait(marks, num_returns=1)[0][0])

    def wait(self, ref: Ref) -> None:
        self._get(ref[1])

    def get(self, ref: Ref) -> Any:
        return self._get(ref[0])

    def _get(self, ref: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:
            cause = error.cause or error
            gone = isinstance(cause, (Lost, errors.RayError)) or isinstance(error, errors.RayActorError)
            raise Lost(_short(error)) if gone else cause from None
        except errors.RayError as error:
            raise Lost(_short(error)) from None


class RayHandle:
    """An actor. A reference is a pair: of the value, and of a mark that tells that it is there."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self.actor = ray, actor

    def call(self, method: str, *args: Any) -> Ref:
        sent = [arg[0] if isinstance(arg, _Pair) else arg for arg in args]
        return _Pair(self.actor.call.options(num_returns=2).remote(method, *sent))

    def end(self) -> None:
        self._ray.kill(self.actor, no_restart=True)


class _Pair(list[Any]):
    """The two references of a call."""


class _Host:
    """What runs in an actor's process. What cannot be made is said by each call, since an actor that cannot begin is
    lost to Ray."""

    def __init__(self, make: Make, folder: str) -> None:
        self._problem: Exception | None = None
        try:
            _go_to(folder)
            self._held = make()
        except Exception as error:
            self._problem = error

    def call(self, method: str, *args: Any) -> tuple[Any, None]:
        if self._problem is not None:
            raise self._problem
        return getattr(self._held, method)(*args), None


def _go_to(folder: str) -> None:
    """Places are given as seen from there."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: a worker cannot go there: {error.strerror}; all machines need this folder"
        ) from error


def loopback() -> str:
    """Where workers of one machine meet."""
    return LOOPBACK


def address_of_machine() -> str:
    """This machine's address as Ray knows it."""
    return str(importlib.import_module("ray.util").get_node_ip_address())


@contextmanager
def open_cluster(
    workers: int, *, gpus: float = 0, address: str | None = None, memory_bytes: int | None = None
) -> Iterator[RayCluster]:
    """A cluster with places for so many workers of so many GPUs each: that of `address`, or one on this machine that
    listens on loopback alone and is shut down in the end, whatever happens. `memory_bytes` is what values may take in
    it. A process that has a connection to Ray keeps it.

    Raises `BackendError` where Ray is not installed or cannot be reached, `InputError` where the cluster is too small.
    """
    ray = _imported(address)
    if address is not None and ray.is_initialized():
        raise BackendError(f"--ray_address {address}: this process is connected to another cluster; leave that first")
    with ExitStack() as stack:
        joined = ray.is_initialized()
        if not joined:
            stack.callback(ray.shutdown)
            folder = None
            if address is None:
                folder = tempfile.mkdtemp(prefix="worldrt-ray-")
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                stack.callback(ray.shutdown)
            _connect(ray, address, folder, workers, memory_bytes)
        group = _reserved(ray, workers, gpus)
        if joined or address is not None:  # else it goes with the cluster, which may not answer any more
            stack.callback(importlib.import_module("ray.util").remove_placement_group, group)
        yield RayCluster(ray, group, gpus, local=address is None)


def _imported(address: str | None) -> Any:
    for name, value in {**SETTINGS, **(OF_OWN_CLUSTER if address is None else {})}.items():
        os.environ.setdefault(name, value)
    if address is None or address.startswith(("127.", "localhost")):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # which has it listen on 127.0.0.1 alone; read on import
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise BackendError(f"ray is not installed ({error}); pip install 'worldrt[ray]'") from error


def _connect(ray: Any, address: str | None, folder: str | None, workers: int, memory_bytes: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address is not None:
        options |= {"address": address}
    else:
        cpus = max(workers, os.cpu_count() or 1)
        options |= {"num_cpus": cpus, "object_store_memory": memory_bytes, "_temp_dir": folder}
        options |= {"include_dashboard": False}
    for left in reversed(range(STARTS if address is None else 1)):
        try:
            ray.init(**options)
            return
        except Exception as error:  # it raises plain ones, too
            ray.shutdown()
            if not left:
                if address is None:
                    raise BackendError(f"a cluster on this machine: Ray does not start: {_short(error)}") from error
                raise BackendError(
                    f"--ray_address {address}: Ray cannot be reached: {_short(error)}; where that cluster asks for a "
                    "token, as newer ones do, set RAY_AUTH_MODE=token"
                ) from error


def _reserved(ray: Any, workers: int, gpus: float) -> Any:
    """The places, once they are free."""
    there = ray.cluster_resources()
    for kind, wanted in (("GPU", workers * gpus), ("CPU", workers)):
        if there.get(kind, 0) < wanted:
            raise InputError(
                f"Ray: {workers} workers want {wanted:g} {kind}s, and the cluster has {there.get(kind, 0):g}; ask for "
                "fewer with --num_gpus_dit, --num_gpus_vae or --num_gpus, or add machines with 'ray start'"
            )
    place = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
    group = importlib.import_module("ray.util").placement_group([place] * workers, strategy="PACK")
    if not group.wait(PLACE_S):
        importlib.import_module("ray.util").remove_placement_group(group)
        raise InputError(f"Ray: {workers} workers found no place within {PLACE_S:g} s; others use the cluster")
    return group


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or [''])[-1][:300]}"
