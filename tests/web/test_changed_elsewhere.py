"""Two windows on one project: what was changed in one is not undone by the other, which has not seen it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import plain_pictures
from tests.web.project import ARMS, HTML, PROJECT, compared, occupy, table
from tests.web.server import Client

ELSEWHERE = "this project was changed elsewhere since this page was loaded; load it again"
WHOLE: dict[str, dict[str, Any]] = {
    "settings": {"values": {"concepts.0.trigger": "mine", "seed": "7"}},
    "numbers": {"weight": 0.5, "keep": True},
    "use": {"arm": "plain"},
    "against": {"second_lora": "", "second_prompt": ""},
}
"""Address -> what it writes beside the one value that was touched."""


@pytest.mark.parametrize("address", WHOLE)
def test_a_window_that_has_not_seen_the_file_writes_nothing(page: Client, workspace: Path, address: str) -> None:
    compared(workspace, ARMS)
    occupy(workspace)
    body, old = WHOLE[address], page.seen()
    assert page.post("/p/p/concept/remove", {"name": "first"}).status == 200
    left = (workspace / "p.toml").read_bytes()
    for seen in (old, ""):
        reply = page.post(f"/p/p/{address}", {**body, "seen": seen})
        assert (reply.status, reply.json) == (400, {"error": ELSEWHERE})
        assert (workspace / "p.toml").read_bytes() == left
    assert table(workspace)["concepts"][0]["trigger"] == "wvu", "the second concept is the first one now"
    assert page.post(f"/p/p/{address}", {**body, "seen": page.seen()}).status == 200
    assert (workspace / "p.toml").read_bytes() != left


def test_pages_carry_the_mark_of_the_file_that_they_show(page: Client, workspace: Path) -> None:
    compared(workspace, ARMS)
    mark = page.seen()
    shown = {tab: page.get(f"/p/p/{tab}", accept=HTML).text for tab in ("prior", "compare", "compare?view=second")}
    assert f'data-seen="{mark}"' in shown["prior"]
    assert shown["compare"].count(f'"seen": "{mark}"') == 4, "both arms, half and twice"
    assert f'name="seen" value="{mark}"' in shown["compare?view=second"]
    (workspace / "p.toml").write_text(PROJECT + "# a remark of an editor's\n")
    assert page.seen() != mark


def test_concepts_that_are_added_at_once_are_all_there(page: Client, workspace: Path) -> None:
    folders = [f"folder-{number}" for number in range(12)]
    for folder in folders:
        plain_pictures(workspace / folder, [(64, 64)])

    def add(folder: str) -> int:
        return page.post("/p/p/concept", {"kind": "style", "images": folder, "trigger": folder}).status

    with ThreadPoolExecutor(12) as windows:
        assert set(windows.map(add, folders)) == {200}
    assert sorted(own["name"] for own in table(workspace)["concepts"]) == sorted([*folders, "first", "second"])


def test_a_caption_of_another_window_is_not_written_over(page: Client, workspace: Path) -> None:
    def card() -> dict[str, str]:
        shown = page.get("/p/p/pictures", accept=HTML).text
        file, mark = re.findall(r'data-file="([^"]+)"[^>]* data-seen="([^"]+)"', shown)[0]
        return {"picture": file, "seen": mark}

    old, file = card(), workspace / "one" / "0.txt"
    assert page.post("/p/p/caption", {**old, "text": "zxq, first window"}).status == 200
    reply = page.post("/p/p/caption", {**old, "text": "zxq, second window"})
    assert reply.json["error"] == "0.png: its caption was changed elsewhere since this page was loaded; load it again"
    assert file.read_text() == "zxq, first window\n"
    assert page.post("/p/p/caption", {**card(), "text": "zxq, second window"}).status == 200
    file.unlink()
    without = card()
    assert page.post("/p/p/caption", {**without, "text": "zxq, new"}).status == 200, "there was none, and is none"
    assert page.post("/p/p/caption", {**without, "text": "zxq, newer"}).status == 400


def test_a_bulk_edit_changes_what_is_there_and_undoing_it_leaves_what_came_later(page: Client, workspace: Path) -> None:
    one, two = workspace / "one" / "0.txt", workspace / "two" / "0.txt"
    edit = {"edit": {"action": "add", "tags": ["hat"]}}
    assert page.post("/p/p/edit", edit).json["count"] == 2
    one.write_text("zxq, of another window")
    page.post("/p/p/edit", {**edit, "write": True})
    assert one.read_text() == "zxq, of another window, hat\n"
    one.write_text("zxq, later")
    assert page.post("/p/p/undo").json["say"] == "1 captions are as they were; changed since and left alone: 1"
    assert one.read_text() == "zxq, later"
    assert two.read_text() == "zxq, tag 0"
