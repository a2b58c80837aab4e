"""A Ray of this machine alone: as the command starts it, stopped as a terminal stops it; and what is no cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from tenuto.cluster import connection
from tenuto.cluster.machines import Machine, Share, share_of
from tenuto.cluster.settings import ClusterSettings
from tenuto.project.file import load_project
from tenuto.words import TenutoError
from tenuto.work.prepare import prepare
from tenuto.work.prior import build_prior, open_store
from tenuto.work.sweep import run_sweep
from tenuto.work.sweep_file import load_sweep
from tests.cli.test_commands import call
from tests.cluster.machines import SOURCE, assert_same, assert_same_numbers
from tests.cluster.sets import QUICK
from tests.jobs import until
from tests.work.test_sweep import paint
from tests.work.test_sweep import write as write_sweep

IMAGES = 12


def write(folder: Path, base: Path) -> Path:
    paint(folder / "pictures", 20)
    project = {
        "base": {"model": str(base), "device": "cpu"},
        "concepts": [{"name": "c", "images": "pictures", "trigger": "zxq", "class_word": "hat"}],
        "prior": {"per_image": IMAGES // 3, "batch": 4, "store": "store", "sampler": {"steps": 4}},
    }
    (folder / "p.toml").write_text(tomli_w.dumps(project))
    return folder / "p.toml"


def test_a_prior_set_stopped_and_gone_on_with(tiny_folder: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal; nothing of Ray stays; the same set is finished without it.

    One batch is claimed here, so it cannot be finished before.
    """
    files = {name: write(tmp_path / name, tiny_folder) for name in ("whole", "cut")}
    prepared = prepare(load_project(files["cut"]))
    store, batches = open_store(prepared), prepared.plan.batches(prepared.base.chunks)
    process = psutil.Popen(
        [sys.executable, "-m", "tenuto", "prior", "build", "p.toml", "--out", "run", "--on", "local", "--cpus", "1"],
        cwd=tmp_path / "cut", env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        with store.claims.on([batches[-1].key]) as ours:
            assert ours
            until(lambda: process.poll() is not None or list(store.folder.glob("shards/*.safetensors")))
            own = process.children(recursive=True)
            listening = {address for each in own for address in listens_at(each)}
            os.killpg(process.pid, signal.SIGINT)
            out, errors = process.communicate()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out) == (130, ""), errors
    assert errors.splitlines()[-1] == "stopped; what was made is kept, the same command goes on from there"
    assert listening == {"127.0.0.1"}
    _, left = psutil.wait_procs(own, timeout=200)
    assert not left
    assert 0 < len(list(store.folder.glob("shards/*.safetensors"))) < len(batches) == IMAGES // 4

    for file in files.values():
        build_prior(prepare(load_project(file)))
    assert_same(tmp_path / "whole" / "store", tmp_path / "cut" / "store")


def test_a_sweep_is_the_sequential_one(tiny_folder: Path, tmp_path: Path) -> None:
    ask = {"seeds": [3], "settings": QUICK, "arms": {"none": {"regularizers": {}}, "held": {}}}
    here, there = (write_sweep(tmp_path / name, tiny_folder, ask) for name in ("here", "there"))
    run_sweep(load_sweep(here), tmp_path / "here" / "out")
    out = tmp_path / "there" / "out"
    status, told, errors = call("sweep", str(there), "--out", str(out), "--on", "local", "--cpus", "1", "--json")
    assert status == 0, errors
    assert Path(json.loads(told)["page"]).is_file()
    assert_same(tmp_path / "here", tmp_path / "there")
    assert_same_numbers(tmp_path / "here" / "out" / "sweep.json", out / "sweep.json")


def listens_at(process: psutil.Process) -> set[str]:
    """The addresses of this machine where a process hears others, if it is still there."""
    with suppress(psutil.Error):
        found = [own.laddr.ip for own in process.net_connections() if own.status == psutil.CONN_LISTEN]
        return {address.removeprefix("::ffff:") for address in found}
    return set()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--on", "nowhere"], '--on nowhere: give "local", or the head of a cluster as ray://HOST:10001'),
        (["--on", "ray://a/b"], '--on ray://a/b: give "local", or the head of a cluster as ray://HOST:10001'),
        (["--on", "ray://a:b"], '--on ray://a:b: give "local", or the head of a cluster as ray://HOST:10001'),
        (["--on", "ray://127.0.0.1:{port}"], "nobody answers there (Connection refused); start the head with"),
        (["--cpus", "2"], "--cpus and --gpus say what each task takes of a cluster's machines; give --on too"),
    ],
)
def test_no_cluster_is_one_line(words: list[str], says: str, tiny_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        words = [word.replace("{port}", str(free.getsockname()[1])) for word in words]
    file = write(tmp_path, tiny_folder)
    status, _, errors = call("prior", "build", str(file), "--out", str(tmp_path / "run"), *words)
    assert status == 1
    assert says in errors
    assert errors.count("\n") == 1


def test_ray_is_an_extra(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenuto.cli.cluster.NEEDED", ("ray_that_nobody_has",))
    status, _, errors = call("prior", "build", str(write(tmp_path, tiny_folder)), "--on", "local")
    assert (status, errors) == (
        1,
        'error: --on local: ray_that_nobody_has not installed; pip install "tenuto[cluster]"\n',
    )


CARDS = (Machine("a", "a", 16, 4), Machine("b", "b", 8, 1), Machine("c", "c", 64, 0))


@pytest.mark.parametrize(
    ("asked", "devices", "share", "slots"),
    [
        ({}, {"auto"}, Share(4, 1), [4, 1, 0]),
        ({"gpus": 0.5}, {"auto"}, Share(2, 0.5), [8, 2, 0]),
        ({"gpus": 2}, {"auto"}, Share(8, 2), [2, 0, 0]),
        ({"cpus": 8}, {"auto", "cpu"}, Share(8, 1), [2, 1, 0]),
        ({"cpus": 4}, {"cpu"}, Share(4, 0), [4, 2, 16]),
        ({}, {"cpu"}, Share(1, 0), [16, 8, 64]),
    ],
)
def test_what_a_task_takes(asked: dict[str, Any], devices: set[str], share: Share, slots: list[int]) -> None:
    found = share_of(ClusterSettings(on="local", retries=0, **asked), CARDS, devices)
    assert found == share
    assert [found.on(machine) for machine in CARDS] == slots


@pytest.mark.parametrize(
    ("asked", "device", "says"),
    [
        (
            {"cpus": 65},
            "cpu",
            "no machine of the cluster has 65 CPUs for a task .most: 64 CPUs and 4 GPUs.; give --cpus",
        ),
        ({"gpus": 8}, "auto", "no machine of the cluster has 1 CPU and 8 GPU"),
        ({}, "cuda:1", 'base.device = "cuda:1" is one device for all tasks; leave it out'),
    ],
)
def test_what_no_machine_has(asked: dict[str, Any], device: str, says: str) -> None:
    with pytest.raises(TenutoError, match=says):
        share_of(ClusterSettings(on="local", retries=0, **asked), CARDS, {device})


class BusyHead:
    """A Ray whose head lets nobody in at first."""

    def __init__(self, refusals: int) -> None:
        self.left, self.asked = refusals, 0

    def init(self, **where: Any) -> None:
        self.asked += 1
        if self.asked <= self.left:
            raise ConnectionError("ray client connection timeout")


def test_a_busy_head_is_asked_again() -> None:
    patient, busy = BusyHead(connection.TRIES - 1), BusyHead(connection.TRIES)
    connection._enter(patient, {})
    assert patient.asked == connection.TRIES
    with pytest.raises(ConnectionError):
        connection._enter(busy, {})
    assert busy.asked == connection.TRIES
