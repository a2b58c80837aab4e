"""What the processes of a job can tell each other, and what they do when one of them is gone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from tenuto.ranks import ALONE, RankLost, Ranks, from_environment
from tenuto.words import TenutoError
from tests.ranks import on_ranks, start_ranks


def test_alone_nothing_is_exchanged() -> None:
    assert from_environment({}) is ALONE
    assert (ALONE.first, ALONE.part([1, 2, 3]), ALONE.any(True), ALONE.same("a"), ALONE.from_first(b"x")) == (
        True,
        [1, 2, 3],
        True,
        True,
        b"x",
    )
    assert ALONE.tells()


def test_three_exchange() -> None:
    def work(ranks: Ranks) -> None:
        assert ranks.part(range(7)) == list(range(ranks.rank, 7, 3))
        assert ranks.sum(torch.tensor([1.0, float(ranks.rank)])).tolist() == [3.0, 3.0]
        assert ranks.any(ranks.rank == 2)
        assert not ranks.any(False)
        assert ranks.same("all")
        assert not ranks.same("first" if ranks.first else "others")
        assert ranks.from_first(b"told" if ranks.first else b"") == b"told"
        assert ranks.from_first(b"" if ranks.first else b"not looked at") == b""
        assert ranks.told({"score": 0.5 if ranks.first else None}) == {"score": 0.5}

    on_ranks(work, 3)


def test_only_one_tells_and_the_others_notice(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        if not ranks.first:
            (tmp_path / f"{ranks.rank}-{ranks.tells()}").touch()
        ranks.meet()
        with pytest.raises(RankLost):
            ranks.check()
        if ranks.first:
            assert not ranks.tells()

    on_ranks(work, 3)
    told = sorted(path.name.partition("-")[2] for path in tmp_path.iterdir())
    assert told == ["False", "True"]


def test_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        ranks.meet()
        if not ranks.first:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            ranks.meet()
        except RankLost as error:
            (tmp_path / "said").write_text(str(error))

    processes = start_ranks(work)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL]
    assert "another process of this job has ended" in (tmp_path / "said").read_text()


def test_who_finds_nobody_says_so() -> None:
    with pytest.raises(TenutoError, match=r"2 processes of this job do not find each other .*variable"):
        from_environment({"WORLD_SIZE": "2", "RANK": "0"})
