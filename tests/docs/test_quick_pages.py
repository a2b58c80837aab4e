"""The pages whose commands take seconds each are run as they are written; `make docs-check` runs the others too."""

from __future__ import annotations

from tools.docs.check import QUICK, run_pages


def test_the_commands_of_the_quick_pages_run() -> None:
    ran = dict(run_pages(QUICK))
    assert {page.stem for page in ran} == set(QUICK)
    failed = [(str(own.command), own.error) for outcomes in ran.values() for own in outcomes if own.error]
    assert failed == []
