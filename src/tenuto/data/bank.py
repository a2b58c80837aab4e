"""The prompt bank: groups of tags that the base knows, for prompts that owe nothing to the user's captions."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tenuto.data.captions import split_tags
from tenuto.data.tags import plain
from tenuto.files import parse_toml
from tenuto.words import TenutoError

SURE = {"subject": 1.0, "place": 1.0, "location": 1.0, "style": 1.0}
"""Groups that every bank prompt draws from, where the bank does not say otherwise."""
CHANCE = 0.5


@dataclass(frozen=True)
class Bank:
    """Tags by group. An entry may hold several tags ("1girl, solo").

    In a file: a table [groups] with a list per group, and, if wanted, [chance] with how often a group is drawn from
    and a list `people` of the groups that speak of people.
    """

    groups: Mapping[str, tuple[str, ...]]
    chance: Mapping[str, float]
    people: frozenset[str] = frozenset()
    """Groups that speak of people: left out when the subject is "no humans"."""
    name: str = "bank"

    @classmethod
    def load(cls, path: Path) -> Bank:
        """A bank from a TOML file. Raises TenutoError, naming the group, for anything that is no such bank."""
        try:
            data = parse_toml(path.read_bytes().decode("utf-8-sig"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise TenutoError(
                f"{path}: not a readable prompt bank ({why}); it is a TOML file with a table [groups]"
            ) from error
        return cls._read(str(path), data)

    @classmethod
    def bundled(cls, name: str = "danbooru") -> Bank:
        """A bank that ships with tenuto."""
        file = resources.files("tenuto.data").joinpath("banks", f"{name}.toml")
        return cls._read(f"bank {name}", parse_toml(file.read_text(encoding="utf-8")))

    @classmethod
    def _read(cls, name: str, data: dict[str, Any]) -> Bank:
        groups, chance = data.get("groups"), data.get("chance", {})
        if not isinstance(groups, dict) or not groups:
            raise TenutoError(f"{name}: no table [groups]; write e.g. place = ['beach', 'forest'] under [groups]")
        for group, tags in groups.items():
            if (
                not isinstance(tags, list)
                or not tags
                or not all(isinstance(tag, str) and split_tags(tag) for tag in tags)
            ):
                raise TenutoError(f"{name}: group {group!r} must be a list of tags, none of them empty")
        if not isinstance(chance, dict):
            raise TenutoError(f"{name}: [chance] must be a table of group = number")
        for group, value in chance.items():
            if group not in groups:
                raise TenutoError(
                    f"{name}: [chance] names {group!r}, which is no group; groups are {', '.join(groups)}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise TenutoError(f"{name}: chance of {group!r} is {value!r}; give a number from 0 to 1")
        full = {group: float(chance.get(group, SURE.get(group, CHANCE))) for group in groups}
        people = data.get("people", [])
        if not isinstance(people, list) or not all(isinstance(group, str) and group in groups for group in people):
            raise TenutoError(f"{name}: `people` must be a list of names of groups")
        return cls({group: tuple(tags) for group, tags in groups.items()}, full, frozenset(people), name)

    def group_of(self, tag: str) -> str | None:
        """The group that a tag belongs to."""
        name = plain(tag)
        for group, entries in self.groups.items():
            if any(name == plain(part) for entry in entries for part in split_tags(entry)):
                return group
        return None

    def draw(self, rng: random.Random, *, without: Collection[str] = ()) -> tuple[str, ...]:
        """A whole prompt: at most one entry of each group, in the bank's order."""
        chosen: dict[str, str] = {}
        for group, entries in self.groups.items():
            takes_part, entry = rng.random() < self.chance[group], rng.choice(entries)
            if takes_part and group not in without:
                chosen[group] = entry
        return self._prompt(chosen)

    def spread(self, rng: random.Random, count: int) -> list[tuple[str, ...]]:
        """So many whole prompts, among which each group comes as often as it would in the long run, to within one, and
        each entry to within two: what is measured on them depends less on which ones were drawn (Latin hypercube
        sampling, McKay, Beckman and Conover 1979)."""
        prompts: list[dict[str, str]] = [{} for _ in range(count)]
        for group, entries in self.groups.items():
            places = [(number + rng.random()) / count for number in range(count)]
            rng.shuffle(places)
            for prompt, place in zip(prompts, places, strict=True):
                if place < self.chance[group]:
                    prompt[group] = entries[int(place / self.chance[group] * len(entries))]
        return [self._prompt(prompt) for prompt in prompts]

    def _prompt(self, chosen: Mapping[str, str]) -> tuple[str, ...]:
        """The tags of these entries, without what speaks of people where there are none."""
        tags: list[str] = []
        for group, entry in chosen.items():
            if not (group in self.people and "no humans" in tags):
                tags += [tag for tag in split_tags(entry) if tag not in tags]
        return tuple(tags)
