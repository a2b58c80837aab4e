"""The commands as a person types them, in a process of their own: bad input is one line, no traceback, status 1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from tenuto.cli.main import app
from tenuto.evaluation.record import Comparison
from tests.children import running, said
from tests.jobs import COMPARISON, CONCEPT, noise_pictures, until
from tests.still import still_at

PROJECT = f"""
seed = 1
{CONCEPT}
trigger = "zxq eyes"
class_word = "eyes"
[prior]
per_image = 2
ratio = 0.5
store = "store"
[prior.sampler]
steps = 2
[regularizers.prior_prediction]
weight = 2
[training]
steps = 4
save_every = 2
watch_every = 2
sample_every = 4
[training.adapter]
rank = 2
{COMPARISON}
"""


@pytest.fixture
def project(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project of three pictures; the working folder is its own."""
    noise_pictures(tmp_path / "pictures", [(16, 16)] * 3, [f"zxq eyes, 1girl, place {i}" for i in range(3)])
    file = tmp_path / "project.toml"
    file.write_text(PROJECT.format(model=tiny_folder))
    monkeypatch.chdir(tmp_path)
    return file


def call(*words: str) -> tuple[int, str, str]:
    """(status, output, errors) of a command run in this process."""
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_the_whole_job(project: Path) -> None:
    status, out, errors = call("run", str(project), "--json")
    assert status == 0, errors
    told = json.loads(out.strip().splitlines()[-1])
    folder = Path(told["folder"])
    assert (folder / "report.html").stat().st_size > 10_000
    comparison = Comparison.load(folder / "comparison.json")
    wanted = {
        "concept_strength",
        "drift",
        "bake",
        "style_bleed",
        "tag_compliance",
        "trigger_necessity",
        "usable_weight",
    }
    for arm in ("plain", "held"):
        assert wanted | {"seconds", "forwards"} <= set(comparison.arms[arm])
        assert comparison.arms[arm]["drift"].mean is not None
        assert comparison.arms[arm]["concept_strength"].reason, "no tagger: no number, and the reason"
        assert (folder / arm / "seed-1" / "lora.safetensors").is_file()
    assert (folder / "held" / "seed-1" / "samples" / "000004-0.png").is_file()
    use = json.loads((folder / "held" / "seed-1" / "plan.json").read_text())
    assert use["pool"] == 6
    assert sum(use["used"].values()) == use["prior_rows"] == 8
    for arm in ("plain", "held"):
        with safe_open(folder / arm / "seed-1" / "lora.safetensors", framework="pt") as file:
            header = file.metadata()
        assert float(header["tenuto_drift"]) == pytest.approx(comparison.arms[arm]["drift"].mean, rel=1e-3)
        assert set(json.loads(header["tenuto_comparison"])["eyes"]) >= {"drift", "forwards"}
    read = sorted(path.name for path in (folder / "readings").iterdir())
    assert call("run", str(project))[0] == 0, "a second time: everything is there"
    assert sorted(path.name for path in (folder / "readings").iterdir()) == read, "and nothing is read twice"


def test_plan_and_audit(project: Path) -> None:
    status, out, _ = call("prior", "plan", str(project), "--json")
    plan = json.loads(out)
    assert status == 0
    assert len(plan["images"]) == 6
    assert all("zxq" not in image["prompt"] and "1girl" in image["prompt"] for image in plan["images"])
    status, out, _ = call("audit", str(project), "--json")
    report = json.loads(out)
    assert status == 0
    assert report["concepts"][0]["pool"] == 6
    assert "held by prior_prediction (weight 2)" in report["arithmetic"]
    _, out, _ = call("audit", str(project), "--json", "--set", "prior.ratio=0", "--set", "regularizers={}")
    assert "no regularization" in json.loads(out)["arithmetic"]
    status, out, errors = call("prior", "show", str(project))
    assert status == 0, errors
    assert Path("prior.html").read_text().count("<img") == 6


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["training.stepz=4"], "did you mean 'steps'"),
        (["regularizers.prior_preservatoin.weight=1"], "did you mean 'prior_preservation'"),
        (["training.steps=many"], "training.steps"),
        (["training.steps=4", "training.epochs=2"], "steps or epochs"),
        (["concepts.0.images=nowhere"], "nowhere"),
        (["base.model=nowhere"], "nowhere"),
        (["concepts.0.trigger=unseen word"], "unseen word"),
        (["training.start_from=nowhere.safetensors"], "nowhere.safetensors"),
        (["prior.prompts=own", "prior.own=nowhere.txt"], "nowhere.txt"),
        (
            ["regularizers.cached_prior.wieght=1"],
            "regularizers.cached_prior.wieght is not a setting; did you mean 'weight'",
        ),
        (["regularizers.prior_prediction=3"], "regularizers.prior_prediction: a section"),
        (["concepts.5.trigger=x"], "one of the 1 entries"),
        (["concepts.0.kind=person"], "'character'"),
        (["base.device=gpu"], "base.device"),
        (["prior.ratio=0"], "prior.ratio is 0"),
    ],
)
def test_a_mistake_in_the_project_is_one_line(changes: list[str], says: str, project: Path) -> None:
    status, _, errors = call("run", str(project), *(word for change in changes for word in ("--set", change)))
    assert status == 1
    assert says in errors
    assert "Traceback" not in errors
    assert len([line for line in errors.splitlines() if line.startswith("error")]) == 1
    assert "at least 1 item" not in errors


def test_a_run_folder_that_is_a_file_stops_before_any_work(project: Path) -> None:
    Path("taken").write_text("")
    status, _, errors = call("run", str(project), "--out", "taken")
    assert (status, "is no folder" in errors) == (1, True)
    assert not Path("store").exists()


def test_what_users_write_is_shown_as_it_is(project: Path) -> None:
    caption = project.parent / "pictures" / "1.txt"
    caption.write_text("zxq eyes, 1girl, [smile], [/b], [red]hat")
    status, out, errors = call("prior", "plan", str(project))
    assert status == 0, errors
    assert "[smile], [/b], [red]hat" in "".join(line.strip() for line in out.splitlines()).replace("│", "")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pictures: (pictures / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken"),
        lambda pictures: (pictures / "1.txt").write_text("  \n"),
        lambda pictures: (pictures / "1.txt").unlink(),
        lambda pictures: (pictures / "1.txt").write_bytes(b"\xff\xfe\x00bad"),
        lambda pictures: Image.new("RGB", (1, 1)).save(pictures / "1.png"),
        lambda pictures: Image.new("1", (20_000, 20_000)).save(pictures / "1.png"),
    ],
)
def test_bad_pictures_and_captions_stop_before_any_work(spoil, project: Path) -> None:  # type: ignore[no-untyped-def]
    spoil(project.parent / "pictures")
    status, _, errors = call("run", str(project))
    assert status == 1
    assert "1." in errors
    assert "Traceback" not in errors
    assert not Path("runs").exists()
    assert call("audit", str(project))[0] == 1


def test_the_run_folder_tells_what_was_made(project: Path) -> None:
    assert call("prior", "build", str(project), "--out", "here")[0] == 0
    told = [json.loads(line) for line in Path("here/events.jsonl").read_text().splitlines()]
    assert (told[0]["kind"], told[-1]["kind"], told[-1]["how"]) == ("begin", "end", "done")
    made = [name for line in told if line["kind"] == "progress" for name in line.get("made", ())]
    assert made
    assert {path.stem for path in Path("here/prior").glob("*.png")} >= set(made[:24])
    assert call("prior", "build", str(project), "--out", "again")[0] == 0
    assert len(list(Path("again/prior").glob("*.png"))) == len(list(Path("here/prior").glob("*.png")))


def test_a_set_of_another_base_is_refused(project: Path, tmp_path: Path) -> None:
    assert call("prior", "build", str(project))[0] == 0
    from tests.tiny import tiny_sd_folder

    other = tiny_sd_folder(tmp_path / "other", seed=9)
    status, _, errors = call("train", str(project), "--set", f"base.model={other}")
    assert status == 1
    assert "another folder" in errors


def test_an_unknown_error_writes_a_crash_report(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr("tenuto.work.prepare.prepare", broken)
    status, _, errors = call("audit", str(project))
    assert status == 70
    reports = list(Path.cwd().glob("tenuto-crash-*.txt"))
    assert len(reports) == 1
    assert "surprise" in reports[0].read_text()
    assert "Traceback" not in errors


def test_who_stops_reading_is_no_fault(project: Path) -> None:
    """As in `tenuto audit FILE | head -1`: no traceback and no report."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        command = [sys.executable, "-m", "tenuto", "audit", str(project)]
        ended = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "fault of tenuto" not in ended.stderr
    assert not list(Path.cwd().glob("tenuto-crash-*.txt"))


def test_running_out_of_memory_is_one_line_and_no_crash(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 9 GiB")

    monkeypatch.setattr("tenuto.work.prepare.prepare", full)
    status, _, errors = call("audit", str(project))
    assert status == 1
    assert "error: out of memory (tried to allocate 9 GiB); end what else uses the device" in errors
    assert not list(Path.cwd().glob("tenuto-crash-*.txt"))


def test_ctrl_c_keeps_what_was_made(project: Path) -> None:
    folder = Path("runs/project/held/seed-1")
    with running(["train", str(project), "--set", "arms.plain=false"], Path.cwd(), still_at(3)) as process:
        until(lambda: not process.is_alive() or any(folder.glob("states/*.safetensors")))
        os.kill(process.ident or 0, signal.SIGINT)
        process.join()
    errors = "\n".join(said(Path.cwd()))
    assert process.exitcode == 130, errors
    assert "goes on from there" in errors
    assert "Traceback" not in errors
    assert list(folder.glob("states/*.safetensors"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line(project: Path) -> None:
    Path("runs").mkdir(mode=0o500)
    status, _, errors = call("train", str(project))
    assert status == 1
    assert "cannot be written" in errors
