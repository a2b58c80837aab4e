"""What the tabs show and write: captions, numbers, reports, runs of the terminal, the demo."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import psutil
import pytest
from benchmarks.board_page import as_board
from benchmarks.standings import standings
from PIL import Image

from tenuto.evaluation.board import Board
from tenuto.evaluation.elsewhere import FOLDER
from tenuto.events import Event, EventFile
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.web.jobs import Job
from tenuto.web.marks import mark_of
from tenuto.web.views import methods
from tests.boards import board
from tests.evaluation.made_up import made_up
from tests.jobs import plain_pictures
from tests.web.project import HTML, PROJECT, compared, occupy, table, waiting
from tests.web.server import Client

STAGED = Path(__file__).parents[2] / "tools" / "docs" / "staged"


def test_pictures_of_equal_names_are_told_apart(page: Client, workspace: Path) -> None:
    shown = page.get("/p/p/pictures", accept=HTML).text
    files = re.findall(r'data-file="([^"]+)"', shown)
    assert len(files) == 2
    assert re.findall(r'data-name="([^"]+)"', shown) == ["0.png", "0.png"]
    second = next(file for file in files if Path(file).parent.name == "two")
    mark = mark_of(workspace / "two" / "0.txt")
    assert page.post("/p/p/caption", {"picture": second, "text": "wvu, new", "seen": mark}).status == 200
    edit = {"edit": {"action": "add", "tags": ["hat"]}, "pictures": [second], "write": True}
    assert page.post("/p/p/edit", edit).json["say"] == "1 captions changed"
    assert (workspace / "one" / "0.txt").read_text() == "zxq, tag 0"
    assert (workspace / "two" / "0.txt").read_text() == "wvu, new, hat\n"
    assert page.post("/p/p/caption", {"picture": "0.png", "text": "whose?"}).status == 400


def test_only_the_number_that_was_touched_is_kept(page: Client, workspace: Path) -> None:
    shown = page.get("/p/p/prior", accept=HTML).text
    assert re.search(r'name="per_image" min="0" max="400"[^>]* value="200"', shown), "the slider reaches what stands"
    assert page.post("/p/p/numbers", {"ratio": 0.5}).json["images"] > 0
    assert table(workspace)["prior"]["ratio"] == 0.25, "a look writes nothing"
    page.post("/p/p/numbers", {"ratio": 0.5, "keep": True, "seen": page.seen()})
    own = table(workspace)
    assert (own["prior"]["per_image"], own["prior"]["ratio"]) == (200, 0.5)
    assert own["regularizers"]["prior_preservation"]["weight"] == 0.02
    reply = page.post("/p/p/numbers", {"per_image": None, "weight": 0.5, "keep": True, "seen": page.seen()})
    assert reply.status == 200, reply.text
    own = table(workspace)
    assert "per_image" not in own["prior"], "as many as the run uses"
    assert (own["prior"]["ratio"], own["regularizers"]["prior_preservation"]["weight"]) == (0.5, 0.5)


def test_a_ratio_that_is_not_set_follows_the_weight(page: Client, workspace: Path) -> None:
    text = PROJECT.replace("ratio = 0.25\n", "").replace("prior_preservation", "cached_prior")
    (workspace / "p.toml").write_text(text)
    assert page.post("/p/p/numbers", {"weight": 1}).json["ratio"] == 0.5
    assert page.post("/p/p/numbers", {"weight": 0.1}).json["ratio"] == 0.1
    assert page.post("/p/p/numbers", {"weight": 1, "ratio": 0.25}).json["ratio"] == 0.25


@pytest.mark.parametrize(
    ("text", "share", "named"),
    [
        ("", 0.05, {}),
        ("[regularizers.drift_controller]\nbudget = 0.2\n", 0.25, {"drift_controller": {"budget": 0.2}}),
    ],
    ids=["silent", "a budget"],
)
def test_what_held_it_unnamed_goes_on_holding_it(
    text: str, share: float, named: dict[str, dict[str, float]], page: Client, workspace: Path
) -> None:
    silent, _, _ = PROJECT.partition("[regularizers")
    usual = {"cached_prior": {}, "output_preservation": {"share": share}, **named}
    (workspace / "p.toml").write_text(silent + text)
    page.post("/p/p/numbers", {"weight": 0.5, "keep": True, "seen": page.seen()})
    assert table(workspace)["regularizers"] == usual | {"cached_prior": {"weight": 0.5}}
    (workspace / "p.toml").write_text(silent + text)
    assert page.post("/p/p/method", {"name": "max_norm"}).status == 200
    assert table(workspace)["regularizers"] == usual | {"max_norm": {}}


def test_a_budget_chosen_on_the_page_is_that_of_a_file(page: Client, workspace: Path) -> None:
    silent, _, _ = PROJECT.partition("[regularizers")
    (workspace / "p.toml").write_text(silent)
    assert page.post("/p/p/method", {"name": "drift_controller"}).status == 200
    assert table(workspace)["regularizers"] == {"drift_controller": {}}
    page.post("/p/p/against", {"second_lora": "", "other_base": "", "seen": page.seen()})
    assert table(workspace)["regularizers"] == {"drift_controller": {}}, "what stands beside it stays unnamed"
    values = {"regularizers": ["drift_controller"], "regularizers.drift_controller.budget": "0.3"}
    said = page.post("/p/p/settings", {"values": values, "seen": page.seen()}).json["say"]
    assert "cached_prior, output_preservation stay, for what is ticked does nothing alone" in said
    assert table(workspace)["regularizers"] == {"drift_controller": {"budget": 0.3}}


def test_masks_lie_beside_their_pictures(page: Client, workspace: Path) -> None:
    assert "data-mask" not in page.get("/p/p/pictures", accept=HTML).text
    (workspace / "masks").mkdir()
    Image.new("L", (64, 64), 255).save(workspace / "masks" / "0.png")
    (workspace / "p.toml").write_text(PROJECT.replace('images = "one"', 'images = "one"\nmasks = "masks"'))
    shown = page.get("/p/p/pictures", accept=HTML).text
    cards = re.findall(r"<article.*?</article>", shown, re.S)
    laid = {re.search('data-file="([^"]+)"', card)[1]: re.findall('class="mask" src="([^"]+)"', card) for card in cards}  # type: ignore[index]
    assert laid[str(workspace / "two" / "0.png")] == []
    (mask,) = laid[str(workspace / "one" / "0.png")]
    assert "data-masks" in shown
    assert page.get(mask.replace("&amp;", "&")).headers["content-type"].startswith("image/")


def test_each_concept_has_its_report(page: Client, workspace: Path) -> None:
    assert "report is ready" not in page.get("/", accept=HTML).text
    for concept in ("first", "second"):
        folder = workspace / "runs" / "p" / concept
        comparison, _ = made_up(folder)
        comparison.save(folder / "comparison.json")
        (folder / "report.html").write_text(f"about {concept}")
    assert "report is ready" in page.get("/", accept=HTML).text
    assert page.get("/p/p/live").json["report"]
    assert 'href="/p/p/report?concept=second"' in page.get("/p/p/compare?concept=second", accept=HTML).text
    assert page.get("/p/p/report?concept=second").text == "about second"
    assert page.get("/p/p/report").text == "about first"


def test_a_run_of_the_terminal_is_shown_where_it_is(page: Client, workspace: Path) -> None:
    (workspace / "p.toml").write_text('name = "nightly"\n' + PROJECT)
    assert page.get("/p/p/live").json["job"] is None
    with EventFile(workspace / "runs" / "nightly") as tell:
        tell(Event("stage", {"name": "training"}))
        tell(Event("progress", {"what": "updates", "done": 3, "total": 10}))
        live = page.get("/p/p/live").json
        assert (live["job"]["state"], live["job"]["id"]) == ("running", ""), "nothing to stop it by"
        assert (live["stage"], live["what"], live["done"], live["total"]) == ("training", "updates", 3, 10)
    live = page.get("/p/p/live").json
    assert (live["job"], live["how"]) == (None, "done")


def test_a_run_of_the_terminal_that_was_killed_is_said(page: Client, workspace: Path) -> None:
    folder = workspace / "runs" / "p"
    folder.mkdir(parents=True)
    begin = {"at": 1.0, "kind": "begin", "pid": os.getpid()}  # long before this process was born
    (folder / "events.jsonl").write_text(json.dumps(begin) + "\n")
    live = page.get("/p/p/live").json
    assert (live["job"], live["how"]) == (None, "killed")


def test_a_run_that_was_just_started_tells_nothing_of_the_one_before(page: Client, workspace: Path) -> None:
    folder = workspace / "runs" / "p"
    with EventFile(folder) as tell:
        tell(Event("stage", {"name": "the old one"}))
        tell(Event("progress", {"what": "updates", "done": 10, "total": 10}))
    assert page.get("/p/p/live").json["stage"] == "the old one"
    occupy(workspace)
    page.post("/p/p/start")
    live = page.get("/p/p/live").json
    assert (live["job"]["state"], live["stage"], live["total"]) == ("waiting", "", 0)
    page.post("/stop", {"job": live["job"]["id"]})
    jobs, process = workspace / "runs" / ".jobs", psutil.Process()
    job = Job(
        id="9" * 14, key="p", what="run", file=str(workspace / "p.toml"), folder=str(folder), state="running",
        pid=process.pid, born=process.create_time(), started=time.time(),
    )  # fmt: skip
    (jobs / f"{job.id}.json").write_text(job.model_dump_json())
    live = page.get("/p/p/live").json
    assert (live["job"]["state"], live["stage"], live["total"], live["how"]) == ("running", "", 0, "")
    with EventFile(folder) as tell:
        tell(Event("stage", {"name": "the new one"}))
        assert page.get("/p/p/live").json["stage"] == "the new one"


def test_the_demo_takes_no_project_from_anybody(page: Client, workspace: Path) -> None:
    occupy(workspace)
    assert (
        "demo"
        in page.post("/new", {"name": "demo", "kind": "concept", "images": "one", "model": "pocket"}).json["error"]
    )
    assert page.post("/p/p/start", {"what": "demo"}).status == 400
    assert page.post("/demo").status == 200
    (own,) = waiting(workspace)
    assert own.what == "demo"
    page.post("/stop", {"job": own.id})
    mine = workspace / "runs" / "demo" / "project.toml"
    mine.parent.mkdir()
    mine.write_text(PROJECT.replace('"one"', '"../../one"').replace('"two"', '"../../two"'))
    assert page.post("/demo").status == 200
    (own,) = waiting(workspace)
    assert (own.what, own.file) == ("run", str(mine))


def test_a_refused_change_writes_nothing(page: Client, workspace: Path) -> None:
    before = (workspace / "p.toml").stat()
    reply = page.post("/p/p/settings", {"seen": page.seen(), "values": {"concepts.0.images": "/elsewhere"}})
    assert "outside" in reply.json["error"]
    after = (workspace / "p.toml").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    config = {"file": "x.toml", "text": 'train_data_dir = "/elsewhere"\nnetwork_dim = 4\nmax_train_steps = 3\n'}
    assert page.post("/import", config).status == 200, "it may be looked at"
    assert "outside" in page.post("/import", {**config, "name": "mine"}).json["error"]
    assert not (workspace / "runs" / "mine").exists()


@pytest.mark.parametrize(
    ("config", "system"),
    [
        ("my-lora_20240101-120000.json", "kohya_ss"),
        ("dataset.toml", "sd-scripts"),
        ("my-lora.toml", "derrian"),
        ("models/dreambooth/my-model", "d8"),
    ],
)
def test_every_trainer_comes_in(page: Client, workspace: Path, config: str, system: str) -> None:
    theirs = STAGED / config
    if theirs.is_dir():
        shutil.copytree(theirs, workspace / "theirs")
        told = page.post("/import", {"path": "theirs"}).json
    else:
        told = page.post("/import", {"file": theirs.name, "text": theirs.read_text()}).json
    assert told["system"] == system
    assert told["carried"]
    assert all(own["why"] for own in told["left"])
    assert "[[concepts]]" in told["toml"]


def test_every_setting_but_lists_of_sections_is_in_the_form(page: Client) -> None:
    shown = page.get("/p/p/settings", accept=HTML).text
    for name in ("training.optimizer.lr", "concepts.1.trigger", "comparison.weights", "regularizers.max_norm.weight"):
        assert f'name="{name}"' in shown
    assert "comparison.test_images" not in shown, "test pictures are a concept's"


def test_concepts_come_and_go(page: Client, workspace: Path) -> None:
    plain_pictures(workspace / "three", [(64, 64)] * 2)
    new = {"kind": "style", "images": "three", "trigger": " abc "}
    reply = page.post("/p/p/concept", new)
    assert reply.json["go"] == "/p/p/pictures"
    assert table(workspace)["concepts"][2] == {"name": "three", "kind": "style", "images": "three", "trigger": "abc"}
    shown = page.get("/p/p/pictures", accept=HTML).text
    assert "“abc” · 2 pictures" in shown
    assert shown.count('data-concept="three"') == 2
    assert "two concepts are called 'three'" in page.post("/p/p/concept", new).json["error"]
    assert "no such folder" in page.post("/p/p/concept", {**new, "images": "nowhere", "name": "x"}).json["error"]
    assert "outside" in page.post("/p/p/concept", {**new, "images": "/etc", "name": "x"}).json["error"]
    assert page.post("/p/p/concept/remove", {"name": "nobody"}).status == 400
    for name in ("first", "second"):
        assert page.post("/p/p/concept/remove", {"name": name}).status == 200
    assert [own["name"] for own in table(workspace)["concepts"]] == ["three"]
    assert "the only concept" in page.post("/p/p/concept/remove", {"name": "three"}).json["error"]
    assert "concept/remove" not in page.get("/p/p/pictures", accept=HTML).text
    assert (workspace / "one" / "0.png").is_file(), "pictures stay"


def test_every_finding_leads_to_its_pictures(page: Client, workspace: Path) -> None:
    folder = workspace / "one"
    (folder / "0.txt").write_text("zxq, tag 0")
    for number in range(1, 6):
        Image.effect_noise((64, 64), 40 * number).convert("RGB").save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("no trigger here" if number < 5 else "zxq, small")
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "copy.txt").write_text("zxq")
    shown = page.get("/p/p/pictures", accept=HTML).text
    ids = dict(re.findall(r'id="(picture-\d+)"[^>]* data-name="([^"]+)"', shown))
    findings = re.findall(r'<li class="finding [a-z]+">(.*?)</li>', shown, re.DOTALL)

    def led_to(words: str) -> list[str]:
        (own,) = [text for text in findings if words in text]
        return [ids[link] for link in re.findall(r'href="#(picture-\d+)"', own)]

    (pair, other) = [text for text in findings if "the same file as one/0.png" in text]
    assert re.findall(r'href="#(picture-\d+)">([^<]+)<', pair) == [
        ("picture-0", "one/0.png"),
        ("picture-6", "copy.png"),
    ]
    assert "two/0.png</a>" in other, "names that are not enough have their folder"
    assert led_to("without the trigger") == ["1.png", "2.png", "3.png"], "those that it names of four"
    assert str(workspace) not in "".join(findings)
    assert re.search(r'<span class="chip"[^>]*><b>64x64</b> × \d+', shown), "sizes with their number"


def test_beside_a_second_lora(page: Client, workspace: Path) -> None:
    comparison = compared(workspace, second_lora="first.safetensors", second_prompt="brakwen")
    occupy(workspace)
    shown = page.get("/p/p/compare?view=second", accept=HTML).text
    assert "The other alone" in shown, "what the base's pictures are here"
    assert re.findall('data-prompt="([^"]*)"', shown)[0].startswith("brakwen, "), "as it was asked"
    assert 'beside <span class="wrap">first.safetensors</span>' in shown
    assert "runs/p/pictures/held/second-0.png".replace("/", "%2F") in shown or "held/second-0.png" in shown
    bleed = comparison.arms["held"]["style_bleed"].detail[0]["c"]
    assert f"Held LoRA {100 * bleed:.0f} %" in shown, "as the report's table says it"
    assert "Turning the weight up" not in shown
    (workspace / "friend.safetensors").write_bytes(b"x")
    wish = {"second_lora": "friend.safetensors", "second_prompt": "friend", "seen": page.seen()}
    assert page.post("/p/p/against", wish).json["reload"]
    own = table(workspace)["comparison"]
    assert (own["second_lora"], own["second_prompt"]) == (str(workspace / "friend.safetensors"), "friend")
    assert [job.what for job in waiting(workspace)] == ["run"]
    shown = page.get("/p/p/compare?view=second", accept=HTML).text
    assert 'value="friend.safetensors"' in shown
    assert "friend.safetensors is not drawn with yet" in shown, "the pictures are beside the first one still"
    assert "outside" in page.post("/p/p/against", {"second_lora": "/etc/hostname"}).json["error"]
    neither = {"second_lora": "", "second_prompt": "", "seen": page.seen()}
    assert page.post("/p/p/against", neither).json["say"] == "left out of the comparison"
    assert table(workspace)["comparison"] == {}


def test_on_another_checkpoint(page: Client, workspace: Path) -> None:
    folder = workspace / "runs" / "p"
    here = compared(workspace, other_base="another")
    shown = page.get("/p/p/compare?view=elsewhere", accept=HTML).text
    assert "Before and after" not in shown, "nothing was measured there"
    made_up(folder / FOLDER)
    numbers = {"concept_strength": here.arms["held"]["concept_strength"].model_copy(update={"mean": 0.4})}
    there = here.model_copy(
        update={"base": {**here.base, "name": "another"}, "arms": {**here.arms, "held": here.arms["held"] | numbers}}
    )
    there.save(folder / FOLDER / "comparison.json")
    shown = page.get("/p/p/compare?view=elsewhere", accept=HTML).text
    assert "elsewhere/pictures/held/trained-0.png" in shown
    assert "Held LoRA, own checkpoint" in shown
    own = here.arms["held"]["concept_strength"].mean
    assert own is not None
    assert f"{own:.2f} → 0.40" in shown
    assert f">{0.4 / own:.2f}</td>" in shown
    occupy(workspace)
    assert page.post("/p/p/against", {"other_base": "pocket", "seen": page.seen()}).json["reload"]
    assert table(workspace)["comparison"] == {"other_base": "pocket"}
    assert "outside" in page.post("/p/p/against", {"other_base": "../.."}).json["error"]
    assert "missing" in page.post("/p/p/against", {"other_base": "one"}).json["error"], "at once, not by a run"


def test_the_leaderboard_is_shown_where_there_is_one(page: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "shipped_board", lambda: None)
    shown = page.get("/methods", accept=HTML).text
    assert "Not measured yet" in shown
    assert all(shown.count(f"<dt>{word}</dt>") == len(REGULARIZERS) for word in ("When", "Avoid", "Cost", "Paper"))
    assert "none yet" in page.get("/methods/board.svg").json["error"]
    found: Board = as_board(board(), standings(board()))
    monkeypatch.setattr(methods, "shipped_board", lambda: found)
    shown = page.get("/methods", accept=HTML).text
    assert f">{found.standings[0].drift['1'].told()}</td>" in shown
    drawing = page.get("/methods/board.svg")
    assert drawing.headers["content-type"].startswith("image/svg+xml")
    assert "unsafe-inline" in drawing.headers["content-security-policy"]
    assert "sandbox" in drawing.headers["content-security-policy"]
    assert b"hold, weight 2" in drawing.body


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("nowhere", "nowhere: no such folder; choose the folder of its pictures"),
        ("one/0.png", "one/0.png: a file; choose the folder it lies in"),
        ("empty", "empty: no pictures in this folder; choose one that holds .png"),
        ("/etc", "/etc: outside the folders of this page; start it with --root to add one"),
    ],
    ids=["missing", "file", "empty", "outside"],
)
@pytest.mark.parametrize("address", ["/new", "/p/p/concept"])
def test_a_wrong_folder_is_said_before_anything_is_saved(
    page: Client, workspace: Path, address: str, images: str, said: str
) -> None:
    (workspace / "empty").mkdir()
    (workspace / "empty" / "notes.txt").write_text("no picture")
    before, there = table(workspace), sorted(workspace.iterdir())
    new = {"kind": "concept", "images": images, "trigger": "zxq", "name": "mine"}
    new |= {"model": "pocket", "go": True} if address == "/new" else {}
    reply = page.post(address, new)
    assert (reply.status, reply.json["error"][: len(said)]) == (400, said)
    assert (table(workspace), sorted(workspace.iterdir())) == (before, there), "nothing is left behind"
    new |= {"images": "one", "go": False} if address == "/new" else {"images": "one"}
    assert page.post(address, new).json["go"].endswith("/pictures"), "the name is free still"


def test_go_starts_unless_something_would_spoil_the_result(page: Client, workspace: Path) -> None:
    occupy(workspace)
    new = {"kind": "concept", "images": "one", "trigger": "zxq", "model": "pocket", "go": True}
    assert page.post("/new", {**new, "name": "good"}).json == {"go": "/p/good/training"}
    assert [job.key for job in waiting(workspace)] == ["good"]
    reply = page.post("/new", {**new, "name": "bad", "trigger": "unheard"}).json
    assert reply["go"] == "/p/bad/pictures"
    assert "findings" in reply["say"]
    assert [job.key for job in waiting(workspace)] == ["good"]
