from __future__ import annotations

from pathlib import Path

import pytest

from tenuto.data.dataset import Concept, Item
from tenuto.data.problems import Problem
from tenuto.data.schedule import Usage, plan_updates, usage
from tenuto.prior.audit import AuditReport, ConceptPlan, TrainingPlan, audit
from tenuto.prior.prompts import PriorPrompt
from tenuto.words import Role, Size

SQUARE, TALL = Size(128, 128), Size(96, 160)
EYES = Concept("eyes", trigger="zxq", class_word="1girl")


def item(
    number: int,
    caption: str = "zxq, 1girl",
    bucket: Size = SQUARE,
    concept: str = "eyes",
    role: Role = "instance",
    *,
    size: Size | None = None,
    content: str = "",
    repeats: int = 1,
    look: int = 0,
) -> Item:
    name, path = f"{concept}-{role}-{number}", Path(f"in/{concept}{number}.png")
    content = content or f"{concept}{number}"
    return Item(name, path, caption, concept, bucket, size or bucket, repeats, role, content, look)


TWENTY_ROWS = TrainingPlan(batch=4, epochs=5, weight=0.25)


def report(
    items: list[Item] | None = None,
    *,
    plans: list[ConceptPlan] | None = None,
    pool: dict[tuple[str, Size], int] | None = None,
    training: TrainingPlan = TWENTY_ROWS,
    problems: list[Problem] | None = None,
    prompts: list[PriorPrompt] | None = None,
    foreign: list[Item] | None = None,
    used: Usage | None = None,
) -> AuditReport:
    """Four clean pictures, five epochs, a pool of twenty: nothing to complain of. Tests change one thing."""
    return audit(
        items if items is not None else [item(n) for n in range(4)],
        problems or [],
        plans or [ConceptPlan(EYES)],
        prompts if prompts is not None else [PriorPrompt("1girl", "eyes0", "eyes", SQUARE, caption="1girl")],
        pool if pool is not None else {("eyes", SQUARE): 20},
        training,
        foreign=foreign or [],
        usage=used,
    )


def told(found: AuditReport, level: str, *words: str) -> bool:
    return any(all(word in str(problem) for word in words) for problem in found.problems if problem.level == level)


def test_a_clean_project() -> None:
    found = report()
    assert found.problems == ()
    assert found.ok
    assert found.sentences == (
        "eyes: 4 pictures x 1 repeats = 4 rows per epoch",
        "run: 5 epochs x 4 rows = 20 instance rows; / batch 4 = 5 updates",
        "eyes: 20 instance rows x ratio 1 = 20 prior rows (weight 0.25); each of 20 prior images used once",
    )
    (line,) = found.concepts
    assert (line.pool, line.ratio, line.weight, line.prior_rows, line.unused) == (20, 1.0, 0.25, 20, 0)
    assert [(bucket.bucket, bucket.images, bucket.prior) for bucket in found.buckets] == [(SQUARE, 4, 20)]


def test_errors_come_first_and_decide() -> None:
    found = report(problems=[Problem("warning", "a", "b", "c"), Problem("error", "x", "y", "z")])
    assert [problem.level for problem in found.problems] == ["error", "warning"]
    assert not found.ok


def test_many_files_are_one_finding() -> None:
    found = report(problems=[Problem("error", f"in/{n}.png", "no caption", "write one") for n in range(12)])
    (problem,) = found.problems
    assert "12 files: 0.png, 1.png, 2.png" in problem.file


@pytest.mark.parametrize(
    ("items", "level", "words"),
    [
        ([], "error", ("no usable picture",)),
        ([item(0, "1girl"), item(1, "1girl, hat")], "error", ("trigger 'zxq' stands in no caption",)),
        ([item(0), item(1, "1girl")], "warning", ("eyes1.png", "without the trigger")),
        ([item(0, "zxq"), item(1, "zxq, hat")], "warning", ("class word '1girl' stands in no caption",)),
        ([item(0), item(1, content="eyes0")], "warning", ("eyes1.png", "same file as in/eyes0.png")),
        ([item(0, look=2**200 - 1), item(1, look=2**199 - 1)], "warning", ("eyes1.png", "looks like")),
        ([item(0), item(1, bucket=TALL)], "warning", ("bucket 96x160 has no prior image",)),
        ([item(0, size=Size(64, 64))], "warning", ("64x64 is enlarged to 128x128",)),
    ],
)
def test_pictures_and_captions(items: list[Item], level: str, words: tuple[str, ...]) -> None:
    assert told(report(items), level, *words)


def test_pictures_that_differ_are_no_copies() -> None:
    assert not told(report([item(0, look=2**200 - 1), item(1, look=2**150 - 1)]), "warning", "looks like")


@pytest.mark.parametrize(
    ("plan", "level", "words"),
    [
        (ConceptPlan(Concept("eyes", "style", trigger="zxq")), "warning", ("style", "nearly halted", "random")),
        (ConceptPlan(Concept("eyes")), "warning", ("no trigger",)),
        (
            ConceptPlan(Concept("eyes", trigger="zxq", class_word="zxq girl")),
            "error",
            ("class word", "holds the trigger"),
        ),
        (ConceptPlan(Concept("eyes", trigger="zxq"), captions="class"), "error", ("class word, which is empty",)),
        (ConceptPlan(EYES, ratio=0), "warning", ("20 prior images, none used", "ratio is 0")),
        (ConceptPlan(EYES, ratio=0.5), "warning", ("10 of 20 prior images are never used",)),
        (ConceptPlan(EYES, ratio=0.125, fewest=0.25), "warning", ("few rows of a high weight (ratio 0.125)", "unset")),
        (ConceptPlan(EYES, ratio=5), "warning", ("20 prior images for 100 prior rows", "5.0 times")),
    ],
)
def test_concepts(plan: ConceptPlan, level: str, words: tuple[str, ...]) -> None:
    assert told(report(plans=[plan]), level, *words)


def test_a_style_needs_no_trigger_and_random_is_fine() -> None:
    found = report(plans=[ConceptPlan(Concept("eyes", "style"), mode="random")])
    assert found.problems == ()


def test_no_pool() -> None:
    assert told(report(pool={}), "error", "no prior images", "ratio")
    assert report(plans=[ConceptPlan(EYES, mode="none", ratio=0)], pool={}).ok


def test_a_shared_pool_serves() -> None:
    assert report(pool={("", SQUARE): 20}).problems == ()
    assert told(report(pool={("eyes", SQUARE): 20, ("hat", SQUARE): 3}), "warning", "3 prior images", "'hat'")


def test_leaks() -> None:
    leak = PriorPrompt("1girl, ZXQ", "eyes0", "eyes", SQUARE, caption="1girl")
    assert told(report(prompts=[leak]), "error", "leaks")
    assert told(report(prompts=[PriorPrompt("", "eyes0", "eyes", SQUARE)]), "warning", "1 prompts are empty")


def test_reg_folder() -> None:
    reg = [item(0, "1girl, zxq", role="prior"), item(1, "", role="prior")]
    found = report(foreign=reg)
    assert told(found, "error", "reg caption holds the trigger")
    assert told(found, "warning", "without a caption")
    assert told(found, "warning", "unknown origin")


def test_several_concepts() -> None:
    hat = Concept("hat", trigger="qvx")
    items = [item(0), item(1, "qvx, 1girl", concept="hat")]
    pool = {("eyes", SQUARE): 5, ("hat", SQUARE): 5}
    assert report(items, plans=[ConceptPlan(EYES), ConceptPlan(hat)], pool=pool).problems == ()
    off = [ConceptPlan(EYES, mode="none", ratio=0), ConceptPlan(hat, mode="none", ratio=0)]
    assert report(items, plans=off, pool={}).problems == ()


@pytest.mark.parametrize(
    ("training", "level", "words"),
    [
        (TrainingPlan(batch=0, epochs=1), "error", ("0 rows per update",)),
        (TrainingPlan(batch=1), "error", ("both or neither",)),
        (TrainingPlan(batch=1, epochs=1, updates=1), "error", ("both or neither",)),
        (TrainingPlan(batch=1, updates=0), "error", ("no step",)),
        (TrainingPlan(batch=1, updates=-3), "error", ("negative",)),
        (TrainingPlan(batch=1, updates=3), "warning", ("1 of 4 rows are never seen",)),
        (TrainingPlan(batch=4, epochs=5, weight=0.0), "warning", ("weigh 0",)),
    ],
)
def test_length(training: TrainingPlan, level: str, words: tuple[str, ...]) -> None:
    assert told(report(training=training), level, *words)


def test_steps_are_spelled_out() -> None:
    found = report(training=TrainingPlan(batch=3, updates=10, weight=1.0))
    assert found.sentences[1] == "run: 10 updates x batch 3 = 30 instance rows; / 4 rows per epoch = 7.50 epochs"
    assert "each of 20 prior images used 1 to 2 times" in found.sentences[2]
    even = report(training=TrainingPlan(batch=4, updates=10, weight=1.0)).sentences[2]
    assert even.endswith("= 40 prior rows (weight 1); each of 20 prior images used 2 times")


def test_it_agrees_with_the_schedule() -> None:
    items = [item(n, repeats=1 + n % 2) for n in range(4)]
    pool = [item(n, "1girl", role="prior") for n in range(40)]
    plan = plan_updates(items, pool, batch=4, epochs=5, ratio=0.5, seed=0)
    found = report(items, plans=[ConceptPlan(EYES, ratio=0.5)], pool={("eyes", SQUARE): 40}, used=usage(plan, pool))
    (line,) = found.concepts
    assert line.prior_rows == len(found.used) == 15
    assert line.unused == len(found.unused) == 25
