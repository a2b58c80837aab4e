"""Fixtures that every room's tests may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tests.tiny import tiny_sd_folder, tiny_sdxl_folder

torch.set_num_threads(1)
WHOLE = (
    "work/test_sweep.py",
    "web/test_walk.py",
    "test_article.py",
    "work/test_processes.py",
    "web/test_jobs.py",
    "test_single_file_jobs.py",
    "cli/test_ranks.py",
    "test_pocket_job.py",
    "docs/test_site.py",
    "training/test_soak.py",
    "test_leaderboard.py",
    "cluster/",
)
"""Marked `whole`: whole jobs, with processes, a browser or a cluster of their own (`make test-whole`)."""
LONG = (*WHOLE, "regularizers/test_contract.py", "cli/test_commands.py", "test_killed.py", "docs/test_quick_pages.py")
"""Files that take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones begin first, so that none of them is left for one worker at the end."""
    for item in items:
        if _of(item).startswith(WHOLE):
            item.add_marker("whole")
    items.sort(key=lambda item: not _of(item).startswith(LONG))


def _of(item: pytest.Item) -> str:
    return item.nodeid.removeprefix("tests/")


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and prior sets of tests stay in the tests' own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENUTO_HOME", str(tmp_path_factory.getbasetemp() / "home"))
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd_folder(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture
def tiny_base(tiny_folder: Path) -> Base:
    """Loaded anew for each test: nothing that one test attaches can reach another.

    A copy would be made faster, but its weights lie elsewhere in memory, and so its last bits may differ.
    """
    return open_base(str(tiny_folder), device="cpu")


@pytest.fixture
def tiny_fp8_base(tiny_folder: Path) -> Base:
    """The same in 8 bits."""
    return open_base(str(tiny_folder), device="cpu", fp8=True)


@pytest.fixture(scope="session")
def tiny_v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd_folder(tmp_path_factory.mktemp("tiny") / "sd-v", prediction="v_prediction", seed=1)


@pytest.fixture
def tiny_v_base(tiny_v_folder: Path) -> Base:
    """The same layout, answering v; other weights."""
    return open_base(str(tiny_v_folder), device="cpu")


@pytest.fixture(scope="session")
def tiny_xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sdxl_folder(tmp_path_factory.mktemp("tiny") / "sdxl")


@pytest.fixture
def tiny_xl_base(tiny_xl_folder: Path) -> Base:
    """SDXL's layout: two text encoders, pooled text, sizes."""
    return open_base(str(tiny_xl_folder), device="cpu")


@pytest.fixture
def tiny_xl_snr_base(tiny_xl_folder: Path) -> Base:
    """The same, answering v, with a last timestep that is noise alone (as NoobAI v-pred)."""
    return open_base(str(tiny_xl_folder), device="cpu", prediction="v", zero_terminal_snr=True)
