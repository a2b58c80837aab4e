"""Small shared value types: the words of docs/design.md as Python types. Imports nothing of tenuto."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

Role = Literal["instance", "prior"]
"""What a training row is for: to teach the concept, or to protect the base."""

Kind = Literal["character", "concept", "clothing", "style"]
"""What is being learned; decides sensible prior defaults."""


class TenutoError(ValueError):
    """Something the user can mend. The message is one line: the file, the value, the remedy."""

    def __str__(self) -> str:
        """In one line, whatever names and values from a file stand in it."""
        return " ".join(super().__str__().splitlines())


class Stopped(Exception):
    """The user asked to stop. Everything finished is kept; the message says how to go on."""


class Settings(BaseModel):
    """Base of every settings section: frozen, no unknown keys, each field documented by the string under it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Size(NamedTuple):
    """A picture's size in pixels; a bucket is a Size."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"
