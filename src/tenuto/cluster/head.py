"""The head of a cluster may go away at any moment: then one line says so, and what was made stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from grpc import RpcError
from ray.exceptions import RayError

from tenuto.cluster.settings import LOCAL
from tenuto.words import Stopped, TenutoError

GONE = "the head is gone, or cannot be reached any more; see that it runs (`ray start --head`)"
ENDED = "Ray on this machine has ended"


@contextmanager
def reached(on: str) -> Iterator[None]:
    """Speak to the head inside the block. Raises TenutoError when it does not answer any more."""
    try:
        yield
    except (TenutoError, Stopped):
        raise
    except Exception as error:
        if is_there() and not isinstance(error, ConnectionError | RpcError | RayError):
            raise
        why = f" ({last_line(error)})" if isinstance(error, RayError) else ""
        raise TenutoError(
            f"--on {on}: {ENDED if on == LOCAL else GONE}{why}; the same command goes on from what was made"
        ) from error


def is_there() -> bool:
    """Whether Ray still has somebody to speak to, as far as it knows."""
    return bool(ray.is_initialized())


def last_line(error: BaseException) -> str:
    """What an error of Ray says at its end, below the traces of other machines."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
