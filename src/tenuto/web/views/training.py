"""The Training tab, the queue, and what the page asks for every two seconds."""

from __future__ import annotations

from typing import Any, Literal

from starlette.responses import JSONResponse, Response

from tenuto.web.core import Answer, Call, picture_url
from tenuto.web.jobs import Job
from tenuto.web.places import Place
from tenuto.web.story import Story, budget_of, clock, curves_of, made_of, reports_of, story_of
from tenuto.web.views.prior import gallery
from tenuto.words import Settings


class Start(Settings):
    """What to put into the queue."""

    what: Literal["run", "prior", "train"] = "run"


class Which(Settings):
    """A job of the queue."""

    job: str


def training(call: Call) -> Response:
    every = call.project.training.sample_every
    return call.page("training.html.j2", place=call.place, tab="training", every=every)


def start(call: Call, body: Start) -> Answer:
    """Start, or go on: the same command."""
    job = call.studio.jobs.add(call.place, body.what)
    waits = call.studio.jobs.get(job.id).state == "waiting"
    return {"say": "in the queue; it starts when the one before it has ended" if waits else "started"}


def stop(call: Call, body: Which) -> Answer:
    job = call.studio.jobs.stop(body.job)
    text = "taken out of the queue" if job.state == "stopped" else "stopping at the next safe place"
    return {"say": text, "reload": job.state == "stopped"}


def forget(call: Call, body: Which) -> Answer:
    call.studio.jobs.forget(body.job)
    return {"reload": True}


def runs(call: Call) -> Response:
    return call.page("runs.html.j2", jobs=list(reversed(call.studio.jobs.all())))


def live(call: Call) -> Response:
    """Where the project's work stands: job, stage, curves, pictures."""
    place, project = call.place, call.project
    call.studio.jobs.look()
    job = call.studio.jobs.of(place.key)
    story = _of_this_run(job, story_of(place.folder))
    answer: dict[str, Any] = {"job": _told(job, story), **_story(place, story)}
    if call.asked("prior"):
        seen = call.studio.watcher.look(project)
        answer["prior"] = [
            {"id": own["path"].stem, "url": picture_url(own["path"], 256), "text": own["prompt"]}
            for own in gallery(place, seen)
        ]
    if call.asked("curves"):
        logs = call.studio.logs
        answer["curves"] = {
            name: [{"arm": own.arm, "seed": own.seed, "points": own.points} for own in some]
            for name, some in curves_of(project, place.folder, logs).items()
        }
        answer["budget"] = budget_of(project)
        answer["made"] = [
            {
                "arm": own.arm,
                "seed": own.seed,
                "updates": own.updates,
                "total": own.total,
                "lora": f"/p/{place.key}/lora/{own.arm}/{own.seed}" if own.lora else None,
                "samples": [{"name": file.stem, "url": picture_url(file)} for file in own.samples[-6:]],
            }
            for own in made_of(project, place.folder, logs)
        ]
    return JSONResponse(answer)


def _of_this_run(job: Job | None, story: Story) -> Story:
    """Until a run of the queue says its first word, its folder tells of the one before it."""
    silent = job is not None and (job.state == "waiting" or (job.state == "running" and story.begun < job.started))
    return Story() if silent else story


def _told(job: Job | None, story: Story) -> dict[str, Any] | None:
    """The job that the story is of. What was started in the terminal is a running one without a number."""
    busy = job is not None and job.state in ("waiting", "running")
    if not busy and story.lives():
        return {"id": "", "what": "run", "state": "running", "text": "", "stop_asked": False}
    if job is None or (not busy and story.begun > job.ended):
        return None
    return job.model_dump(include={"id", "what", "state", "text", "stop_asked"})


def _story(place: Place, story: Story) -> dict[str, Any]:
    return {
        "stage": story.stage,
        "what": story.what,
        "done": story.done,
        "total": story.total,
        "left": clock(story.left),
        "notes": [{"kind": kind, "text": text} for kind, text in story.notes],
        "how": story.how or ("killed" if story.pid and not story.lives() else ""),
        "text": story.text,
        "report": bool(reports_of(place.folder)),
    }
