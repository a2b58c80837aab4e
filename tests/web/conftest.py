from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import plain_pictures
from tests.web.project import PROJECT
from tests.web.server import Client, serving


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """One project of two folders, in which pictures are called alike."""
    for folder in ("one", "two"):
        plain_pictures(tmp_path / folder, [(64, 64)])
    (tmp_path / "p.toml").write_text(PROJECT)
    return tmp_path


@pytest.fixture
def page(workspace: Path) -> Iterator[Client]:
    with serving(workspace) as client:
        yield client
