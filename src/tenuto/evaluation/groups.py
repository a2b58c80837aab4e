"""Which tag groups a concept itself may change: everything else that changes is bake."""

from __future__ import annotations

from collections.abc import Collection

from tenuto.data.dataset import Concept
from tenuto.data.tags import plain
from tenuto.words import Kind

CONCEPT_WORDS: dict[Kind, tuple[str, ...]] = {
    "character": ("hair", "eye", "subject", "body", "character", "outfit", "cloth", "wear", "species", "ears"),
    "clothing": ("outfit", "cloth", "dress", "wear", "costume"),
    "style": ("style", "artist"),
    "concept": (),
}
"""Parts of the names of tag groups that a concept of this kind may change."""


def groups_of_concept(concept: Concept, groups: Collection[str]) -> frozenset[str]:
    """Tag groups that the concept may change: by kind, and those that its name or trigger speaks of ("crazy-eyes":
    eyes)."""
    words = {word.rstrip("s") for word in plain(f"{concept.name} {concept.trigger}").replace("-", " ").split()}
    return frozenset(
        group
        for group in groups
        if any(part in group.lower() for part in CONCEPT_WORDS[concept.kind])
        or any(part.rstrip("s") in words for part in group.lower().replace("_", " ").split())
    )
