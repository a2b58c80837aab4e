"""The project file: composes the settings that live beside each part. One schema for TOML, --set, forms and docs."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

import tomli_w
from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from tenuto.data.buckets import BucketSettings
from tenuto.data.dataset import VariationSettings
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.families.prediction import Told
from tenuto.families.sampling import SamplerSettings
from tenuto.prior.prompts import PromptSettings
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.settings import TrainingSettings
from tenuto.words import Kind, Settings, TenutoError


class BaseSettings(Settings):
    """[base]: the checkpoint being adapted; it is never changed."""

    model: str = "pocket"
    """A name ("pocket"), a .safetensors file, a diffusers folder, or a hub id."""
    vae: str | None = None
    """Another autoencoder: a .safetensors file or a diffusers folder."""
    clip_skip: PositiveInt = 1
    """Which of the text encoder's last layers is read: 1 the last, 2 the one before (NAI and its children). SDXL
    always reads the one before the last: 1 and 2 are the same there."""
    prediction: Told = "auto"
    """auto: what the checkpoint says; eps or v where it doesn't say or says it wrongly."""
    zero_terminal_snr: bool | None = None
    """Whether the last timestep is noise alone (NoobAI v-pred). Unset: what the checkpoint says."""
    device: str = "auto"
    """auto: a GPU when there is one, else the CPU; or a torch device such as "cuda:1"."""


class FolderSettings(Settings):
    """[[prior.folders]]: the user's own reg pictures."""

    path: str
    """The folder; pictures with captions of the same stem where there are any."""
    use: Literal["prior", "instance"] = "prior"
    """prior: protects the base; instance: trained on like the user's own pictures."""
    concept: str = ""
    """Whose prior rows they are; empty: everybody's."""
    caption: str = ""
    """For pictures without a caption file."""
    repeats: PositiveInt = 1
    """Uses per epoch, when used as instance pictures."""


class PriorSettings(PromptSettings):
    """[prior]: three numbers, never one: how many prior images exist, how often they are drawn, what they count.

    (What they count is the regularizers' `weight`.) Where the prompts come from stands here too.
    """

    per_image: NonNegativeInt | None = None
    """Pool size: prior images per instance image. Unset: as many as the run draws, so that each is used once (or, where
    every method that uses them reads kept states, so that each of those is)."""
    ratio: NonNegativeFloat = 1.0
    """Prior rows per instance row; any number."""
    sampler: SamplerSettings = SamplerSettings()
    """How prior images are sampled from the base."""
    seed: int = 0
    """Seed of the prior images. Apart from the run's seed, so that runs share them."""
    batch: PositiveInt = 16
    """Prior images that are sampled together; it moves their last bits, so it belongs to the plan."""
    store: str | None = None
    """Folder of the prior set; unset: one place for all projects of this user."""
    folders: tuple[FolderSettings, ...] = ()
    """The user's own reg pictures."""


class ConceptSettings(Settings):
    """[[concepts]]: one thing to learn."""

    name: str = Field(min_length=1, pattern=r"^[^/\\]+$")
    """What it is called in plans and reports."""
    kind: Kind = "concept"
    """character, concept, clothing or style: decides sensible prior defaults."""
    images: str
    """Folder of pictures with captions (.txt of the same stem)."""
    trigger: str = ""
    """The word(s) that call it; several are separated by commas."""
    class_word: str = ""
    """What it is a case of ("1girl", "dog"); may be empty."""
    repeats: PositiveInt = 1
    """Uses of each picture per epoch."""
    prior: PriorSettings | None = None
    """[concepts.prior]: what differs from [prior] for this concept (prompts, per_image, ratio)."""
    test_images: str | None = None
    """Pictures of the same thing in styles, places and views that `images` lacks: to measure it without its bias."""


class DataSettings(Settings):
    """[data]: how pictures and captions are read."""

    buckets: BucketSettings = BucketSettings()
    """Sizes that pictures are resized and cropped to."""
    variation: VariationSettings = VariationSettings()
    """How rows vary from visit to visit."""
    background: str = "white"
    """The colour that transparency is flattened on."""
    alpha: Literal["flatten", "mask"] = "flatten"
    """What transparency means: only a background, or also how much each place counts in the instance loss."""
    caption_extension: str = ".txt"
    """Extension of the caption files."""
    validation: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the pictures that is set aside, never trained on."""


class ArmsSettings(Settings):
    """[arms]: which trainings are made and compared."""

    seeds: tuple[int, ...] | None = None
    """Training seeds; unset: the project's one. Several give the report its spread."""
    plain: bool = True
    """Also train without any regularizer, to compare with."""


class Project(Settings):
    """A whole project."""

    name: str | None = None
    """Names the run's folder; unset: the project file's name."""
    seed: int = 0
    """Decides every draw."""
    base: BaseSettings = BaseSettings()
    concepts: tuple[ConceptSettings, ...] = Field(min_length=1)
    data: DataSettings = DataSettings()
    prior: PriorSettings = PriorSettings()
    regularizers: dict[str, SerializeAsAny[Regularizer]] = Field(default={"prior_preservation": PriorPreservation()})
    training: TrainingSettings = TrainingSettings()
    arms: ArmsSettings = ArmsSettings()
    comparison: ComparisonSettings = ComparisonSettings()

    @field_validator("regularizers", mode="before")
    @classmethod
    def _from_catalogue(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        for name in value:
            if name not in REGULARIZERS:
                raise ValueError(f"no regularizer is called {name!r}{_nearest(name, REGULARIZERS)}")
        return {
            name: fields if isinstance(fields, Regularizer) else REGULARIZERS[name].model_validate(fields)
            for name, fields in value.items()
        }

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [concept.name for concept in self.concepts]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two concepts are called {min(twice)!r}; names must differ")
        return self

    def prior_of(self, concept: ConceptSettings) -> PriorSettings:
        """[prior] with the concept's own settings over it. Several concepts are each other's prior unless asked."""
        own = concept.prior
        both = self.prior.model_copy(update={name: getattr(own, name) for name in own.model_fields_set} if own else {})
        if len(self.concepts) > 1 and both.prompts is None:
            return both.model_copy(update={"prompts": "none"})
        return both

    def ratios(self) -> dict[str, float]:
        """Prior rows per instance row, by concept; 0 for all when no active regularizer wants prior rows."""
        wanted = any(method.active() and method.needs_prior() for method in self.regularizers.values())
        return {concept.name: self.prior_of(concept).ratio if wanted else 0.0 for concept in self.concepts}

    def states(self) -> int:
        """How many states of every prior image's path are kept: as many as the method that reads most of them."""
        return most_states(self.regularizers)

    def visits(self) -> int:
        """Uses that a prior image is good for: 1, or its kept states where every method with prior rows reads those."""
        own = [method for method in self.regularizers.values() if method.active() and method.needs_prior()]
        return max(1, min((method.needs_states() for method in own), default=1))

    def sensor_states(self) -> int:
        """How many controller states are read; 0: none."""
        return max((method.needs_sensor() for method in self.regularizers.values() if method.active()), default=0)

    def to_toml(self) -> str:
        """The project with every default written out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def most_states(methods: Mapping[str, Regularizer]) -> int:
    """As many states of a prior image's path as the active method that reads most of them."""
    return max((method.needs_states() for method in methods.values() if method.active()), default=0)


def load_project(path: Path, changes: Sequence[str] = ()) -> Project:
    """Read a project file; `changes` are "section.key=value" as in --set. Paths in it are relative to the file.

    Raises TenutoError that names the file, the key and the nearest valid name.
    """
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: no such project file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TenutoError(f"{path}: not a readable TOML file ({error})") from error
    for change in changes:
        _set(table, change)
    project = make_project(table, str(path))
    return _resolved(project, path.resolve().parent)


def make_project(table: Mapping[str, Any], source: str) -> Project:
    """A project from plain data; `source` is named in errors."""
    try:
        return Project.model_validate(table)
    except ValidationError as error:
        raise TenutoError(f"{source}: " + "; ".join(_explain(detail) for detail in error.errors())) from error


def _resolved(project: Project, folder: Path) -> Project:
    """Every path made absolute; in the file they are relative to it."""

    def paths(settings: Any, *names: str) -> Any:
        values = {name: getattr(settings, name) for name in names}
        full = {name: type(v)(folder / Path(v).expanduser()) for name, v in values.items() if v is not None}
        return settings.model_copy(update=full)

    prior = paths(project.prior, "own", "tag_csv", "bank", "store")
    prior = prior.model_copy(update={"folders": tuple(paths(own, "path") for own in prior.folders)})
    base = paths(project.base, "vae")
    base = paths(base, "model") if (folder / Path(project.base.model).expanduser()).exists() else base
    return project.model_copy(
        update={
            "base": base,
            "concepts": tuple(paths(concept, "images", "test_images") for concept in project.concepts),
            "prior": prior,
            "training": paths(project.training, "start_from"),
            "comparison": paths(project.comparison, "second_lora", "tagger"),
        }
    )


def _set(table: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    if not equals:
        raise TenutoError(f"--set {change}: write section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = name.strip().split(".")
    place: Any = table
    for part in path:
        place = place[int(part)] if isinstance(place, list) and part.isdigit() else place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise TenutoError(f"--set {change}: {part} is a value, not a section")
    if isinstance(place, list):
        raise TenutoError(f"--set {change}: name the entry by its number, e.g. concepts.0.trigger=...")
    place[last] = value


def _explain(detail: ErrorDetails) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        *path, wrong = detail["loc"]
        return f"{where} is not a setting{_nearest(str(wrong), _fields_at(Project, path))}"
    value = detail.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float) else ""
    return f"{where}: {detail['msg'].removeprefix('Value error, ')}{shown}"


def _nearest(wrong: str, valid: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(valid)}"


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names of the settings that exist at a place in the file."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
        elif isinstance(part, str) and part in REGULARIZERS:
            model = REGULARIZERS[part]
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside an annotation such as tuple[X, ...] or X | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, list, Union, UnionType, dict):
        return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
    return None
