"""Damage to files: bytes, text, and, where a file has structure, the values in it. All from one generator of draws."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import tomli_w

ODD_TEXTS = (
    "", " ", "0", "-1", "1e999", "nan", "true", "null", "\0", "../../x", "~nobody/x", "x" * 5000, "a/b", "512,512",
    "\ud83d\ude00 \u202e", "[", "{}", "%s%n", "F64", "--a", "\n\n",
)  # fmt: skip
ODD_NUMBERS = (0, 1, -1, 2, 3.5, -0.0, 1e-300, 1e308, 2**31, 2**63 - 1, 10**9, -(10**9), 10**30, 7)
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [{}], {"a": 1}, [1, "a", None], *ODD_TEXTS, *ODD_NUMBERS, float("nan"),
    float("inf"), ["a"] * 300,
)  # fmt: skip
DEEP = 3000
STRUCTURED = 0.6
"""How often a file that has structure is damaged in its values rather than its bytes."""


def mutated(path: Path, data: bytes, rng: Random) -> bytes:
    """The content of this file with one to three faults."""
    structured = STRUCTURES.get(path.suffix.lower())
    for _ in range(rng.choice((1, 1, 2, 3))):
        if structured and rng.random() < STRUCTURED:
            try:
                data = structured(data, rng)
                continue
            except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
                pass  # an earlier fault took the structure away
        data = rng.choice(TEXTUAL if path.suffix.lower() in TEXTS else BINARY)(data, rng)
    return data


# -- bytes ------------------------------------------------------------------------------------------------------------


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    """A place (the beginning, where headers are, more often) and a length."""
    start = rng.randrange(min(len(data), 256) if rng.random() < 0.4 else len(data)) if data else 0
    return start, min(len(data) - start, rng.choice((1, 1, 2, 4, 16, 200)))


def _flipped(data: bytes, rng: Random) -> bytes:
    if not data:
        return b"\x00"
    at, changed = _span(data, rng)[0], bytearray(data)
    changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwritten(data: bytes, rng: Random) -> bytes:
    start, length = _span(data, rng)
    return (
        data[:start] + rng.choice((b"\x00" * length, b"\xff" * length, rng.randbytes(length))) + data[start + length :]
    )


def _inserted(data: bytes, rng: Random) -> bytes:
    start, length = _span(data, rng)
    return data[:start] + rng.randbytes(length or 1) + data[start:]


def _deleted(data: bytes, rng: Random) -> bytes:
    start, length = _span(data, rng)
    return data[:start] + data[start + length :]


def _truncated(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _doubled(data: bytes, rng: Random) -> bytes:
    start, length = _span(data, rng)
    return data[: start + length] + data[start:]


BINARY: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flipped, _flipped, _overwritten, _inserted, _deleted, _truncated, _doubled,
)  # fmt: skip

# -- text -------------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(rb"-?\d+(\.\d+)?(e-?\d+)?")
_WORD = re.compile(rb"[A-Za-z_]\w+")


def _other_number(data: bytes, rng: Random) -> bytes:
    return _replaced(data, _NUMBER, rng, str(rng.choice(ODD_NUMBERS)).encode())


def _other_word(data: bytes, rng: Random) -> bytes:
    words = _WORD.findall(data)
    return _replaced(data, _WORD, rng, rng.choice(words) if words else b"x")


def _odd_word(data: bytes, rng: Random) -> bytes:
    return _replaced(data, _WORD, rng, rng.choice(ODD_TEXTS).encode("utf-8", "surrogatepass"))


def _replaced(data: bytes, pattern: re.Pattern[bytes], rng: Random, new: bytes) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return _inserted(data, rng)
    chosen = rng.choice(found)
    return data[: chosen.start()] + new + data[chosen.end() :]


def _bottomless(data: bytes, rng: Random) -> bytes:
    start, _ = _span(data, rng)
    return data[:start] + rng.choice((b"[", b'{"a":', b"(", b"{a=")) * 20_000 + data[start:]


def _lines_changed(data: bytes, rng: Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(3)
    if kind == 0:
        lines[a], lines[b] = lines[b], lines[a]
    elif kind == 1:
        lines.insert(a, lines[b])
    else:
        del lines[a]
    return b"".join(lines)


TEXTUAL = (
    *BINARY, _other_number, _other_number, _other_word, _other_word, _odd_word, _lines_changed, _lines_changed,
    _bottomless,
)  # fmt: skip
TEXTS = {".toml", ".json", ".jsonl", ".csv", ".txt", ".sh", ".bat"}

# -- values -----------------------------------------------------------------------------------------------------------


def changed_tree(tree: Any, rng: Random) -> Any:
    """A copy with one value replaced, taken away, renamed, doubled, wrapped or buried."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return rng.choice(ODD_VALUES)
    holder, key = rng.choice(places)
    kind = rng.randrange(8)
    if isinstance(holder[key], int | float) and rng.random() < 0.5:
        holder[key] = rng.choice(ODD_NUMBERS)
    elif kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(ODD_TEXTS)] = holder.pop(key)
    elif kind == 2:
        other, place = rng.choice(places)
        holder[key] = copy.deepcopy(other[place])
    elif kind == 3:
        holder[key] = [holder[key]]
    elif kind == 4:
        holder[key] = {"x": holder[key]}
    elif kind == 5 and rng.random() < 0.2:
        holder[key] = _buried(DEEP)
    else:
        holder[key] = rng.choice(ODD_VALUES)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of every value."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        own = waiting.pop()
        keys = list(own) if isinstance(own, dict) else range(len(own)) if isinstance(own, list) else ()
        for key in keys:
            found.append((own, key))
            waiting.append(own[key])
    return found


def _buried(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def _json(data: bytes, rng: Random) -> bytes:
    return _dumped(changed_tree(json.loads(data), rng))


def _dumped(tree: Any) -> bytes:
    """Also of what is nested too deeply for the library."""
    try:
        return json.dumps(tree).encode()
    except RecursionError:
        return b"[" * 100_000


def _toml(data: bytes, rng: Random) -> bytes:
    return tomli_w.dumps(changed_tree(tomllib.loads(data.decode()), rng)).encode("utf-8", "surrogatepass")


def _jsonl(data: bytes, rng: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at] = _dumped(changed_tree(json.loads(lines[at]), rng)) + b"\n"
    return b"".join(lines)


def _safetensors(data: bytes, rng: Random) -> bytes:
    """A value of the header, or one within the JSON that stands in its metadata."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    inner = {key: value for key, value in header.get("__metadata__", {}).items() if value[:1] in ("{", "[")}
    if inner and rng.random() < 0.5:
        key = rng.choice(sorted(inner))
        header["__metadata__"][key] = _dumped(changed_tree(json.loads(inner[key]), rng)).decode()
        new = json.dumps(header).encode()
    else:
        new = _dumped(changed_tree(header, rng))
    return len(new).to_bytes(8, "little") + new + data[8 + length :]


def _csv(data: bytes, rng: Random) -> bytes:
    rows = [line.split(b",") for line in data.splitlines()]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = str(rng.choice(ODD_VALUES)).encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        row.append(row[0])
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


STRUCTURES: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": _json, ".toml": _toml, ".jsonl": _jsonl, ".safetensors": _safetensors, ".csv": _csv,
}  # fmt: skip
