"""A project's settings, composed of those that live beside each part. One schema for TOML, --set, forms and docs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tenuto.data.buckets import BucketSettings
from tenuto.data.dataset import VariationSettings
from tenuto.data.images import colour
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.families.prediction import Told
from tenuto.families.sampling import SamplerChoice, SamplerSettings
from tenuto.prior.prompts import PromptSettings
from tenuto.project.wording import nearest
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.settings import TrainingSettings
from tenuto.words import Kind, Settings


class BaseSettings(Settings):
    """[base]: the checkpoint being adapted; it is never changed."""

    model: str = "pocket"
    """A name ("pocket"), a .safetensors file, a diffusers folder, or a hub id."""
    vae: str | None = None
    """Another autoencoder: a .safetensors file or a diffusers folder."""
    clip_skip: PositiveInt = 1
    """Which of the text encoder's last layers is read: 1 the last, 2 the one before (NAI and its children). SDXL
    always reads the one before the last: 1 and 2 are the same there."""
    fp8: bool = False
    """Keep the U-Net's weights in 8 bits (sd-scripts' fp8_base): half of the memory of bf16, for cards on which it
    would not fit. They are computed with in `training.precision`. What the base answers moves a little (memory page of
    the docs), so the prior set is made anew; the LoRA is an ordinary one."""
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


class PriorSampler(SamplerChoice):
    """[prior.sampler]: how prior images are sampled from the base."""

    steps: PositiveInt | None = None
    """Denoising steps. Unset: 20, or, where every method that uses prior images reads kept states, as many as those."""


USES = 5
"""How often a prior image is used that is noised anew each time: a pool five or ten times as large was no better on six
ready sets of seven (docs/findings.md)."""


class PriorSettings(PromptSettings):
    """[prior]: three numbers, never one: how many prior images exist, how often they are drawn, what they count.

    (What they count is the regularizers' `weight`.) Where the prompts come from stands here too.
    """

    per_image: NonNegativeInt | None = None
    """Pool size: prior images per instance image. Unset: a fifth of what the run draws, for more were not better (or,
    where every method that uses them reads kept states, so many that each of those is used once): in a short run fewer
    than one a picture, of every bucket some."""
    ratio: NonNegativeFloat | None = None
    """Prior rows per instance row; any number. Where updates get less than one, each counts more (up to 8 times).
    Unset: 0.5, or 1 where a pool of pictures is asked for; for cached_prior half its weight (from 0.1 to 1), half of
    that beside output_preservation or trigger_contrast; under drift_controller at least 0.5, beside those at least
    0.25."""
    sampler: PriorSampler = PriorSampler()
    """How prior images are sampled from the base."""
    seed: int = 0
    """Seed of the prior images. Apart from the run's seed, so that runs share them."""
    batch: PositiveInt = 16
    """Prior images that are kept in one file and made as a whole."""
    at_once: PositiveInt | None = None
    """Prior images on the device at once; it moves their last bits. Unset: on a CPU `batch`, on a GPU as many as fit
    (64 are tried, then half as many, and so on)."""
    store: str | None = None
    """Folder of the prior set; unset: one place for all projects of this user."""
    folders: tuple[FolderSettings, ...] = ()
    """The user's own reg pictures."""

    def asks_for_pool(self) -> bool:
        """Whether somebody says which prior images there shall be."""
        return self.per_image is not None or any(folder.use == "prior" for folder in self.folders)


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
    caption: str = ""
    """The caption of pictures that have no caption file."""
    prior: PriorSettings | None = None
    """[concepts.prior]: what differs from [prior] for this concept (prompts, per_image, ratio)."""
    masks: str | None = None
    """Folder of masks: a picture of the same name (or NAME-masklabel) for each of `images`, white where it counts in
    the instance loss, black where it does not."""
    test_images: str | None = None
    """Pictures of the same thing in styles, places and views that `images` lacks: to measure it without its bias."""


class DataSettings(Settings):
    """[data]: how pictures and captions are read."""

    buckets: BucketSettings = BucketSettings()
    """Sizes that pictures are resized and cropped to."""
    variation: VariationSettings = VariationSettings()
    """How rows vary from visit to visit."""
    background: str = "white"
    """The colour that transparency is flattened on: a CSS name or #rrggbb."""
    alpha: Literal["flatten", "mask"] = "flatten"
    """What transparency means: nothing but the background, or how much each place counts in the instance loss; the
    picture then keeps the colours that it has there."""
    caption_extension: str = ".txt"
    """Extension of the caption files."""
    validation: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the pictures that is set aside, never trained on."""

    @property
    def ground(self) -> str | None:
        """What the transparent parts of the instance pictures are laid on; None: they keep their colours."""
        return None if self.alpha == "mask" else self.background

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, value: str) -> str:
        colour(value)
        return value

    @field_validator("caption_extension")
    @classmethod
    def _is_an_extension(cls, value: str) -> str:
        if not re.fullmatch(r"(\.[\w-]+)+", value):
            raise ValueError("write an extension such as .txt")
        return value


class ArmsSettings(Settings):
    """[arms]: which trainings are made and compared."""

    seeds: tuple[int, ...] | None = None
    """Training seeds; unset: the project's one. Several give the report its spread."""
    plain: bool = True
    """Also train without any regularizer, to compare with."""
    at_once: int = Field(default=1, ge=1)
    """Trainings under way at once on the CPU, and then arms being compared, each in a process with its share of the
    cores and a base of its own in memory: with small models faster than one after another."""


def _method(named: Any) -> Any:
    """A regularizer from (its name, its fields)."""
    name, fields = named
    if name not in REGULARIZERS:
        raise ValueError(f"no regularizer is called {name!r}{nearest(name, REGULARIZERS)}")
    return fields if isinstance(fields, Regularizer) else REGULARIZERS[name].model_validate(fields)


def usual_hold(
    concepts: Iterable[tuple[Kind, str]],
    *,
    reg: bool = False,
    pictures: bool = False,
    beside: Iterable[Regularizer] = (),
) -> dict[str, Regularizer]:
    """What holds a project that names no regularizer, or only some that do nothing alone and stand `beside`: what was
    measured to do best (docs/findings.md) for concepts of these kinds and triggers.

    What has a trigger is held both where the base's pictures are and, uncalled, where the user's are: on a share of the
    rows as small as that of the prior rows, larger where a drift budget may raise what they count. Every state of a
    prior image shows how the base draws, so that a style is hardly learned beside kept states: it is held uncalled
    alone, or, where somebody asks for prior `pictures`, by those. The user's own `reg` pictures have no states, and are
    used as everywhere.
    """
    learned = list(concepts)
    kinds, called = {kind for kind, _ in learned}, all(trigger for _, trigger in learned)
    if reg or ("style" in kinds and (pictures or not called)):
        return {"prior_preservation": PriorPreservation()}
    if "style" in kinds:
        return {"output_preservation": OutputPreservation()}
    if not called:
        return {"cached_prior": CachedPrior()}
    uncalled = max(method.helped_ratio() for method in (CachedPrior(), *beside) if method.active())
    return {"cached_prior": CachedPrior(), "output_preservation": OutputPreservation(share=uncalled)}


def as_tables(methods: Mapping[str, Regularizer]) -> dict[str, dict[str, Any]]:
    """Methods as a project file names them: with the settings that somebody chose."""
    return {name: method.model_dump(mode="json", exclude_unset=True) for name, method in methods.items()}


def _usual(
    concepts: Sequence[ConceptSettings], prior: PriorSettings | None, beside: Collection[Regularizer] = ()
) -> dict[str, Regularizer]:
    if prior and prior.ratio == 0:
        return {}
    reg = prior is not None and any(folder.use == "prior" for folder in prior.folders)
    pictures = prior is not None and (prior.asks_for_pool() or prior.ratio is not None)
    pictures |= any(method.needs_company() for method in beside if method.active())
    learned = [(concept.kind, concept.trigger) for concept in concepts]
    found = usual_hold(learned, reg=reg, pictures=pictures, beside=beside)
    if prior and prior.prompts == "none" and not reg:
        return {name: method for name, method in found.items() if not method.needs_prior()}
    return found


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
    regularizers: dict[str, Annotated[SerializeAsAny[Regularizer], BeforeValidator(_method)]] = Field(
        default_factory=lambda known: _usual(known.get("concepts", ()), known.get("prior"))
    )
    """What holds the base. Unset: cached_prior and, where everything has a trigger, output_preservation on a twentieth
    of the rows; where a style is learned the latter alone on all of them, or prior_preservation where prior pictures
    are asked for or something has no trigger, as where reg pictures of one's own are given; nothing where prior.ratio
    is 0, and none that reads prior images where prior.prompts is "none". The same where all that are named do nothing
    alone, as drift_controller: a `budget` is enough, and under it the twentieth is a quarter."""
    training: TrainingSettings = TrainingSettings()
    arms: ArmsSettings = ArmsSettings()
    comparison: ComparisonSettings = ComparisonSettings()

    @field_validator("regularizers")
    @classmethod
    def _accompanied(cls, own: dict[str, Regularizer], info: ValidationInfo) -> dict[str, Regularizer]:
        """Methods that do nothing alone stand beside what holds a project that names none."""
        if not own or not all(method.idle_alone() for method in own.values()):
            return own
        return _usual(info.data.get("concepts", ()), info.data.get("prior"), own.values()) | own

    @field_validator("regularizers", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Each entry with its name, by which `_method` finds its class."""
        return {name: (name, fields) for name, fields in value.items()} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [concept.name for concept in self.concepts]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two concepts are called {min(twice)!r}; names must differ")
        return self

    def prior_of(self, concept: ConceptSettings) -> PriorSettings:
        """[prior] with the concept's own settings over it. Several concepts are held one by one: they do not stand in
        for each other's prior (docs/findings.md, two concepts in one project)."""
        own = concept.prior
        return self.prior.model_copy(update={name: getattr(own, name) for name in own.model_fields_set} if own else {})

    def ratios(self) -> dict[str, float]:
        """Prior rows per instance row, by concept; 0 for all when no active regularizer wants prior rows."""
        return {concept.name: self.ratio_in(self.prior_of(concept)) for concept in self.concepts}

    def ratio_in(self, prior: PriorSettings) -> float:
        """Prior rows per instance row under these settings."""
        if not any(method.needs_prior() for method in self._active()):
            return 0.0
        if prior.ratio is not None:
            return prior.ratio
        if prior.asks_for_pool() and not self._states_of_all():
            return 1.0
        helped = any(method.needs_trigger() for method in self._active())  # held where the user's pictures are as well
        return max(method.helped_ratio() if helped else method.usual_ratio() for method in self._active())

    def sampler(self) -> SamplerSettings:
        """How pictures are sampled that are looked at."""
        return SamplerSettings.model_validate(self.prior.sampler.model_dump(exclude_none=True))

    def prior_sampler(self) -> SamplerSettings:
        """How prior images are sampled: where kept states alone are read, as many steps as those."""
        kept = self._states_of_all() > 1 and self.prior.sampler.steps is None
        return self.sampler().model_copy(update={"steps": self.visits()} if kept else {})

    def states(self) -> int:
        """How many states of every prior image's path are kept: as many as the method that reads most of them."""
        return most_states(self.regularizers)

    def visits(self) -> int:
        """Uses that a prior image is good for: USES, or as many as its kept states where all its methods read those."""
        states = self._states_of_all()
        return min(states, self.prior.sampler.steps or states) if states else USES

    def _states_of_all(self) -> int:
        """The kept states that every method with prior rows reads; 0: one of them wants pictures, or there is none."""
        return min((method.needs_states() for method in self._active() if method.needs_prior()), default=0)

    def _active(self) -> list[Regularizer]:
        return [method for method in self.regularizers.values() if method.active()]

    def sensor_states(self) -> int:
        """How many controller states are read; 0: none."""
        return max((method.needs_sensor() for method in self._active()), default=0)

    def to_toml(self) -> str:
        """The project with every default written out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def most_states(methods: Mapping[str, Regularizer]) -> int:
    """As many states of a prior image's path as the active method that reads most of them."""
    return max((method.needs_states() for method in methods.values() if method.active()), default=0)
