"""How large libraries are imported: without what they take along and tenuto never uses."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = "bitsandbytes"
"""diffusers and peft take it along wherever it is installed, for quantised layers, and torch's compiler with it. The
8-bit optimizer imports it when it is asked for."""


@contextmanager
def imported() -> Iterator[None]:
    """Inside the block that library is not there, and nobody looks for garbage, of which imports make none.

    Together a sixth of what a process does before its first work.
    """
    hidden, collecting = UNUSED not in sys.modules, gc.isenabled()
    gc.disable()
    if hidden:
        sys.modules[UNUSED] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[UNUSED]
        if collecting:
            gc.enable()
