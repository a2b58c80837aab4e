"""Joining a cluster, or a Ray of this machine alone, for as long as a command lasts."""

from __future__ import annotations

import logging
import os
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tenuto.cluster.settings import LOCAL
from tenuto.words import TenutoError

CLIENT_PORT = 10001
"""Where a head listens for terminals."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_ENABLE_AUTO_CONNECT": "0"}
"""Nothing is sent anywhere; what Ray would print of its workers, we say ourselves; and where the head is gone, Ray does
not start one of its own on this machine."""
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
"""By this Ray listens on 127.0.0.1 alone, on every system; and its workers count as much as what else runs here."""
TRIES = 3
"""How often a head that listens is asked to let us in."""
REACHED = 5.0
"""Seconds for a connection to the head's port."""


@contextmanager
def joined(on: str) -> Iterator[None]:
    """Work with Ray inside the block. Raises TenutoError when nobody answers."""
    where = (
        {"address": LOCAL, "num_cpus": _cpus(), "include_dashboard": False} if on == LOCAL else {"address": _head(on)}
    )
    os.environ.update(QUIET | (ALONE if on == LOCAL else {}))  # read when Ray is imported
    ray = _start(on, where)
    try:
        yield
    finally:
        ray.shutdown()


def _cpus() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _head(on: str) -> str:
    """The address with its port, where somebody listens."""
    url = urlsplit(on)
    try:
        port = url.port or CLIENT_PORT
    except ValueError:
        port = 0
    if url.scheme != "ray" or not url.hostname or not port or url.path:
        raise TenutoError(f'--on {on}: give "{LOCAL}", or the head of a cluster as ray://HOST:{CLIENT_PORT}')
    try:
        socket.create_connection((url.hostname, port), timeout=REACHED).close()
    except OSError as error:
        raise TenutoError(
            f"--on {on}: nobody answers there ({error.strerror or error}); start the head with `ray start --head` "
            f"(it listens on {CLIENT_PORT}), and see that the port can be reached"
        ) from error
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"ray://{host}:{port}"


def _start(on: str, where: dict[str, Any]) -> Any:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    import ray

    try:
        _enter(ray, where)
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        if on == LOCAL:
            raise TenutoError(f"--on {on}: Ray does not start here ({why}); is the machine too busy?") from error
        raise TenutoError(
            f"--on {on}: Ray does not let us in ({why}); it must be Ray {ray.__version__} with the same Python, and "
            "where the head has a token (~/.ray/auth_token), this machine needs it too"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray puts its own
            signal.signal(number, handler)
    return ray


def _enter(ray: Any, where: dict[str, Any]) -> None:
    """Ray waits half a minute for a head, and a busy one answers later: it is asked again."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # its client has no other way to be told
    for left in reversed(range(TRIES)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(**where, log_to_driver=False, logging_level=logging.CRITICAL)
            return
        except ConnectionError:
            if not left:
                raise
