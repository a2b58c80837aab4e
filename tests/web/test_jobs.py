"""Runs as processes of their own: queued on disk, stopped as by Ctrl-C, found again by another server."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tenuto.events import Event, EventFile
from tenuto.project.file import load_project, run_folder
from tenuto.web.jobs import Job, Jobs, number_after
from tenuto.web.places import place_of, places
from tenuto.web.roots import Roots
from tenuto.web.story import story_of
from tenuto.words import TenutoError
from tests.jobs import CONCEPT, plain_pictures, until

PROJECT = f"""{CONCEPT}trigger = "zxq"
[prior]
per_image = 1
store = "store"
[prior.sampler]
steps = 2
[training]
steps = 100000
batch = 1
save_every = 5
watch_every = 0
[training.adapter]
rank = 2
[arms]
plain = false
"""


@pytest.fixture
def roots(tiny_folder: Path, tmp_path: Path) -> Roots:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 2)
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(PROJECT.format(model=tiny_folder))
    return Roots.of([tmp_path, tiny_folder])


def updates(roots: Roots, key: str) -> int:
    log = roots.workspace / "runs" / key / "held" / "seed-0" / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def test_a_run_outlives_its_server_stops_and_goes_on(roots: Roots) -> None:
    one, two = place_of(roots, "one"), place_of(roots, "two")
    jobs = Jobs(roots)
    first, second = jobs.add(one, "train"), jobs.add(two, "train")
    with pytest.raises(TenutoError, match="already"):
        jobs.add(one, "run")
    assert [job.state for job in jobs.all()] == ["running", "waiting"], "one at a time"
    until(lambda: updates(roots, "one") > 8)

    other = Jobs(roots)  # another server: it knows nothing but the disk
    current = other.current()
    assert current is not None
    assert current.id == first.id
    assert psutil.Process(current.pid).ppid() == os.getpid()
    other.stop(first.id)
    until(lambda: (other.look(), other.get(first.id).state != "running")[1])
    assert other.get(first.id).state == "stopped"
    assert "goes on" in other.get(first.id).text
    until(lambda: (other.look(), other.get(second.id).state == "running")[1])  # the next one begins

    until(lambda: updates(roots, "two") > 2)
    os.kill(other.get(second.id).pid, signal.SIGKILL)
    until(lambda: (other.look(), jobs.look(), other.get(second.id).state != "running")[2])
    assert other.get(second.id).state == "killed"
    assert story_of(two.folder).how == "", "no last word"

    other.forget(first.id)
    assert [job.id for job in other.all()] == [second.id]


def test_a_waiting_run_can_be_taken_out(roots: Roots) -> None:
    jobs = Jobs(roots)
    jobs.folder.mkdir(parents=True)
    place = place_of(roots, "one")
    job = Job(id="1", key="one", what="train", file=str(place.file), folder=str(place.folder))
    (jobs.folder / "1.json").write_text(job.model_dump_json())
    assert jobs.stop("1").state == "stopped"
    jobs.look()
    assert jobs.current() is None
    with pytest.raises(TenutoError, match="not running"):
        jobs.stop("1")
    with pytest.raises(TenutoError, match="no such run"):
        jobs.stop("../2")


def test_a_run_of_the_terminal_is_not_started_twice(roots: Roots) -> None:
    place = place_of(roots, "one")
    place.folder.mkdir(parents=True)
    with EventFile(place.folder), pytest.raises(TenutoError, match=f"process {os.getpid()}"):
        Jobs(roots).add(place, "train")


@pytest.fixture
def long_run(roots: Roots) -> Path:
    """What a run of the terminal, here of this process, has told in an hour: its `begin` lies far back."""
    folder = place_of(roots, "one").folder
    with EventFile(folder) as tell:
        tell(Event("stage", {"name": "training"}))
        tell(Event("warning", {"text": "look at this"}))
        tell(Event("progress", {"what": "updates", "done": 0, "total": 9000}))
        begun = (folder / "events.jsonl").read_text()
    at = time.time()
    lines = [
        json.dumps({"at": at + i, "kind": "progress", "what": "updates", "done": i, "total": 9000}) for i in range(6000)
    ]
    (folder / "events.jsonl").write_text(begun + "\n".join(lines) + "\n")
    assert (folder / "events.jsonl").stat().st_size > 400_000
    return folder


def test_a_long_run_of_the_terminal_is_still_seen(roots: Roots, long_run: Path) -> None:
    story = story_of(long_run)
    assert (story.stage, story.done, story.total, story.pid) == ("training", 5999, 9000, os.getpid())
    assert story.notes == [("warning", "look at this")]
    assert story.left == pytest.approx(3001)
    assert story.lives()
    with pytest.raises(TenutoError, match=f"process {os.getpid()}"):
        Jobs(roots).add(place_of(roots, "one"), "train")


def test_the_queue_waits_for_a_run_of_the_terminal(roots: Roots, long_run: Path) -> None:
    jobs = Jobs(roots)
    jobs.folder.mkdir(parents=True)
    job = Job(id="1", key="one", what="train", file=str(place_of(roots, "one").file), folder=str(long_run))
    (jobs.folder / "1.json").write_text(job.model_dump_json())
    jobs.look()
    assert jobs.get("1").state == "waiting"


def test_how_a_long_run_ended_is_found(roots: Roots, long_run: Path) -> None:
    jobs = Jobs(roots)
    jobs.folder.mkdir(parents=True)
    end = {"at": 5.0, "kind": "end", "how": "failed", "text": "the disk is full"}
    with (long_run / "events.jsonl").open("a") as file:
        file.write(json.dumps(end) + "\n")
    job = Job(
        id="1", key="one", what="train", file="one.toml", folder=str(long_run), state="running", pid=os.getpid(),
        born=1.0,
    )  # fmt: skip
    (jobs.folder / "1.json").write_text(job.model_dump_json())
    jobs.look()
    own = jobs.get("1")
    assert (own.state, own.text, own.ended) == ("failed", "the disk is full", 5.0)


def test_a_run_that_cannot_be_noted_is_not_left_alone(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, write = Jobs(roots), Jobs._write

    def full(self: Jobs, job: Job) -> Job:
        if job.state == "running":
            raise TenutoError("the disk is full")
        return write(self, job)

    monkeypatch.setattr(Jobs, "_write", full)
    with pytest.raises(TenutoError, match="full"):
        jobs.add(place_of(roots, "one"), "train")
    (process,) = jobs._ours.values()
    assert process.poll() is not None
    assert [job.state for job in jobs.all()] == ["waiting"]


def test_a_number_that_another_process_has_got_is_not_ours(roots: Roots) -> None:
    jobs = Jobs(roots)
    jobs.folder.mkdir(parents=True)
    job = Job(
        id="1", key="one", what="train", file="one.toml", folder=str(roots.workspace / "runs" / "one"),
        state="running", pid=os.getpid(), born=1.0,
    )  # fmt: skip
    (jobs.folder / "1.json").write_text(job.model_dump_json())
    with pytest.raises(TenutoError, match="not running"):
        jobs.stop("1")
    jobs.look()
    assert jobs.get("1").state == "killed"


def test_two_of_one_millisecond_are_two() -> None:
    first = Job(id=number_after([], 5.0), key="one", what="train", file="one.toml", folder="runs/one")
    assert first.id == "00000000005000"
    assert number_after([first, first.model_copy(update={"id": "x"})], 5.0) == "00000000005001"
    assert number_after([first], 6.0) == "00000000006000"


def test_projects_of_the_workspace(roots: Roots) -> None:
    (roots.workspace / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert {place.key for place in places(roots)} == {"one", "two"}
    named = roots.workspace / "two.toml"
    named.write_text('name = "nightly"\n' + named.read_text())
    assert place_of(roots, "two").folder == roots.workspace / run_folder(named, load_project(named).name)
    assert place_of(roots, "two").folder.name == "nightly"
    for key in ("..", "../one", "three", "one/../two", ""):
        with pytest.raises(TenutoError, match="no such project"):
            place_of(roots, key)


def test_what_cannot_be_understood_of_a_run_is_left_out(tmp_path: Path) -> None:
    events: list[dict[str, object]] = [
        {"kind": "begin", "pid": "x", "at": 1}, {"kind": "begin", "pid": 10**30, "at": 2}, {"kind": "note", "at": {}},
        {"kind": "note", "text": "hello", "at": 3}, {"kind": "progress", "what": "a", "done": 1, "at": 4},
        {"kind": "progress", "what": "b", "done": 1, "total": 2, "at": 5},
        {"kind": "progress", "what": "b", "done": 1e999, "total": 2, "at": 6},
    ]  # fmt: skip
    lines = [json.dumps(event) for event in events]
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, "[" * 50_000, "[1]"]) + "\n")
    story = story_of(tmp_path)
    assert (story.what, story.done, story.notes) == ("b", 1, [("note", "hello")])
    assert not story.lives()
