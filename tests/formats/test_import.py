"""Configs of every system become projects: what is carried, what is said, and that the file loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tenuto.cli.main import app
from tenuto.formats.catalogue import SYSTEMS, import_project
from tenuto.formats.imported import Imported
from tenuto.project.file import load_project, make_project
from tenuto.project.settings import Project
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.words import TenutoError
from tests.formats.systems import KOHYA_SS, pictures, write_all

DOG = "train/10_sks dog"


def imported(folder: Path, name: str, **more: Any) -> tuple[Imported, Project]:
    """The import and the project as it is read back from its file."""
    write_all(folder)
    found = import_project(folder / name, folder, **more)
    (folder / "project.toml").write_text(found.to_toml(), encoding="utf-8")
    return found, load_project(folder / "project.toml")


def said(found: Imported, theirs: str) -> str:
    return " | ".join(each.why for each in found.left if each.theirs == theirs)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("run.sh", "sd-scripts"), ("run.bat", "sd-scripts"), ("dataset.toml", "sd-scripts"),
        ("options.toml", "sd-scripts"), ("kohya.json", "kohya_ss"), ("derrian.toml", "derrian"),
        ("concepts_list.json", "d8"), ("db_config.json", "d8"), ("diffusers.sh", "diffusers"),
    ],
)  # fmt: skip
def test_every_kind_is_recognised_and_loads(name: str, system: str, tmp_path: Path) -> None:
    found, project = imported(tmp_path, name)
    assert found.system == system
    text = found.to_toml()
    assert text.startswith("# Imported from")
    assert "s3cret" not in text
    assert project.concepts[0].trigger == "sks"
    assert project.concepts[0].class_word == "dog"
    assert Path(project.concepts[0].images) == tmp_path / DOG
    assert len(found.carried) == len({(each.theirs, each.ours) for each in found.carried})


def test_a_command_line(tmp_path: Path) -> None:
    found, project = imported(tmp_path, "run.sh")
    training = project.training
    assert project.base.model == "owner/checkpoint"
    assert project.seed == 7
    assert (training.steps, training.batch, training.micro_batch) == (500, 2, 2), "half of each batch there was reg"
    assert (training.adapter.rank, training.adapter.alpha) == (16, 8)
    assert training.adapter.parts == ("attention", "feed_forward", "text_encoder")
    assert (training.optimizer.lr, training.optimizer.weight_decay) == (1e-4, 0.1)
    assert training.optimizer.betas == (0.9, 0.99)
    assert (training.learning_rate.shape, training.learning_rate.warmup) == ("cosine", 50)
    assert project.data.buckets.area == 512 * 640
    assert project.data.variation.shuffle
    assert project.data.variation.keep_tokens == 1
    assert project.regularizers["prior_preservation"].weight == 0.5
    assert project.prior.prompts == "none"
    assert [(own.path, own.caption) for own in project.prior.folders] == [(str(tmp_path / "reg" / "1_dog"), "dog")]
    assert "40 of 60" in said(found, "reg pictures"), "4 pictures x 10 repeats, the first by name"
    assert "also on those of the reg pictures" in said(found, "caption_prefix")
    assert "one learning rate" in said(found, "text_encoder_lr")
    assert "never" in said(found, "shuffle_caption")
    assert project.regularizers["snr_weight"].model_dump()["gamma"] == 5
    assert set(project.regularizers) == {"prior_preservation", "snr_weight"}
    assert training.optimizer.name == "adamw_8bit"
    assert "on 'dog' alone" in said(found, "class_tokens")


def test_a_batch_file(tmp_path: Path) -> None:
    found, project = imported(tmp_path, "run.bat")
    assert project.base.model == r"E:\models\nai.safetensors"
    assert (project.training.epochs, project.training.batch, project.training.adapter.alpha) == (3, 1, 1.0)
    assert any(each.theirs == "network_alpha (its default)" for each in found.carried)
    assert "no reg pictures there" in said(found, "reg_data_dir")


def test_a_dataset_config_alone_keeps_tenutos_own_training(tmp_path: Path) -> None:
    found, project = imported(tmp_path, "dataset.toml")
    assert project.training.optimizer.lr == 1e-4
    assert project.training.steps is None
    assert project.training.batch == 2
    assert project.data.buckets.area == 768 * 768
    assert project.concepts[0].repeats == 10
    assert (project.data.variation.shuffle, project.data.variation.keep_tokens) == (True, 1)
    assert [Path(own.path) for own in project.prior.folders] == [tmp_path / "reg" / "1_dog"]
    assert "--args" in said(found, "training options")


@pytest.mark.parametrize("extra", ["--network_dim 8 --learning_rate=3e-4 --max_train_steps 10", "options.toml"])
def test_more_options_beside_a_dataset_config(extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    _, project = imported(tmp_path, "dataset.toml", extra=extra)
    assert project.training.adapter.rank == 8
    assert project.training.optimizer.lr == (3e-4 if extra.startswith("--") else 2e-4)
    assert len(project.concepts) == 1


def test_an_option_file(tmp_path: Path) -> None:
    found, project = imported(tmp_path, "options.toml")
    assert project.training.adapter.alpha is None, "0 means the rank"
    assert project.training.adapter.parts == ("attention", "feed_forward", "convolution")
    assert project.training.clip_norm == 1e9, "0 is off"
    assert "one rank" in said(found, "conv_dim")
    assert "there were no reg pictures" in said(found, "prior_loss_weight")
    assert project.ratios() == {"sks dog": 0.05}, "as in any project of ours"


def test_folders(tmp_path: Path) -> None:
    write_all(tmp_path)
    for name in ("concepts_list.json", "db_config.json"):
        (tmp_path / name).unlink()
    for place, images in ((tmp_path, DOG), (tmp_path / "train", "10_sks dog")):
        found = import_project(place, place)
        assert found.project["concepts"][0]["images"] == images
        assert found.project["concepts"][0]["repeats"] == 10
    with pytest.raises(TenutoError, match=r"folder above, .*train"):
        import_project(tmp_path / "train" / "10_sks dog", tmp_path, system="sd-scripts")
    with pytest.raises(TenutoError, match="did you mean"):
        import_project(tmp_path / "run.sh", tmp_path, extra="--train_data_dir .")


@pytest.mark.parametrize(
    ("option", "theirs", "says"),
    [
        ("--caption_extension=.caption", "caption_extension", ".txt files, which were never read"),
        ("--network_module=my.own.module", "network_module", "never imported"),
        ("--optimizer_type=my.Optimizer", "optimizer_type", "never imported"),
        ("--lr_scheduler_type=my.Scheduler", "lr_scheduler_type", "never imported"),
        ("--optimizer_type=DAdaptAdam --learning_rate=1", "learning_rate", "1e-4 stands"),
        ("--optimizer_type=Adafactor --learning_rate=1e-5", "learning_rate", "1e-4 stands"),
        ("--optimizer_type=PagedAdamW8bit", "optimizer_type", "without paging"),
        ("--optimizer_type=AdamWScheduleFree --lr_scheduler=cosine", "lr_scheduler", "constant"),
        ("--lr_warmup_steps=10 --lr_scheduler=constant", "lr_warmup_steps", "did nothing"),
        ("--vae=owner/vae", "vae", "not on this machine"),
        ("--vae=/models/vae.pt", "vae", "tenuto convert"),
        ("--network_dropout=0.1 --network_args rank_dropout=0.2", "rank_dropout", "one kind of part"),
        ("--multires_noise_iterations=6", "multires_noise_iterations", "same in kind"),
        ("--loss_type=huber", "loss_type", "squared"),
        ("--caption_dropout_every_n_epochs=2", "caption_dropout_every_n_epochs", "no such setting"),
        ("--network_args algo=ia3 conv_dim=4 --network_module=lycoris.kohya", "network_module", "plain LoRA"),
        ("--network_args algo=boft --network_alpha=4 --network_module=lycoris.kohya", "network_alpha", "no scale"),
        ("--network_args algo=loha dora_wd=True --network_module=lycoris.kohya", "dora_wd", "LoRA alone"),
        ("--max_grad_norm=0", "max_grad_norm", "never reached"),
        ("--max_train_epochs=3 --max_train_steps=10", "max_train_steps", "max_train_epochs wins"),
        ("--frobnicate=3", "frobnicate", "unknown"),
    ],
)
def test_what_is_not_carried_is_said(option: str, theirs: str, says: str, tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "a.sh").write_text(
        "accelerate launch train_network.py --train_data_dir=train --network_dim=4 --caption_extension=.txt " + option
    )
    found = import_project(tmp_path / "a.sh", tmp_path)
    assert says in said(found, theirs)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("--use_8bit_adam --learning_rate=3e-4", {"name": "adamw_8bit", "lr": 3e-4}),
        (
            "--optimizer_type=Prodigy --learning_rate=1 --optimizer_args d_coef=0.5 safeguard_warmup=True "
            "decouple=True",
            {"name": "prodigy", "lr": 1.0, "d_coef": 0.5, "safeguard_warmup": True, "bias_correction": False,
             "weight_decay": 0.0},
        ),
        (
            "--optimizer_type=adafactor --unet_lr=2e-4 --optimizer_args relative_step=False scale_parameter=False",
            {"name": "adafactor", "lr": 2e-4, "scale_parameter": False, "weight_decay": 0.0},
        ),
        (
            "--optimizer_type=schedulefree.AdamWScheduleFree --learning_rate=1e-3",
            {"name": "adamw_schedulefree", "lr": 1e-3, "weight_decay": 0.0},
        ),
    ],
)  # fmt: skip
def test_optimizers_that_tenuto_has(options: str, wanted: dict[str, Any], tmp_path: Path) -> None:
    write_all(tmp_path)
    text = "train_network.py --train_data_dir=train --network_dim=4 --network_train_unet_only " + options
    (tmp_path / "a.sh").write_text(text)
    found = import_project(tmp_path / "a.sh", tmp_path)
    assert found.project["training"]["optimizer"] == wanted
    make_project(found.project, "imported")


@pytest.mark.parametrize(
    ("module", "arguments", "kind"),
    [
        ("lycoris.kohya", "algo=loha", "loha"),
        ("networks.loha", "", "loha"),
        ("lycoris.kohya", "algo=lokr factor=8", "lokr"),
        ("lycoris.kohya", "algo=diag-oft", "oft"),
        ("lycoris.kohya", "algo=boft", "boft"),
        ("lycoris.kohya", "algo=locon", "lora"),
    ],
)
def test_other_kinds_of_adapter_are_carried(module: str, arguments: str, kind: str, tmp_path: Path) -> None:
    write_all(tmp_path)
    text = f"train_network.py --train_data_dir=train --network_dim=8 --network_module={module}"
    (tmp_path / "a.sh").write_text(f"accelerate launch {text} " + (f"--network_args {arguments}" if arguments else ""))
    adapter = import_project(tmp_path / "a.sh", tmp_path).project["training"]["adapter"]
    assert (adapter.get("kind", "lora"), adapter["rank"]) == (kind, 8)
    assert adapter.get("factor") == (8 if "factor" in arguments else None)


def test_precision_of_the_base_and_of_the_file(tmp_path: Path) -> None:
    write_all(tmp_path)
    text = "train_network.py --train_data_dir=train --network_dim=4 --mixed_precision=fp16 --save_precision=fp16"
    (tmp_path / "a.sh").write_text(text)
    training = import_project(tmp_path / "a.sh", tmp_path).project["training"]
    assert (training["precision"], training["save_precision"]) == ("fp16", "fp16")


def test_a_warm_up_of_one_step_is_not_the_whole_run(tmp_path: Path) -> None:
    write_all(tmp_path)
    for value, updates in (("1", 1), ("0.5", 50)):
        text = (
            f"train_network.py --train_data_dir=train --network_dim=4 --max_train_steps=100 --lr_warmup_steps={value}"
        )
        (tmp_path / "a.sh").write_text(text + " --lr_scheduler=cosine")
        found = import_project(tmp_path / "a.sh", tmp_path)
        assert found.project["training"]["learning_rate"]["warmup"] == updates


def test_steps_between_saves_are_halved_with_reg(tmp_path: Path) -> None:
    write_all(tmp_path)
    for reg, updates in (("", 100), (" --reg_data_dir=reg", 50)):
        text = "train_network.py --train_data_dir=train --network_dim=4 --save_every_n_steps=100" + reg
        (tmp_path / "a.sh").write_text(text)
        assert import_project(tmp_path / "a.sh", tmp_path).project["training"]["save_every"] == updates


@pytest.mark.parametrize(
    ("options", "method", "settings"),
    [
        ("--scale_weight_norms=2", "max_norm", {"limit": 2.0}),
        ("--min_snr_gamma=5", "snr_weight", {"gamma": 5.0}),
        ("--debiased_estimation_loss", "snr_weight", {"shape": "debiased"}),
        ("--ip_noise_gamma=0.1", "input_perturbation", {"weight": 0.1}),
        ("--noise_offset=0.05", "noise_offset", {"weight": 0.05}),
        ("--network_dropout=0.1", "adapter_dropout", {"weight": 0.1, "what": "neuron"}),
        ("--network_args rank_dropout=0.2", "adapter_dropout", {"weight": 0.2, "what": "rank"}),
        ("--max_timestep=600", "timestep_window", {"low": 0.0, "high": 0.6, "prior": True}),
    ],
)
def test_methods_are_carried_and_never_push_the_prior_out(
    options: str, method: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    write_all(tmp_path)
    (tmp_path / "a.sh").write_text(f"train_network.py --train_data_dir=train --network_dim=4 {options}")
    found = import_project(tmp_path / "a.sh", tmp_path)
    usual = {"cached_prior": {}, "output_preservation": {"share": 0.05}}
    assert found.project["regularizers"] == {method: settings, **usual}
    (tmp_path / "p.toml").write_text(found.to_toml())
    assert set(load_project(tmp_path / "p.toml").regularizers) == {method, *usual}
    (tmp_path / "a.sh").write_text(
        f"train_network.py --train_data_dir=train --reg_data_dir=reg --network_dim=4 {options}"
    )
    assert set(import_project(tmp_path / "a.sh", tmp_path).project["regularizers"]) == {method, "prior_preservation"}


def test_what_the_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "nai.safetensors").write_bytes(b"")
    (tmp_path / "a.sh").write_text(
        "sdxl_train_network.py --pretrained_model_name_or_path=nai.safetensors --v_parameterization "
        "--zero_terminal_snr --network_args dora_wd=True"
    )
    inner = tmp_path / "inner"
    inner.mkdir()
    project = import_project(tmp_path / "a.sh", inner).project
    assert project["base"] == {"model": "../nai.safetensors", "prediction": "v", "zero_terminal_snr": True}
    assert project["training"]["adapter"]["dora"]


def test_pickles_are_told_how_to_convert(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("train_network.py --network_dim=4 --network_weights=old.pt")
    assert "tenuto convert" in said(import_project(tmp_path / "a.sh", tmp_path), "network_weights")


def test_a_method_that_the_catalogue_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(REGULARIZERS, "max_norm")
    (tmp_path / "a.sh").write_text("train_network.py --train_data_dir=train --network_dim=4 --scale_weight_norms=2")
    assert "max_norm" in said(import_project(tmp_path / "a.sh", tmp_path), "scale_weight_norms")


def test_several_folders(tmp_path: Path) -> None:
    """One class of words is one concept; its further folders join it; reg goes to the concept of its class word."""
    for name, caption in (("5_sks dog", "sks dog"), ("2_sks dog close", None), ("3_ohwx cat", "ohwx cat")):
        pictures(tmp_path / "train" / name, 2, caption)
    (tmp_path / "train" / "2_sks dog close").rename(tmp_path / "train" / "2_sks dog")
    pictures(tmp_path / "train" / "0_old", 2)
    pictures(tmp_path / "reg" / "1_dog", 3, "a dog")
    pictures(tmp_path / "reg" / "1_cat", 3, "ohwx cat")
    found = import_project(tmp_path, tmp_path)
    project = found.project
    assert [(own["name"], own["trigger"], own["class_word"]) for own in project["concepts"]] == [
        ("sks dog", "sks", "dog"), ("ohwx cat", "ohwx", "cat"),
    ]  # fmt: skip
    instance, *reg = project["prior"]["folders"]
    assert instance == {"path": "train/5_sks dog", "use": "instance", "concept": "sks dog", "repeats": 5,
                        "caption": "sks dog"}  # fmt: skip
    assert project["concepts"][0]["images"] == "train/2_sks dog"
    assert [own.get("caption") for own in project["concepts"]] == ["sks dog", None], "where pictures lack a file"
    assert [own["concept"] for own in reg] == ["ohwx cat", "sks dog"]
    assert "hold the trigger" in said(found, "reg captions")
    assert "0 repeats" in said(found, "train_data_dir")


def test_a_folder_that_is_both(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 1, "x")
    subsets = '[[datasets.subsets]]\nimage_dir = "a"\n[[datasets.subsets]]\nimage_dir = "a"\nis_reg = true\n'
    (tmp_path / "d.toml").write_text("[[datasets]]\n" + subsets)
    with pytest.raises(TenutoError, match="take one out"):
        import_project(tmp_path / "d.toml", tmp_path)


def test_variables_that_are_set_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("accelerate launch train_network.py --train_data_dir=$DATA --network_dim=4 --seed 0")
    found = import_project(tmp_path / "a.sh", tmp_path)
    assert "does not set" in said(found, "train_data_dir")
    assert found.project["seed"] == 0


def test_settings_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps(KOHYA_SS | {"network_dim": "many", "keep_tokens": -1, "clip_skip": "x"})
    )
    found = import_project(tmp_path / "a.json", tmp_path)
    assert "no number" in said(found, "network_dim")
    assert "below 0" in said(found, "keep_tokens")
    assert "clip_skip" not in found.project["base"]


def test_absolute_and_relative_paths(tmp_path: Path) -> None:
    write_all(tmp_path)
    inner = tmp_path / "projects"
    inner.mkdir()
    found = import_project(tmp_path / "dataset.toml", inner)
    assert found.project["concepts"][0]["images"] == "../" + DOG
    (tmp_path / "dataset.toml").write_text(
        f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = {json.dumps(str(tmp_path / DOG))}\n"
    )
    assert import_project(tmp_path / "dataset.toml", inner).project["concepts"][0]["images"] == str(tmp_path / DOG)


def call(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path)
    for path in (tmp_path / DOG).glob("00[12].txt"):
        path.unlink()
    monkeypatch.chdir(tmp_path)
    status, out, errors = call("import", "diffusers.sh", "-o", "p.toml", "--write-captions", "--json")
    assert status == 0, errors
    told = json.loads(out)
    assert told["system"] == "diffusers"
    assert told["captions_written"] == 2, "what was there is left alone"
    assert (tmp_path / DOG / "001.txt").read_text() == "a photo of sks dog\n"
    assert (tmp_path / DOG / "000.txt").read_text() == "sks dog, park 0"
    load_project(Path("p.toml"))
    status, out, errors = call("import", "run.sh", "-o", "p.toml")
    assert (status, len(errors.splitlines())) == (1, 1)
    assert "--force" in errors
    assert call("import", "run.sh", "-o", "p.toml", "--force", "--args", "--network_dim=2")[0] == 0
    assert load_project(Path("p.toml")).training.adapter.rank == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", b"{", "not readable as JSON"),
        ("a.sh", b"accelerate launch train_network.py --train_data_dir=" + b"(" * 5000, r"can be no path"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b'{"LoRA_type": "\\ud800"}', "no text"),
        ("a.toml", b"= 1", "not readable as TOML"),
        ("a.sh", b"echo hello", "not recognised"),
        ("a.sh", b"\xff\xfe\x00", "not UTF-8"),
        ("a.safetensors", b"", "holds weights"),
        ("a.txt", b"a" * (5 << 20), "hardly a config"),
        ("a.sh", b"accelerate launch flux_train_network.py --network_dim 4", "cannot train yet"),
        ("a.sh", b"python train_db.py --max_train_steps 4", "whole checkpoint"),
        ("a.md", b"--train_data_dir a\npython my_train.py --network_dim 4 --unet_lr 1", "no call of train_network.py"),
        ("a.sh", b"python train_network.py --seed 1\npython train_network.py --seed 2", "2 training commands"),
        ("nothing.toml", None, "no such file"),
    ],
)
def test_what_is_no_config_is_one_line(name: str, content: bytes | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TenutoError, match=says) as error:
        import_project(tmp_path / name, tmp_path)
    assert name in str(error.value) or "train" in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_system(tmp_path: Path) -> None:
    with pytest.raises(TenutoError, match="derrian"):
        import_project(write_all(tmp_path)["run.sh"], tmp_path, system="onetrainer")
    assert set(SYSTEMS) == {"sd-scripts", "kohya_ss", "derrian", "d8", "diffusers"}


MASKED = """
[[datasets]]
resolution = 64
  [[datasets.subsets]]
  image_dir = "train/10_sks dog"
  class_tokens = "sks dog"
  conditioning_data_dir = "masks"
"""


def test_masks_count_where_they_counted_there(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "masked.toml").write_text(MASKED)
    command = "train_network.py --dataset_config=masked.toml --network_dim=4"
    (tmp_path / "a.sh").write_text(command + " --masked_loss")
    found, project = imported(tmp_path, "a.sh")
    assert project.concepts[0].masks == str(tmp_path / "masks")
    assert project.data.alpha == "flatten"
    assert "a small mask counts more" in said(found, "masked_loss")
    (tmp_path / "a.sh").write_text(command)
    found, project = imported(tmp_path, "a.sh")
    assert project.concepts[0].masks is None
    assert "without masked_loss its masks did nothing" in said(found, "conditioning_data_dir")


def test_transparency_is_a_mask_where_it_was_one(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "a.sh").write_text("train_network.py --train_data_dir=train --network_dim=4 --alpha_mask --masked_loss")
    found, project = imported(tmp_path, "a.sh")
    assert project.data.alpha == "mask"
    assert "a small mask counts more" in said(found, "masked_loss")
    (tmp_path / "a.sh").write_text("train_network.py --train_data_dir=train --network_dim=4 --masked_loss")
    found, project = imported(tmp_path, "a.sh")
    assert project.data.alpha == "flatten"
    assert "no masks were given" in said(found, "masked_loss")
