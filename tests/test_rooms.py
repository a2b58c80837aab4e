"""What may be left out: rooms without which all the others work, and a library that is installed and not used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import tenuto
from tenuto.web.login import PASSWORD
from tests.cli.test_commands import call

EVERYTHING = """
import importlib.util, pkgutil, sys, tenuto
for module in pkgutil.walk_packages(tenuto.__path__, "tenuto."):
    if module.name != "tenuto.__main__":
        importlib.import_module(module.name)
from tenuto.cli.main import app
assert not any(name.startswith(("ray", "starlette", "tenuto.web", "tenuto.cluster")) for name in sys.modules)
assert "bitsandbytes" not in sys.modules and importlib.util.find_spec("bitsandbytes")
app(["sweep", "nothing.toml"])
"""


def test_nothing_needs_the_page_or_the_cluster_or_quantised_layers(tmp_path: Path) -> None:
    without = shutil.ignore_patterns("web", "cluster", "__pycache__", "*.safetensors")
    own = Path(tenuto.__file__).parent
    shutil.copytree(own, tmp_path / "tenuto", ignore=without)
    shutil.copy(own / "cli" / "web.py", tmp_path / "tenuto" / "cli")
    process = subprocess.run(
        [sys.executable, "-c", EVERYTHING],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "error: nothing.toml: no such sweep file" in process.stderr, process.stderr
    assert process.returncode == 1


def test_the_page_reads_the_password_that_its_command_names() -> None:
    assert PASSWORD in call("web", "--help")[1]
