"""What happens around every command: stopping, expected errors in one line, a crash report for the rest."""

from __future__ import annotations

import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType

import typer

from tenuto import __version__
from tenuto.words import Stopped, TenutoError

USER_ERROR, CRASH, INTERRUPTED = 1, 70, 130
SMALLER = (
    "end what else uses the device, or set a smaller prior.at_once or comparison.batch, and the same command goes on; "
    'or training.precision = "bf16" or a smaller data.buckets.area with another --out'
)


class Stopper:
    """Ctrl-C or SIGTERM: the first asks the work to stop at the next safe place, the second stops at once."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.asked, self.quiet = False, quiet

    def __call__(self) -> bool:
        return self.asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if not self.quiet:
            print("stopping at the next safe place (again: at once) ...", file=sys.stderr, flush=True)


@contextmanager
def guarded(tells: Callable[[], bool] = lambda: True, *, quiet: bool = False) -> Iterator[Stopper]:
    """Run a command's work. Leaves with one line and a status; nothing that was made is lost.

    tells: asked before the line is printed; of several processes that end together only one says so.
    quiet: not the process that speaks as long as all goes well.
    """
    stopper = Stopper(quiet=quiet)
    before = {number: signal.signal(number, stopper.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopper
    except (typer.Exit, typer.Abort, BrokenPipeError):  # nobody reads on, as in `tenuto methods | head`: typer ends it
        raise
    except Stopped as stop:
        _leave(str(stop), INTERRUPTED, tells)
    except KeyboardInterrupt:
        _leave("stopped; the same command goes on from what was saved", INTERRUPTED, tells)
    except TenutoError as error:
        _leave(f"error: {error}", USER_ERROR, tells)
    except Exception as error:
        from tenuto.memory import is_out_of_memory

        if is_out_of_memory(error):
            _leave(f"error: out of memory ({error}); {SMALLER}", USER_ERROR, tells)
        line = f"error: {type(error).__name__}: {error}; this is a fault of tenuto: please report {_crash_report()}"
        _leave(line, CRASH, tells)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(line: str, status: int, tells: Callable[[], bool]) -> None:
    if tells():
        print(" ".join(line.split()), file=sys.stderr)
    raise typer.Exit(status)


def _crash_report() -> Path:
    """Write what happened beside the user's work (or into the temporary folder)."""
    text = "\n".join(
        [
            f"tenuto {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"command: {' '.join(sys.argv)}",
            traceback.format_exc(),
        ]
    )
    name = f"tenuto-crash-{datetime.now():%Y%m%d-%H%M%S}.txt"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(text, encoding="utf-8")
            return folder / name
        except OSError:
            continue
    return Path(name)
