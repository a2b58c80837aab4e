"""Plans on the terminal: what will be made, from what, at what cost."""

from __future__ import annotations

import json
from collections import Counter

import typer
from rich.table import Table

from tenuto.cli.terminal import console, styled
from tenuto.prior.audit import AuditReport
from tenuto.prior.build import lacking
from tenuto.prior.prompts import partial_filters
from tenuto.prior.store import PriorStore
from tenuto.work.prepare import Prepared


def show_audit(report: AuditReport, as_json: bool) -> None:
    """The plan of law 2 and every problem."""
    if as_json:
        typer.echo(json.dumps(_plain(report)))
        return
    screen = console()
    lines = Table("concept", "pictures", "prompts", "pool", "ratio", "weight", "prior rows", "unused", title="the plan")
    for line in report.concepts:
        lines.add_row(
            line.concept,
            str(line.images),
            f"{line.mode}, {line.distinct_prompts} different",
            str(line.pool),
            f"{line.ratio:g}",
            "-" if line.weight is None else f"{line.weight:g}",
            f"{line.prior_rows:.0f}",
            str(line.unused),
        )
    screen.print(lines)
    buckets = Table("concept", "bucket", "pictures", "prior images", title="buckets")
    for own in report.buckets:
        buckets.add_row(own.concept, str(own.bucket), str(own.images), str(own.prior))
    screen.print(buckets)
    for sentence in (*report.sentences, *report.memory):
        screen.print(sentence)
    for partial in report.partial:
        screen.print(str(partial))
    for problem in report.problems:
        colour = "red" if problem.level == "error" else "yellow"
        screen.print(styled((f"{problem.level} ", colour), str(problem)))
    if report.ok:
        screen.print("nothing found that would spoil the result", style="green")


def _plain(report: AuditReport) -> dict[str, object]:
    return {
        "problems": [vars(problem) for problem in report.problems],
        "concepts": [{**vars(line), "unused": line.unused} for line in report.concepts],
        "buckets": [{**vars(line), "bucket": str(line.bucket)} for line in report.buckets],
        "arithmetic": list(report.sentences),
        "memory": list(report.memory),
        "used": list(report.used),
        "unused": list(report.unused),
    }


def show_prior(prepared: Prepared, store: PriorStore, as_json: bool) -> None:
    """The prior plan: counts per concept and bucket, prompts with what was removed and added, the cost."""
    plan = prepared.plan
    missing = lacking(plan, prepared.base, store, states=prepared.project.states())
    todo = [image for batch in missing for image in batch.images]
    there, forwards = len(plan.images) - len(todo), len(todo) * plan.sampler.forwards()
    if as_json:
        images = [{**vars(image), "bucket": str(image.bucket)} for image in plan.images]
        typer.echo(json.dumps({"images": images, "there": there, "forwards": forwards, "store": str(store.folder)}))
        return
    screen = console()
    counts = Table("concept", "bucket", "images", title="prior images")
    for (concept, bucket), count in plan.counts().items():
        counts.add_row(concept, str(bucket), str(count))
    screen.print(counts)
    prompts = Table("prompt", "removed", "added", "images", title="prior prompts")
    uses = Counter((prompt.text, prompt.removed, prompt.added) for prompt in prepared.prompts)
    for (text, removed, added), count in uses.items():
        prompts.add_row(text, ", ".join(removed), ", ".join(added), str(count))
    screen.print(prompts)
    for partial in partial_filters(prepared.prompts, prepared.project.prior):
        screen.print(str(partial))
    pace = store.pace()
    minutes = f", about {plan.minutes(pace, todo):.1f} minutes at the pace of earlier builds" if pace else ""
    screen.print(
        f"{len(plan.images)} images, {there} of them there already; {len(todo)} to make = {forwards:,} forwards of the "
        f"base{minutes}. Store: {store.folder}",
    )
