"""A project for tests of the page, what lies in its file, and its queue."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import psutil

from tenuto.evaluation.record import Comparison
from tenuto.web.jobs import Job
from tests.evaluation.made_up import made_up

PROJECT = """
[base]
model = "pocket"
[[concepts]]
name = "first"
images = "one"
trigger = "zxq"
[[concepts]]
name = "second"
images = "two"
trigger = "wvu"
[prior]
per_image = 200
ratio = 0.25
prompts = "match"
[regularizers.prior_preservation]
weight = 0.02
[training]
steps = 1
"""
HELD = {"output_preservation": {"weight": 0.4}, "prior_preservation": {"weight": 3}}
ARMS = {"plain": {"regularizers": {}}, "held": {"regularizers": HELD}}
HTML = "text/html"


def table(workspace: Path) -> dict[str, Any]:
    return tomllib.loads((workspace / "p.toml").read_text())


def occupy(workspace: Path) -> None:
    """Something runs already, so that what is put into the queue waits."""
    folder = workspace / "runs" / ".jobs"
    folder.mkdir(parents=True)
    job = Job(
        id="0", key="other", what="run", file="other.toml", folder=str(workspace / "runs" / "other"),
        state="running", pid=os.getpid(), born=psutil.Process().create_time(),
    )  # fmt: skip
    (folder / "0.json").write_text(job.model_dump_json())


def waiting(workspace: Path) -> list[Job]:
    jobs = [Job.model_validate_json(file.read_text()) for file in (workspace / "runs" / ".jobs").glob("*.json")]
    return [job for job in jobs if job.state == "waiting"]


def compared(workspace: Path, arms: dict[str, Any] | None = None, **settings: str) -> Comparison:
    """The project was compared, with these settings of the comparison and of its arms."""
    folder = workspace / "runs" / "p"
    comparison, _ = made_up(folder)
    new = {"settings": {**comparison.settings, **settings}} | ({"arm_settings": arms} if arms else {})
    comparison = comparison.model_copy(update=new)
    comparison.save(folder / "comparison.json")
    return comparison
