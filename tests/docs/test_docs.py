"""What the docs tell a reader to type exists: commands, options, targets, settings; and what was run of
it (`make docs-check`) is what it says now."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import typer
import typer.main
from tools.docs.blocks import LANGUAGES, PAGES, ROOT, Block, Command, blocks, commands, hidden, mentions
from tools.docs.check import asked, left
from tools.docs.record import keep, named, recorded
from typer.core import TyperGroup

from tenuto.cli.main import app
from tenuto.project.file import make_project
from tenuto.work.sweep_file import load_sweep

COMMANDS = [command for page in PAGES for command in commands(page)]
MENTIONS = [command for page in PAGES for command in mentions(page)]
SETTINGS = [block for page in PAGES for block in blocks(page) if block.language == "toml"]
CONCEPT = {"concepts": [{"name": "c", "images": "pictures", "trigger": "zxq"}]}
FOREIGN = ("git", "ray", "cd", "export")
"""Programs that are not ours: what is asked of them is never run."""
TENUTO = typer.main.get_command(app)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_real(command: Command) -> None:
    words = shlex.split(command.text)
    if words[0] in FOREIGN:
        assert command.text in left()
    else:
        check(words, whole=True)


@pytest.mark.parametrize("command", MENTIONS, ids=str)
def test_a_mentioned_command_is_real(command: Command) -> None:
    check(re.sub(r"[…|<>]", " ", command.text).split(), whole=False)


def check(words: Sequence[str], *, whole: bool) -> None:
    """Whether what is typed exists; `whole`: with all that it must be given."""
    program, *rest = words
    if program == "tenuto":
        check_options(TENUTO, rest, whole=whole)
    elif program in ("torchrun", "accelerate"):
        check_options(TENUTO, rest[rest.index("tenuto") + 1 :], whole=whole)
    elif program == "python" and rest[0] == "-m":
        assert find_spec(rest[1]), f"no module {rest[1]}"
        if rest[1] == "tools.pocket":
            check_options(typer.main.get_command(import_module("tools.pocket.__main__").app), rest[2:], whole=whole)
        elif rest[1].startswith("benchmarks."):
            own = typer.Typer(add_completion=False)
            module = import_module(rest[1])
            own.command()((import_module(f"{rest[1]}.__main__") if hasattr(module, "__path__") else module).main)
            check_options(typer.main.get_command(own), rest[2:], whole=whole)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    else:
        assert words[:2] == ["pip", "install"], f"{program}: say in tests/docs how it is checked"
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"tenuto\[(\w+)\]", " ".join(rest))) <= set(extras)


def check_options(command: Any, words: Sequence[str], *, whole: bool) -> None:
    names = list(words)
    while isinstance(command, TyperGroup) and names and names[0].isalpha():
        assert names[0] in command.commands, f"no command {names[0]}"
        command = command.commands[names.pop(0)]
    if whole:
        command.make_context(str(command.name), names)
        return
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in names if word.startswith("-")} <= known


@pytest.mark.parametrize("block", SETTINGS, ids=lambda block: f"{block.page.name}:{block.line}")
def test_settings_are_of_the_schema(block: Block, tmp_path: Path) -> None:
    """A block is a sweep, a project, or a part of one."""
    table = tomllib.loads(block.text)
    if "project" not in table:
        make_project({**CONCEPT, **table}, str(block.page))
        return
    (tmp_path / table["project"]).write_text(tomli_w.dumps(CONCEPT))
    (tmp_path / "ask.toml").write_text(block.text)
    assert len(load_sweep(tmp_path / "ask.toml").arms) > 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_is_unnamed_and_no_command_hides(page: Path) -> None:
    assert [(block.line, block.language) for block in blocks(page) if block.language not in LANGUAGES] == []
    assert list(hidden(page)) == [], "put commands into a block that begins with ```sh"


def test_what_is_left_out_of_the_check_stands_in_the_docs() -> None:
    assert left().keys() <= {command.text for command in COMMANDS}
    assert all(why.strip() for why in left().values())


@pytest.mark.parametrize("page", [page for page in PAGES if asked(page, left())], ids=named)
def test_what_was_run_is_what_stands_there(page: Path) -> None:
    again = f"python -m tools.docs.check {page.stem}"
    found = recorded().get(named(page))
    if found is None:
        pytest.skip(f"nobody has run its commands yet: {again}")
    assert list(found["seconds"]) == list(dict.fromkeys(asked(page, left()))), f"since {found['date']}: {again}"


def test_only_pages_that_have_commands_are_written_down() -> None:
    assert recorded().keys() <= {named(page) for page in PAGES if asked(page, left())}


def test_a_page_is_written_down_when_all_of_it_ran(tmp_path: Path) -> None:
    page, other, file = PAGES[0], PAGES[1], tmp_path / "commands.json"
    assert recorded(file) == {}
    keep(page, {"tenuto audit a.toml": 1.234}, sound=True, file=file)
    keep(other, {"tenuto run a.toml": 50.0}, sound=True, file=file)
    assert recorded(file)[named(page)]["seconds"] == {"tenuto audit a.toml": 1.2}
    assert {"torch", "python"} <= recorded(file)[named(page)]["versions"].keys()
    keep(page, {"tenuto audit a.toml": 1.0}, sound=False, file=file)
    assert list(recorded(file)) == [named(other)], "what fails now is not said to have run"
