"""kohya_ss, Derrian's scripts, D8 and diffusers: what each carries and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tenuto.formats.catalogue import import_project
from tenuto.words import TenutoError
from tests.formats.systems import D8_CONCEPTS, D8_CONFIG, DERRIAN, KOHYA_SS, pictures, write_all
from tests.formats.test_import import imported, said


def test_kohya_ss(tmp_path: Path) -> None:
    found, project = imported(tmp_path, "kohya.json")
    assert project.training.epochs == 5
    assert project.regularizers["prior_preservation"].weight == 0, "as written"
    assert "dropped zeros: it trained with 1" in said(found, "prior_loss_weight")
    assert "dropped zeros: it trained with 1" in said(found, "max_grad_norm")
    assert project.training.adapter.parts == ("attention", "feed_forward"), "a text rate of 0 trains the U-Net alone"
    assert "did nothing under Standard" in said(found, "conv_dim")
    assert "the kind of noise was Multires" in said(found, "noise_offset")
    assert project.data.variation.tag_dropout == 0.1, "from additional_parameters"
    assert project.base.zero_terminal_snr, "from additional_parameters"
    assert found.project["regularizers"]["multires_noise"] == {"levels": 6, "weight": 0.3}
    assert project.training.learning_rate.warmup == 10, "10 percent of 5 epochs of 20 updates"
    assert "doubled" in said(found, "epoch")
    assert project.training.precision == "bf16"
    assert project.base.clip_skip == 2
    assert not project.data.buckets.upscale
    assert "s3cret" not in json.dumps([vars(each) for each in found.left])


@pytest.mark.parametrize(
    ("changes", "length", "ignored"),
    [
        ({"max_train_steps": 300}, {"steps": 150}, {"epoch": "max_train_steps wins"}),
        (
            {"max_train_steps": 300, "max_train_epochs": "4"},
            {"epochs": 4},
            {"epoch": "max_train_epochs wins", "max_train_steps": "max_train_epochs wins"},
        ),
        ({"additional_parameters": "--max_train_steps=300"}, {"steps": 150}, {"epoch": "max_train_steps wins"}),
        ({"dataset_config": "dataset.toml"}, {"steps": 800}, {"epoch": "1600 steps"}),
        ({"max_train_steps": "many"}, {"epochs": 5}, {"max_train_steps": "taken as 0"}),
    ],
)
def test_kohya_ss_names_the_length_that_was_ignored(
    changes: dict[str, object], length: dict[str, int], ignored: dict[str, str], tmp_path: Path
) -> None:
    """Its interface counts epochs only where no steps are given; the trainer's own epochs win over steps."""
    write_all(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(KOHYA_SS | changes))
    found = import_project(tmp_path / "a.json", tmp_path)
    training = found.project["training"]
    assert {name: training[name] for name in ("steps", "epochs") if name in training} == length
    for theirs, why in ignored.items():
        assert why in said(found, theirs)


def test_kohya_ss_of_another_tab_or_family(tmp_path: Path) -> None:
    for changes, says in (({"flux1_checkbox": True}, "flux1"), ({"full_path": True}, "fine-tune tab")):
        (tmp_path / "a.json").write_text(json.dumps(KOHYA_SS | changes))
        with pytest.raises(TenutoError, match=says):
            import_project(tmp_path / "a.json", tmp_path)
    dreambooth = {name: value for name, value in KOHYA_SS.items() if name not in ("LoRA_type", "network_dim")}
    (tmp_path / "a.json").write_text(json.dumps(dreambooth | {"train_data_dir": ""}))
    found = import_project(tmp_path / "a.json", tmp_path)
    assert "whole checkpoint" in said(found, "LoRA_type")
    assert found.project["training"]["optimizer"]["lr"] == 1e-4


def test_kohya_ss_of_a_machine_whose_pictures_are_not_here(tmp_path: Path) -> None:
    """As its published presets are: quoted arguments, no folder, no reg pictures."""
    arguments = '"d0=1e-5" "weight_decay=0.4" "decouple=True" "betas=0.9,0.99"'
    preset = {"train_data_dir": "D:/away", "reg_data_dir": "", "prior_loss_weight": 1, "optimizer": "Prodigy",
              "optimizer_args": arguments, "caption_extension": ".txt2"}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(KOHYA_SS | preset))
    found = import_project(tmp_path / "a.json", tmp_path)
    optimizer = found.project["training"]["optimizer"]
    assert (optimizer["d0"], optimizer["weight_decay"], optimizer["betas"]) == (1e-5, 0.4, [0.9, 0.99])
    assert found.project["data"]["caption_extension"] == ".txt2"
    assert "nothing to carry" in said(found, "prior_loss_weight")


@pytest.mark.parametrize(
    ("changes", "why"), [({"prior_loss_scale": False}, "schedule was off"), ({}, "without class images it did nothing")]
)
def test_no_number_of_d8s_is_passed_over(changes: dict[str, object], why: str, tmp_path: Path) -> None:
    write_all(tmp_path)
    concepts = [D8_CONCEPTS[0] | {"num_class_images_per": 5 if changes else 0, "instance_token": "", "class_token": ""}]
    (tmp_path / "concepts_list.json").write_text(json.dumps(concepts))
    (tmp_path / "db_config.json").write_text(json.dumps(D8_CONFIG | changes))
    found = import_project(tmp_path / "db_config.json", tmp_path)
    assert why in said(found, "prior_loss_target")
    assert why in said(found, "prior_loss_weight_min")
    told = {each.theirs for each in (*found.carried, *found.left)}
    assert {name for name in (*D8_CONFIG, *concepts[0]) if "prior" in name or "token" in name} <= told


def test_derrian(tmp_path: Path) -> None:
    found, project = imported(tmp_path, "derrian.toml")
    assert project.name == "dog-v1", "the placeholder is filled in"
    assert (project.training.epochs, project.training.batch, project.seed) == (10, 2, 23)
    assert (project.training.adapter.rank, project.training.adapter.alpha) == (32, 16)
    assert project.training.optimizer.weight_decay == 0.1
    assert project.training.learning_rate.warmup == 10, "5 percent of 10 epochs of 20 updates"
    assert "empty text" in said(found, "class_tokens")
    assert "first pass" in said(found, "num_repeats")
    assert "longer than asked" in said(found, "warmup_ratio")


def test_derrian_oddities(tmp_path: Path) -> None:
    write_all(tmp_path)
    file = tmp_path / "odd.toml"
    file.write_text(DERRIAN.replace('"train/10_sks dog"', r'"D:\pictures\10_sks dog"').replace("is_reg = true\n", ""))
    found = import_project(file, tmp_path)
    assert "backslashes" in said(found, "the file")
    own = found.project["concepts"][0]
    assert (own["name"], own["trigger"], own["images"]) == ("sks dog", "sks", r"D:\pictures\10_sks dog")
    pictures(tmp_path / "reg_dogs", 2, "dog")
    file.write_text(DERRIAN.replace("reg/1_dog", "reg_dogs").replace("is_reg = true\n", ""))
    assert "looks like a reg folder" in said(import_project(file, tmp_path), "image_dir")
    file.write_text(DERRIAN.replace('train_mode = "lora"', 'train_mode = "textual_inversion"'))
    with pytest.raises(TenutoError, match="textual_inversion"):
        import_project(file, tmp_path)


@pytest.mark.parametrize("name", ["concepts_list.json", "db_config.json"])
def test_d8(name: str, tmp_path: Path) -> None:
    found, project = imported(tmp_path, name)
    own = project.concepts[0]
    assert own.prior is not None
    assert (own.prior.per_image, own.prior.prompts) == (50, "match")
    assert (project.prior.sampler.guidance, project.prior.sampler.steps) == (7.5, 40)
    assert project.prior.sampler.negative == "blurry"
    method = project.regularizers["prior_preservation"]
    assert (method.weight, method.schedule.shape) == (0.75, "linear")
    assert (method.schedule.until_epoch, method.schedule.minimum) == (60, 0.2)
    assert "reached the loss" in said(found, "prior_loss_weight")
    assert (project.training.epochs, project.training.adapter.rank, project.training.optimizer.lr) == (50, 16, 1e-4)
    assert project.training.learning_rate.warmup == 20
    assert project.prior.folders == (), "of unknown origin, so made anew"
    assert "60 pictures" in said(found, "class_data_dir")
    assert "left out" in said(found, "concept 2")
    assert (project.data.variation.shuffle, project.data.variation.keep_tokens) == (True, 1)


@pytest.mark.parametrize(
    "data",
    [
        {"db_train": {"label": "Train", "title": ""}, "lr_scheduler": {"label": "scheduler", "title": "..."}},
        {"db_use_shared_src": {"value": False}, "resolution": {"value": 768, "min": 512, "max": 1024, "step": 64}},
    ],
)
def test_files_of_d8s_interface_are_refused(data: dict[str, object], tmp_path: Path) -> None:
    """Its titles_en.json and defaults.json, which hold the names of settings."""
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(TenutoError, match=r"a\.json: .* D8's interface.*give a model's db_config\.json"):
        import_project(tmp_path / "a.json", tmp_path)


def test_d8_prompts_without_tokens(tmp_path: Path) -> None:
    pictures(tmp_path / "pants", 2)
    concept = {"instance_data_dir": "pants", "instance_prompt": "a man wearing bossdyn pants",
               "class_prompt": "a man wearing pants", "num_class_images": 7}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps([concept]))
    found = import_project(tmp_path / "c.json", tmp_path)
    own = found.project["concepts"][0]
    assert (own["trigger"], own["class_word"]) == ("bossdyn", "pants")
    assert own["prior"] == {"per_image": 4, "prompts": "match"}
    assert own["caption"] == "a man wearing bossdyn pants"
    assert [(each.folder, each.caption) for each in found.uncaptioned] == [(tmp_path / "pants", own["caption"])]
    assert "concepts.caption" in said(found, "instance_prompt")
    (tmp_path / "c.json").write_text(json.dumps([{"instance_data_dir": ""}, 5]))
    with pytest.raises(TenutoError, match="none of its 2 concepts"):
        import_project(tmp_path / "c.json", tmp_path, system="d8")


@pytest.mark.parametrize("epochs", ["", " --num_train_epochs=3"])
def test_diffusers_steps_win_over_epochs(epochs: str, tmp_path: Path) -> None:
    write_all(tmp_path)
    file = tmp_path / "a.sh"
    file.write_text("train_dreambooth_lora.py --instance_data_dir=train --max_train_steps=70" + epochs)
    found = import_project(file, tmp_path)
    training = found.project["training"]
    assert (training["steps"], "epochs" in training) == (70, False)
    assert ("max_train_steps wins" in said(found, "num_train_epochs")) == bool(epochs)


def test_diffusers(tmp_path: Path) -> None:
    found, project = imported(tmp_path, "diffusers.sh")
    assert project.prior.per_image == 50, "200 class images over 4 pictures"
    assert project.regularizers["prior_preservation"].weight == 0.8
    assert project.training.adapter.parts == ("attention",)
    assert (project.training.adapter.rank, project.training.batch, project.training.micro_batch) == (8, 2, 1)
    assert project.training.epochs == 150, "an epoch there was 200 rows, here it is 4"
    assert project.training.sample_prompts == ("a sks dog in a bucket",)
    assert "every picture" in said(found, "instance_prompt")
    assert project.concepts[0].caption == "a photo of sks dog"
