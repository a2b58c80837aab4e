"""The head of a cluster may go away at any moment: then one line says so, and what was made stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from grpc import RpcError
from ray.exceptions import RayError

from tenuto.cluster.settings import LOCAL
from tenuto.words import TenutoError

GONE = "the head is gone, or cannot be reached any more; see that it runs (`ray start --head`)"
ENDED = "Ray on this machine has ended"


@contextmanager
def reached(on: str) -> Iterator[None]:
    """Speak to the head inside the block. Raises TenutoError when it does not answer any more."""
    try:
        yield
    except (ConnectionError, RpcError, RayError) as error:  # the second where Ray's client was just giving up
        why = f" ({last_line(error)})" if isinstance(error, RayError) else ""
        raise TenutoError(
            f"--on {on}: {ENDED if on == LOCAL else GONE}{why}; the same command goes on from what was made"
        ) from error


def last_line(error: BaseException) -> str:
    """What an error of Ray says at its end, below the traces of other machines."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
