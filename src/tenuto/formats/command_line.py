r"""Command lines out of shell scripts: sh, batch and PowerShell, read as text and never run.

Known are line continuations (`\`, `^`, a backtick), comments, and variables that are set to plain text in the file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONTINUED = re.compile(r"[\\^`][ \t]*\r?\n")
COMMENT = re.compile(r"^\s*(#(?!!)|rem\b|::|//)", re.IGNORECASE)
ASSIGNED = re.compile(r"""^\s*(?:export\s+|set\s+"?|\$(?:env:)?|!?)([A-Za-z_]\w*)\s*=\s*(.*?)\s*$""", re.IGNORECASE)
USED = re.compile(r"\$\{(\w+)\}|\$(?:env:)?(\w+)|%(\w+)%", re.IGNORECASE)
DRIVE = re.compile(r"""(?:^|[\s"'=])[A-Za-z]:\\""")
SEPARATORS = re.compile(r"\s(?:&&|\|\||;|\|)\s")


@dataclass(frozen=True)
class Command:
    """One call of a script."""

    script: str
    """File name of the script, without folders; empty for bare options."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Name without dashes -> text, list of texts, or True for a switch."""


def commands(text: str, *, windows: bool | None = None) -> list[Command]:
    """Every call of a Python script in the text, or the bare options that it consists of."""
    plain_backslash = bool(DRIVE.search(text) or "^\n" in text.replace("\r", "")) if windows is None else windows
    variables: dict[str, str] = {}
    found = []
    for line in CONTINUED.sub(" ", text).splitlines():
        if COMMENT.match(line) or not line.strip():
            continue
        line = _filled(line, variables)
        if (assigned := ASSIGNED.match(line)) and " --" not in line:
            variables[assigned[1].lower()] = _unquoted(assigned[2])
            continue
        for part in SEPARATORS.split(line):
            found.append(_command(_tokens(part, plain_backslash)))
    return _joined([each for each in found if each.script or each.options])


def _joined(found: list[Command]) -> list[Command]:
    """Bare options on lines of their own belong together (an argument file), or to the call before them."""
    whole: list[Command] = []
    for each in found:
        if each.script or not whole:
            whole.append(each)
        else:
            whole[-1] = Command(whole[-1].script, {**whole[-1].options, **each.options})
    return whole


def _filled(line: str, variables: Mapping[str, str]) -> str:
    """The line with variables replaced that the file itself sets; others stay as they are."""

    def value(match: re.Match[str]) -> str:
        name = next(group for group in match.groups() if group)
        return variables.get(name.lower(), match[0])

    return USED.sub(value, line)


def _unquoted(text: str) -> str:
    text = text.strip().rstrip('"') if text.count('"') == 1 else text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _tokens(text: str, plain_backslash: bool) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = "#" if text.lstrip().startswith("#") else ""
    if plain_backslash:
        lexer.escape = ""
    try:
        return list(lexer)
    except ValueError:  # a quote that is never closed
        return text.replace('"', "").replace("'", "").split()


def _command(tokens: list[str]) -> Command:
    """Options that stand before the script belong to the launcher and are left out."""
    names = [token.replace("\\", "/").rsplit("/", 1)[-1] for token in tokens]
    at = next((index for index, name in enumerate(names) if name.endswith(".py")), None)
    if at is None and (not tokens or not tokens[0].startswith("--")):
        return Command("")
    rest = tokens if at is None else tokens[at + 1 :]
    return Command("" if at is None else names[at], parse_options(rest))


def parse_options(tokens: list[str]) -> dict[str, Any]:
    """`--name value`, `--name=value`, `--switch`, `--name several values`."""
    options: dict[str, Any] = {}
    name = None
    for token in tokens:
        if token.startswith("--") and len(token) > 2:
            name, equals, value = token[2:].partition("=")
            options[name] = value if equals else True
        elif name is not None:
            known = options[name]
            options[name] = token if known is True else [*(known if isinstance(known, list) else [known]), token]
    return options
