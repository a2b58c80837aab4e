"""A night's work survives: the whole process group killed at several instants, then the same command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.children import running, said
from tests.jobs import CONCEPT, plain_pictures, until
from tests.still import still_once

TRAIN = ("train", "p.toml", "--out", "run")

PROJECT = f"""{CONCEPT}trigger = "zxq"
[prior]
per_image = 6
batch = 2
store = "store"
[prior.sampler]
steps = 6
[regularizers.prior_preservation]
weight = 0.5
[training]
steps = 12
batch = 2
save_every = 1
watch_every = 0
[training.adapter]
rank = 2
[arms]
plain = false
"""


def test_sigkill_at_any_instant_then_the_same_command(tiny_folder: Path, tmp_path: Path) -> None:
    """A real process group, killed again and again during build and training, ends in the same LoRA, bit for bit."""

    def project(name: str) -> Path:
        folder = tmp_path / name
        plain_pictures(folder / "pictures", [(16, 16)] * 3)
        (folder / "p.toml").write_text(PROJECT.format(model=tiny_folder))
        return folder

    def made(folder: Path) -> int:
        return len(list((folder / "store").rglob("*.safetensors"))) + len(list((folder / "run").rglob("*.safetensors")))

    whole, cut = project("whole"), project("cut")
    with running(TRAIN, whole) as process:
        process.join()
    assert process.exitcode == 0, said(whole)

    for wanted in (4, 11, 16):  # pieces that exist: once in the build, twice in the training
        there = lambda wanted=wanted: made(cut) >= wanted  # noqa: E731
        with running(TRAIN, cut, still_once(there)) as process:
            until(there)
        assert process.exitcode == -signal.SIGKILL, said(cut)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "tenuto", *TRAIN], cwd=cut, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    a, b = (load_file(folder / "run" / "held" / "seed-0" / "lora.safetensors") for folder in (whole, cut))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
