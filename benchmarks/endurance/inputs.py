"""Damaged inputs for every reader: each is read, or refused in one line. Everything else is a finding.

A case is "reader:number", and its number decides its damage, so that `--case "reader:number"` makes it again. Cases run
one after the other in a copy (fork) of this process that may be killed: by damage that crashes a library, by a hang, or
by the limit on memory.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import torch

from benchmarks.endurance import examples
from benchmarks.endurance.lines import append_line, read_lines
from benchmarks.endurance.mutations import mutated
from benchmarks.endurance.readers import READERS
from tenuto.words import TenutoError

SECONDS = 5.0
"""Of processor time for one input; more is a hang."""
SILENCE = 240.0
"""Seconds of wall time without a result, after which the process is ended: a hang within a library."""
MORE_ADDRESSES = 3 << 30
"""Bytes beyond what the process holds at the beginning: asking for more fails."""
MORE_MEMORY = 400 << 10
"""KiB of resident memory by which one input may raise the peak."""


class Hanging(BaseException):
    """An input that takes too long. No reader catches it by accident."""


@dataclass(frozen=True)
class Result:
    """What came of one case."""

    case: str
    ended: str
    """read, refused or found."""
    what: str = ""
    """The line of a refusal; of a finding what went wrong."""


def damage_inputs(folder: Path, count: int) -> list[Result]:
    """So many cases, spread evenly over the readers. Those that the folder knows are not run again; findings are."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "inputs.jsonl"
    known = results(log)
    wanted = [case for case in cases(count) if case not in known or known[case].ended == "found"]
    examples.let_tiny_files_be_known()
    for name in READERS:
        example(folder, name)
    while wanted:
        _in_a_copy(folder, log, wanted)
        known = results(log)
        wanted = wanted[next((at for at, case in enumerate(wanted) if case == _current(folder)), -1) + 1 :]
        print(f"{len(known)} inputs, {sum(own.ended == 'found' for own in known.values())} findings", flush=True)
    return [known[case] for case in cases(count)]


def cases(count: int) -> list[str]:
    names = list(READERS)
    return [f"{names[n % len(names)]}:{n // len(names)}" for n in range(count)]


def results(log: Path) -> dict[str, Result]:
    """Case -> its last result."""
    return {line["case"]: Result(**line) for line in read_lines(log)}


def summary(outcomes: Sequence[Result]) -> dict[str, Any]:
    per_reader: dict[str, Counter[str]] = {}
    for own in outcomes:
        per_reader.setdefault(own.case.rpartition(":")[0], Counter())[own.ended] += 1
    return {
        "inputs": len(outcomes),
        **Counter(own.ended for own in outcomes),
        "readers": {name: dict(counts) for name, counts in per_reader.items()},
        "findings": {own.case: own.what for own in outcomes if own.ended == "found"},
    }


# -- one case ---------------------------------------------------------------------------------------------------------


def example(folder: Path, name: str) -> Path:
    """The valid example of a reader, made once, and read once: what cannot be read whole proves nothing damaged."""
    place = folder / "examples" / name.replace(" ", "-").replace("/", "-")
    if not place.is_dir():
        half = place.with_name(f"{place.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        READERS[name].make(half)
        trial = folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(half, trial)
        READERS[name].read(trial)
        shutil.rmtree(trial)
        half.rename(place)
    return place


def run_case(folder: Path, case: str, place: Path) -> Result:
    """Damage a copy of the example in `place`, read it, and look at what is left."""
    name, _, number = case.rpartition(":")
    reader, whole, rng = READERS[name], example(folder, name), Random(case)
    files = sorted({path for pattern in reader.files for path in whole.glob(pattern) if path.is_file()})
    chosen = files[int(number) % len(files)].relative_to(whole)
    shutil.rmtree(place, ignore_errors=True)
    _copy(whole, place, chosen)
    (place / chosen).write_bytes(mutated(chosen, (whole / chosen).read_bytes(), rng))
    before, peak = _files(place), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        reader.read(place)
        ended, what = "read", ""
    except TenutoError as error:
        ended, what = "refused", str(error)
    except Hanging:
        ended, what = "found", f"hangs: {_where()}"
    except BaseException as error:
        ended, what = "found", f"{type(error).__name__}: {str(error)[:150]} ({_where()})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    left = [str(path) for path in _files(place) - before if ended == "refused" or path.suffix == ".part"]
    if ended == "refused" and ("\n" in what or not what.strip()):
        ended, what = "found", f"not one line: {what!r}"
    elif ended != "found" and grown > MORE_MEMORY:
        ended, what = "found", f"took {grown >> 10} MiB"
    elif ended != "found" and left and not _several(name):
        ended, what = "found", f"left {left[:3]} behind: {what}"
    return Result(case, ended, what[:300])


def _several(name: str) -> bool:
    """Whether several commands are tried on one input, so that one may write and another refuse."""
    return name.startswith(("LoRA", "checkpoint", "captions"))


def _copy(whole: Path, place: Path, chosen: Path) -> None:
    """A copy; folders that hold nothing damaged are links."""
    place.mkdir(parents=True)
    for path in whole.iterdir():
        if path.is_dir() and chosen.parts[0] != path.name and path.name != "out":
            (place / path.name).symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, place / path.name)
        else:
            shutil.copyfile(path, place / path.name)


def _files(place: Path) -> set[Path]:
    return {path.relative_to(place) for path in place.rglob("*") if path.is_file()}


def _where() -> str:
    """The last lines of tenuto's and of the reader that the error came through."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "/tenuto/" in frame.filename]
    return " < ".join(ours[::-1][:3]) or "outside"


# -- in a copy of the process -----------------------------------------------------------------------------------------


def _in_a_copy(folder: Path, log: Path, wanted: Sequence[str]) -> None:
    """Run cases until one kills the copy, or all are done; the one at which it died is a finding."""
    (folder / "current").unlink(missing_ok=True)
    process = os.fork()
    if not process:
        status = 1
        try:
            os.setsid()
            os.chdir(folder)
            _limit()
            for case in wanted:
                (folder / "current").write_text(case)
                append_line(log, asdict(run_case(folder, case, folder / "case")))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    size, since = -1, time.monotonic()
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.2)
        if (now := log.stat().st_size if log.exists() else 0) != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > SILENCE:
            os.killpg(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status > 0:
        raise SystemExit("the proof itself failed, see above")
    if status < 0:
        append_line(
            log, asdict(Result(_current(folder), "found", f"ended the process: {signal.Signals(-status).name}"))
        )


def _current(folder: Path) -> str:
    return (folder / "current").read_text() if (folder / "current").exists() else ""


def _limit() -> None:
    """Bounds on memory and time, and a home of its own."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MORE_ADDRESSES, held + MORE_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["TENUTO_HOME"] = str(Path("home").absolute())
    torch.set_num_threads(1)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise Hanging


def show_case(folder: Path, case: str) -> None:
    """One case again, its file kept, with the whole traceback."""
    examples.let_tiny_files_be_known()
    name = case.rpartition(":")[0]
    example(folder, name)
    os.chdir(folder)
    _limit()
    print(json.dumps(asdict(run_case(folder, case, folder / "shown")), indent=1))
    print(f"the damaged files: {folder / 'shown'}")
    READERS[name].read(folder / "shown")
