"""What makes a machine unfit, each in one line with its remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from tenuto.cluster.sameness import Shared, compare, fingerprint, look
from tenuto.events import Event
from tenuto.words import TenutoError
from tests.cluster.machines import bits

SHARED = [Shared(Path("/runs"), "the results", "name one on a disk that all machines share with --out")]
INPUTS = [("concepts.c.images", Path("/pictures"))]


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"versions": {"torch": "1.0"}}, "b: has torch 1.0, here it is 2.0; install the same versions on all machines"),
        ({"code": "other"}, "b: has another state of tenuto"),
        ({"inputs": ("",)}, r"b: /pictures \(concepts.c.images\) is not there; put the same files"),
        ({"inputs": ("other",)}, r"b: /pictures \(concepts.c.images\) is another one there"),
        (
            {"unseen": (0,)},
            r"b: /runs \(the results\) is not the same folder there.*; name one on a disk .* with --out",
        ),
    ],
)
def test_an_unfit_machine_is_named(differs: dict[str, Any], says: str, tmp_path: Path) -> None:
    here = replace(look([tmp_path], []), host="b", versions={"torch": "2.0"}, inputs=("own",))
    heard: list[Event] = []
    compare(here, here, INPUTS, SHARED, heard.append)
    assert not heard
    with pytest.raises(TenutoError, match=says) as error:
        compare(replace(here, **differs), here, INPUTS, SHARED, heard.append)
    assert "\n" not in str(error.value)


def test_tensors_are_the_same_by_their_bits() -> None:
    zero = torch.zeros(2)
    assert bits(zero) == bits(zero.clone())
    assert len({bits(own) for own in (zero, -zero, zero.to(torch.float16), zero[None], zero.int())}) == 5


def test_a_disk_without_locks_is_said(tmp_path: Path) -> None:
    here = look([], [])
    heard: list[Event] = []
    compare(replace(here, unlocked=(0,)), here, [], SHARED, heard.append)
    assert [event.data["text"] for event in heard] == [
        "/runs keeps no locks between machines: the same thing may be made twice, to no harm"
    ]


def test_a_look_at_shared_folders(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with FileLock(mark):
        found = look([], [mark, tmp_path / "elsewhere" / "mark", tmp_path / "another"])
        assert (found.unseen, found.unlocked) == ((1, 2), ())
    mark.touch()
    assert look([], [mark]).unlocked == (0,)
    assert {path.name for path in tmp_path.iterdir()} <= {"mark"}, "nothing is left behind"


def test_files_are_the_same_by_name_size_and_start(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "1.txt").write_text("zxq")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert fingerprint(tmp_path / "nowhere") == ""
    (tmp_path / "b" / "inner" / "1.txt").write_text("zxr")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
