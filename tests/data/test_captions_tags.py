from __future__ import annotations

from pathlib import Path
from time import process_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenuto.data.captions import is_sentence, join_tags, read_caption, split_tags
from tenuto.data.tag_lists import TagCsv
from tenuto.data.tags import FILTERS, has_trigger, near_misses, plain, remove_trigger
from tenuto.words import TenutoError


def caption(folder: Path, content: bytes) -> str | None:
    (folder / "a.txt").write_bytes(content)
    found = read_caption(folder / "a.png")
    return None if found is None else found.text


def test_reading(tmp_path: Path) -> None:
    assert read_caption(tmp_path / "a.png") is None
    assert caption(tmp_path, b"") == ""
    assert caption(tmp_path, rb"1girl, saber \(fate\)") == r"1girl, saber \(fate\)"
    assert caption(tmp_path, b"\xef\xbb\xbf1girl\r\nsolo,\r\n\r\nhat\n") == "1girl, solo, hat"
    assert caption(tmp_path, b"A girl.\nShe smiles.") == "A girl. She smiles."


@pytest.mark.parametrize("content", [b"\xff\xfe1\x00g\x00", b"caf\xe9", b"1girl\x00, hat", b"a" * (1 << 21)])
def test_no_text(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(TenutoError, match=r"a\.txt"):
        caption(tmp_path, content)


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    try:
        text = caption(tmp_path, content)
    except TenutoError:
        return
    assert text is not None
    assert "\n" not in text


@given(st.text())
def test_split_and_join(text: str) -> None:
    tags = split_tags(text)
    assert all(tags)
    assert split_tags(join_tags(tags)) == tags


def test_sentences() -> None:
    assert is_sentence("a girl with red hair sits on a bench")
    assert is_sentence("A girl on a beach.")
    assert not is_sentence("1girl, solo, looking at viewer, standing on one leg")
    assert not is_sentence("")
    assert not is_sentence("mr. fox, :d, hat.")


@pytest.mark.parametrize(
    ("text", "trigger", "class_word", "left"),
    [
        ("zxq eyes, 1girl, smile", "zxq eyes", "", "1girl, smile"),
        ("1girl, smile", "zxq eyes", "", "1girl, smile"),
        ("zxq", "zxq", "", ""),
        ("zxq", "zxq", "dog", "dog"),
        ("zxq, dog, beach", "zxq", "dog", "dog, beach"),
        ("beach, zxq, sky", "zxq", "dog", "beach, dog, sky"),
        ("zxq dog, dog, beach", "zxq", "dog", "dog, beach"),
        ("Zxq_Eyes, ZXQ EYES, zxq-eyes, hat", "zxq eyes", "", "hat"),
        ("zxq  eyes,,  , hat", "zxq eyes", "", "hat"),
        ("holding zxq, hat", "zxq", "", "holding, hat"),
        ("holding zxq, hat", "zxq", "sword", "holding sword, hat"),
        ("by zxq, hat", "zxq", "", "hat"),
        ("zxqs, two zxqs, hat", "zxq", "", "two, hat"),
        ("glass, hat", "glas", "", "glass, hat"),  # glas + s is another word
        ("zxqy, xzxq, hat", "zxq", "", "zxqy, xzxq, hat"),
        ("zxq zxq eyes eyes, hat", "zxq eyes", "", "hat"),  # what is left must not join to a new one
        (r"miku \(vocaloid\), hat", r"miku \(vocaloid\)", "", "hat"),
        (r"miku \(vocaloid\), hat", "miku (vocaloid)", "1girl", "1girl, hat"),
        ("miku (vocaloid), hat", r"miku \(vocaloid\)", "", "hat"),
        (r"miku \(vocaloid\), hat", "miku", "", "hat"),
        (r"hat \(red\), zxq", "zxq", "", r"hat \(red\)"),
        ("(zxq:1.2), hat", "zxq", "", "hat"),
        ("(zxq:1.2), hat", "zxq", "dog", "(dog:1.2), hat"),
        ("(zxq, 1girl:1.2), hat", "zxq", "", "(1girl:1.2), hat"),
        ("(1girl, zxq:1.2), hat", "zxq", "", "(1girl:1.2), hat"),
        ("zxq, abc, hat", "zxq, abc", "", "hat"),
        ("a photo of zxq on a beach", "zxq", "", "a photo on a beach"),
        ("a photo of zxq on a beach", "zxq", "dog", "a photo of dog on a beach"),
        ("a photo of a zxq dog on a beach", "zxq", "dog", "a photo of a dog on a beach"),
        ("A photo of zxq. She smiles at us.", "zxq", "", "A photo. She smiles at us."),
        ("zxq's eyes", "zxq", "", "eyes"),
        ("C++ (.*), [a-z]+, hat", "c++ (.*)", "", "[a-z]+, hat"),  # no pattern is made of it
        (r"\d+, 5", r"\d+", "", "5"),
        ("ZXQ, Ärger", "ärger", "", "ZXQ"),
        ("hat, zxq", "", "", "hat, zxq"),
        ("hat, zxq", " , ,", "", "hat, zxq"),
        ("^_^, :d, hat", "^_^", "", ":d, hat"),
    ],
)
def test_trigger_removal(text: str, trigger: str, class_word: str, left: str) -> None:
    assert remove_trigger(text, trigger, class_word) == left


def test_captions_as_long_as_a_book_are_searched_in_no_time() -> None:
    before = process_time()
    for text in ("red dress, " * 30_000, "sks" * 100_000, r"\s" * 150_000):
        for _ in range(30):
            assert not has_trigger(text, "sks dog")
    assert process_time() - before < 4, "0.1 s each, when walked over character by character"


def test_class_word_with_the_trigger_in_it() -> None:
    with pytest.raises(TenutoError, match="holds the trigger"):
        remove_trigger("zxq", "zxq", "zxq dog")


words = st.text(alphabet="abAB _-(\\):.,'", max_size=24)


@given(words, st.text(alphabet="ab _", min_size=1, max_size=5), st.sampled_from(["", "c", "b c"]))
def test_never_leaks(text: str, trigger: str, class_word: str) -> None:
    if has_trigger(class_word, trigger):
        return
    left = remove_trigger(text, trigger, class_word)
    assert not has_trigger(left, trigger)
    if has_trigger(text, trigger):
        assert ", ," not in left
        assert all(split_tags(left)) or left == ""
    else:
        assert left == text


@given(st.text(max_size=30), st.text(min_size=1, max_size=6))
def test_never_leaks_in_any_script(text: str, trigger: str) -> None:
    assert not has_trigger(remove_trigger(f"{text} {trigger}, {text}", trigger), trigger)


def test_near_misses() -> None:
    assert near_misses("zxqy, hat, zxq", "zxq") == ("zxqy",)
    assert near_misses("初音ミク", "初音ミ") == ("初音ミク",)


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("artist", ["by greg", "artist:wlop", "Wlop_(artist)"], ["1girl", "baby", "standing by"]),
        ("meta", ["highres", "rating:safe", "2023", "year 2021", "score_9", "masterpiece", "official_art"],
         ["1girl", "night"]),
        ("character_name", [r"saber \(fate\)", "saber_(fate)", "character:rei"],
         ["1girl", "orange (fruit)", ":)", "hat"]),
        ("character_appearance", ["blue eyes", "long_hair", "hair between eyes", "cat ears", "(red hair:1.2)"],
         ["closed eyes", "1girl", "beach", "hair ornament", "hat", "smile"]),
        ("copyright", ["fate (series)", "copyright:fate"], ["1girl", "beach"]),
    ],
)  # fmt: skip
def test_filters(name: str, inside: list[str], outside: list[str]) -> None:
    assert [tag for tag in inside if not FILTERS[name].matches(tag)] == []
    assert [tag for tag in outside if FILTERS[name].matches(tag)] == []


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(
    "tag", ["1girl", "1boy", "solo", "beach", "indoors", "forest", "city", "from behind", "sitting"]
)
def test_what_no_filter_takes(name: str, tag: str) -> None:
    assert not FILTERS[name].matches(tag)


def test_plain() -> None:
    assert plain(r"Saber_\(Fate\)") == "saber (fate)"
    assert plain("(long_hair:1.1)") == "long hair"
    assert plain("^_^") == "^_^"
    assert plain("0_0") == "0_0"


def test_tag_csv(tmp_path: Path) -> None:
    path = tmp_path / "danbooru.csv"
    path.write_text('1girl,0,5,"1girls,sole_female"\nwlop,1,9\nsaber_(fate),4,3,"/sb,saberface"\nabsurdres,5,1\nodd\n')
    known = TagCsv.load(path)
    assert known.get("wlop") == "artist"
    assert known.get(r"saber \(fate\)") == known.get("Saberface") == "character"
    assert known.get("sb") is None
    assert known.skipped == 1
    assert FILTERS["artist"].matches("wlop", known)
    assert not FILTERS["artist"].matches("wlop")
    assert not FILTERS["character_name"].matches("wlop (x)", TagCsv({"wlop (x)": "general"}))


def test_tag_csv_of_taggers(tmp_path: Path) -> None:
    path = tmp_path / "selected_tags.csv"
    path.write_text("tag_id,name,category,count\n1,general,9,5\n2,hatsune_miku,4,5\n3,smile,0,5\n")
    known = TagCsv.load(path)
    assert (known.get("hatsune miku"), known.get("smile")) == ("character", "general")


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"just,words\n"])
def test_bad_tag_csv(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tags.csv").write_bytes(content)
    with pytest.raises(TenutoError, match=r"tags\.csv"):
        TagCsv.load(tmp_path / "tags.csv")
