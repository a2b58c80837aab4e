"""The event file: what another process learns of a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tenuto.events import EVENT_FILE, Event, EventFile, note, progress
from tenuto.words import Stopped, TenutoError


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / EVENT_FILE).read_text().splitlines()]


def test_between_begin_and_end(tmp_path: Path) -> None:
    with EventFile(tmp_path) as listener:
        note(listener, "hello")
        for done in range(1, 101):
            progress(listener, "pieces", done, 100)
        listener(Event("log", {"update": 1}))
    told = lines(tmp_path)
    assert [told[0]["kind"], told[1]["kind"], told[-1]["kind"]] == ["begin", "note", "end"]
    assert told[0]["pid"] == os.getpid()
    assert told[-1]["how"] == "done"
    seen = [line["done"] for line in told if line["kind"] == "progress"]
    assert seen[0] == 1
    assert seen[-1] == 100, "the last is always told"
    assert len(seen) < 10, "not every piece makes a line"
    assert not any(line["kind"] == "log" for line in told)


@pytest.mark.parametrize(
    ("error", "how"),
    [(Stopped("later"), "stopped"), (KeyboardInterrupt(), "stopped"), (TenutoError("x: wrong; mend it"), "failed")],
)
def test_how_it_ended(tmp_path: Path, error: BaseException, how: str) -> None:
    with pytest.raises(type(error)), EventFile(tmp_path):
        raise error
    assert (lines(tmp_path)[-1]["how"], lines(tmp_path)[-1]["text"]) == (how, str(error))


def test_a_refusal_makes_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def refuse() -> None:
        with EventFile(folder) as listener:
            note(listener, "reading")
            raise TenutoError("bad")

    with pytest.raises(TenutoError):
        refuse()
    assert not folder.exists()
    with EventFile(folder) as listener:
        note(listener, "reading")
        progress(listener, "pieces", 1, 2)
    assert [line["kind"] for line in lines(folder)] == ["begin", "note", "progress", "end"]


def test_half_a_line_of_a_killed_process_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / EVENT_FILE).write_text('{"kind": "begin", "pid": 1, "at": 1.0}\n{"kind": "prog')
    with EventFile(tmp_path):
        pass
    told = (tmp_path / EVENT_FILE).read_text().splitlines()
    assert told[1] == '{"kind": "prog'
    assert [json.loads(line)["kind"] for line in told[2:]] == ["begin", "end"]
