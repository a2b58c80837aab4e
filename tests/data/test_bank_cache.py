from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tenuto.data.bank import Bank
from tenuto.data.cache import Cache, key_of
from tenuto.data.captions import split_tags
from tenuto.words import TenutoError


def test_bundled() -> None:
    bank = Bank.bundled()
    assert len(bank.groups) >= 20
    assert bank.group_of("Long_Hair") == "hair_style"
    assert bank.group_of("forest") == "place"
    assert bank.group_of("zxq") is None
    for entries in bank.groups.values():
        assert all(", ".join(split_tags(entry)) == entry for entry in entries)


def test_draw() -> None:
    bank = Bank({"subject": ("1girl",), "place": ("beach",), "hat": ("hat",)}, {"subject": 1, "place": 1, "hat": 0})
    assert bank.draw(random.Random(0)) == ("1girl", "beach")
    assert bank.draw(random.Random(0), without=("place",)) == ("1girl",)


def test_nobody_wears_nothing() -> None:
    groups = {"subject": ("no humans",), "hair": ("red hair",), "place": ("sea",)}
    bank = Bank(groups, dict.fromkeys(groups, 1.0), frozenset({"hair"}))
    assert bank.draw(random.Random(0)) == ("no humans", "sea")


@pytest.mark.parametrize("count", [1, 7, 20, 64])
def test_spread_prompts_have_each_entry_as_often_as_in_the_long_run(count: int) -> None:
    groups = {"subject": ("1girl", "1boy"), "hair": ("red hair", "bun", "bob"), "hat": ("hat",), "place": ("sea",)}
    bank = Bank(groups, {"subject": 1.0, "hair": 0.5, "hat": 0.0, "place": 1.0})
    prompts = bank.spread(random.Random(count), count)
    assert len(prompts) == count
    for group, entries in groups.items():
        found = [sum(entry in prompt for prompt in prompts) for entry in entries]
        assert abs(sum(found) - count * bank.chance[group]) <= 1
        assert all(abs(own - count * bank.chance[group] / len(entries)) < 2 for own in found)
    assert all(prompt.index("sea") == len(prompt) - 1 for prompt in prompts), "in the bank's order"
    if count > 6:
        assert bank.spread(random.Random(count), count) == prompts != bank.spread(random.Random(0), count)


def test_spread_prompts_speak_of_nobody_where_nobody_is() -> None:
    groups = {"subject": ("no humans",), "hair": ("red hair",), "place": ("sea",)}
    bank = Bank(groups, dict.fromkeys(groups, 1.0), frozenset({"hair"}))
    assert bank.spread(random.Random(0), 2) == [("no humans", "sea")] * 2


def test_draws_differ() -> None:
    prompts = {Bank.bundled().draw(random.Random(seed)) for seed in range(200)}
    assert len(prompts) > 195
    assert all(len(prompt) >= 2 for prompt in prompts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table"),
        ("groups = 3", "no table"),
        ("[groups]\nplace = []", "'place'"),
        ("[groups]\nplace = [' , ']", "'place'"),
        ("[groups]\nplace = ['a']\n[chance]\nplce = 1", "'plce'"),
        ("[groups]\nplace = ['a']\n[chance]\nplace = 2", "0 to 1"),
        ("people = ['x']\n[groups]\nplace = ['a']", "people"),
        ("[groups", "not a readable"),
        ("a = " + "[" * 50_000, "nested too deeply"),
        ('[groups]\n"a\\nb" = []', "'a"),
    ],
)
def test_bad_banks(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bank.toml").write_text(text)
    with pytest.raises(TenutoError, match=message) as error:
        Bank.load(tmp_path / "bank.toml")
    assert "\n" not in str(error.value)


def test_plain_bank(tmp_path: Path) -> None:
    (tmp_path / "bank.toml").write_text("[groups]\nplace = ['beach']\nhat = ['red hat']\n")
    bank = Bank.load(tmp_path / "bank.toml")
    assert bank.chance == {"place": 1.0, "hat": 0.5}


def test_cache(tmp_path: Path) -> None:
    cache, key = Cache(tmp_path / "cache"), key_of("file", "model", 3)
    assert key == key_of("file", "model", 3) != key_of("file", "model3", "")
    assert cache.get(key) is None
    value = torch.arange(6).reshape(2, 3)
    cache.put(key, {"x": value.T})
    kept = cache.get(key)
    assert kept is not None
    assert torch.equal(kept["x"], value.T)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [cache.path(key)]


def test_a_damaged_entry_counts_as_absent(tmp_path: Path) -> None:
    cache, key = Cache(tmp_path), key_of("a")
    cache.put(key, {"x": torch.ones(100)})
    data = cache.path(key).read_bytes()
    for damaged in (b"", data[:50], b"\0" * 200, data[:-9]):
        cache.path(key).write_bytes(damaged)
        assert cache.get(key) is None
    turned = bytearray(data)
    turned[-1] ^= 1
    cache.path(key).write_bytes(turned)
    assert cache.get(key) is None, "one bit of one number"
    cache.put(key, {"x": torch.ones(2)})
    assert cache.get(key) is not None


def test_unwritable_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TenutoError, match="cannot be"):
        Cache(tmp_path / "file").put(key_of("a"), {"x": torch.ones(1)})
