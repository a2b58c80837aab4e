"""Run every command of the docs as it is written, in a temporary folder, on the checkpoint that ships.

    python -m tools.docs.check [PAGE ...]

Each page gets a folder of its own with what `staged/` holds, a few pictures, LoRAs and checkpoints, and its titled
blocks as files. What takes hours, GPUs or foreign programs is named in left.toml, with the reason, and nowhere else.
Commands of tenuto are forks of this process, so that its libraries are imported once. A page that ran well is written
down in docs/commands.json (`record.py`); the pages of QUICK are also run by tests/docs.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.request import urlopen

import torch
from tools.docs.blocks import PAGES, ROOT, Command, blocks, commands, commands_in
from tools.docs.record import keep
from tools.docs.stage import FILES, PROJECT, set_up

from tenuto.cli.main import entry

QUICK = ("moving", "lora-files")
"""Pages whose commands take seconds each."""
LEFT = Path(__file__).with_name("left.toml")
SHOWN = 15
"""Lines of output that are shown of one that failed."""
ADDRESS = re.compile(r"http://[\d.]+:\d+")


def left() -> dict[str, str]:
    """Command -> why it is not run."""
    table = tomllib.loads(LEFT.read_text(encoding="utf-8"))
    return {command: entry["why"] for entry in table["left"] for command in entry["commands"]}


@dataclass(frozen=True)
class Outcome:
    """A command was run."""

    command: Command
    seconds: float
    error: str
    """What it said, if it failed."""


def asked(page: Path, skipped: Container[str]) -> list[str]:
    """The commands of a page that are run, in its order."""
    return [own.text for own in commands(page) if own.text not in skipped]


def main(names: Sequence[str]) -> int:
    """Run the pages' commands and write down what ran; the number that failed."""
    failed = 0
    for page, outcomes in run_pages(names):
        wrong = [own for own in outcomes if own.error]
        keep(page, {own.command.text: own.seconds for own in outcomes}, sound=not wrong)
        failed += len(wrong)
    print(f"{failed} failed" if failed else "all ran")
    return failed


def run_pages(names: Sequence[str]) -> Iterator[tuple[Path, list[Outcome]]]:
    """Each page of these names (or every one) that has commands to run, with what came of them."""
    skipped = left()
    torch.set_num_threads(1)  # the fork of a process whose OpenMP has begun threads waits for them for ever
    with tempfile.TemporaryDirectory(prefix="tenuto-docs-") as place:
        for page in PAGES:
            if (not names or page.stem in names) and asked(page, skipped):
                stage = set_up(Path(place) / page.stem, Path(place) / "home")
                yield page, list(_run_page(page, stage, Path(place) / "home", skipped))


def _run_page(page: Path, stage: Path, home: Path, skipped: dict[str, str]) -> Iterator[Outcome]:
    for block in blocks(page):
        if block.title:
            (stage / block.title).write_text(block.text + "\n", encoding="utf-8")
        if block.language == "sh":
            shutil.copy(FILES / PROJECT, stage)  # a block may import over it
        for command in commands_in(block) if block.language == "sh" else ():
            if command.text in skipped:
                print(f"left    {command}  ({skipped[command.text]})", flush=True)
                continue
            began = time.monotonic()
            error = _run(command.text, stage, home)
            seconds = time.monotonic() - began
            print(f"{'FAILED ' if error else 'ran    '} {command}  {seconds:.0f} s", flush=True)
            if error:
                print("\n".join(error.splitlines()[-SHOWN:]), flush=True)
            yield Outcome(command, seconds, error)


def _run(text: str, stage: Path, home: Path) -> str:
    """What it said, if it failed."""
    words = shlex.split(text)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "TENUTO_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
    }
    if words[:2] == ["tenuto", "import"] and "-o" in words:
        (stage / words[words.index("-o") + 1]).unlink(missing_ok=True)
    if words[:2] == ["tenuto", "web"]:
        return _serve([*words, "--port", "0"], stage, {**os.environ, **environment})
    with tempfile.TemporaryFile("w+") as said:
        status = (
            _fork(words, stage, environment, said) if words[0] == "tenuto" else _shell(text, stage, environment, said)
        )
        said.seek(0)
        return (said.read() or "failed silently") if status else ""


def _shell(text: str, stage: Path, environment: Mapping[str, str], said: IO[str]) -> int:
    command = subprocess.Popen(
        text, shell=True, cwd=stage, env={**os.environ, **environment}, stdout=said, stderr=subprocess.STDOUT
    )
    return command.wait()


def _fork(words: Sequence[str], stage: Path, environment: Mapping[str, str], said: IO[str]) -> int:
    """The status of a tenuto command that begins where this process is."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = 1
    try:
        os.chdir(stage)
        os.environ.update(environment)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(said.fileno(), stream.fileno())
        sys.argv = list(words)
        entry()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(status)


def _serve(words: Sequence[str], stage: Path, environment: Mapping[str, str]) -> str:
    """Start a server, ask it for its first page, end it."""
    with subprocess.Popen(
        words, cwd=stage, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        said = ""
        while not (address := ADDRESS.search(said)) and (line := server.stdout.readline()):
            said += line
        if address is None:
            return said or "ended silently"
        with urlopen(address[0], timeout=60) as answer:
            page = answer.read().decode()
        server.send_signal(signal.SIGINT)
        return "" if "tenuto" in page else page


if __name__ == "__main__":
    raise SystemExit(1 if main(sys.argv[1:]) else 0)
