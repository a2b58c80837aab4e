"""The methods as a page: made of the catalogue, whenever the site is built."""

from __future__ import annotations

from collections.abc import Iterator

from tools.docs.settings_page import entries
from tools.docs.words import linked, told

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.explained import SECTIONS, explain

HEAD = """# Methods

What holds the rest of the model in place. Several combine; one at weight 0 is absent bit for bit. `tenuto methods`
lists them in the terminal, `tenuto methods NAME` explains one. Which to begin with says the
[guide](guide.md#which-method); what has been measured, [findings](findings.md). In the formulas f is the adapted
model, f_base the base, c the prompt, x_t a noisy latent. `weight` and `schedule` are [every
method's](settings.md#regularizers.weight).

| method | weight | what it does |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [_row(name, method) for name, method in REGULARIZERS.items()]
    return HEAD + "\n".join([*rows, "", *(line for each in REGULARIZERS.items() for line in _method(*each))])


def _row(name: str, method: type[Regularizer]) -> str:
    own = explain(method)
    return f"| [`{name}`](#{name}) | {own['settings']['weight']['default']:g} | {linked(own['summary'])} |"


def _method(name: str, method: type[Regularizer]) -> Iterator[str]:
    own = explain(method)
    yield from (f"## `{name}` {{#{name}}}", "", linked(own["summary"]), "", told(own["about"]), "")
    for word in SECTIONS:
        yield from (f"**{word}:** {linked(own[word.lower()])}", "")
    yield from entries(method, name)
