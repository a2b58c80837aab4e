"""What may be left out: rooms without which all the others work, and a library that is installed and not used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import tenuto
from tenuto.web.login import PASSWORD
from tests.cli.test_commands import call
from tests.work.test_sweep import write

EVERYTHING = """
import importlib.util, json, pkgutil, sys, tenuto
for module in pkgutil.walk_packages(tenuto.__path__, "tenuto."):
    if module.name != "tenuto.__main__":
        importlib.import_module(module.name)
from tenuto.cli.main import app
statuses = []
for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as end:
        statuses.append(end.code)
assert not any(name.startswith(("ray", "starlette", "tenuto.web", "tenuto.cluster")) for name in sys.modules)
assert "bitsandbytes" not in sys.modules and importlib.util.find_spec("bitsandbytes")
print(json.dumps(statuses))
"""
WHOLE = ["run", "project.toml", "--out", "out"]
"""A project of two updates, to its end."""
LACKING = [["web"], ["sweep", "ask.toml", "--on", "local"]]
"""Commands that need a room which is not there."""


def test_nothing_needs_the_page_or_the_cluster_or_quantised_layers(tiny_folder: Path, tmp_path: Path) -> None:
    """A whole job without those rooms; what needs one of them ends in one line that says so."""
    write(tmp_path, tiny_folder, {"arms": {"held": {}}})
    without = shutil.ignore_patterns("web", "cluster", "__pycache__", "*.safetensors")
    own = Path(tenuto.__file__).parent
    shutil.copytree(own, tmp_path / "tenuto", ignore=without)
    commands = [["sweep", "nothing.toml"], *LACKING, WHOLE]
    process = subprocess.run(
        [sys.executable, "-c", EVERYTHING, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == [1, 1, 1, 0], process.stderr
    nothing, web, cluster = [line for line in process.stderr.splitlines() if line.startswith("error")]
    assert "error: nothing.toml: no such sweep file" in nothing
    assert web == 'error: tenuto web: this tenuto has no tenuto.web; pip install "tenuto[web]"'
    assert cluster == 'error: --on local: this tenuto has no tenuto.cluster; pip install "tenuto[cluster]"'
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.glob("tenuto-crash-*"))
    assert (tmp_path / "out" / "report.html").is_file()
    assert {path.parts[-3] for path in (tmp_path / "out").glob("*/seed-1/lora.safetensors")} == {"plain", "held"}


def test_the_page_reads_the_password_that_its_command_names() -> None:
    assert PASSWORD in call("web", "--help")[1]
