"""Captions of SyntheticPedestrians: length, truth, variety, English."""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.data.synthetic import PersonAttributes, SyntheticImage, SyntheticPedestrians, View
from reid_zoo.data.synthetic.attributes import sample_attributes
from reid_zoo.data.synthetic.captions import VisibleParts, described_attributes, write_caption
from reid_zoo.data.synthetic.randomness import RandomStream
from reid_zoo.data.synthetic.scene import OCCLUDERS, PLACES
from reid_zoo.data.synthetic.view import DIRECTIONS, Part
from reid_zoo.data.synthetic.wording import BAGS, COLOR_WORDS, HEADWEAR, LOWER_GARMENTS, UPPER_GARMENTS, with_article


@cache
def samples() -> tuple[SyntheticImage, ...]:
    generator = SyntheticPedestrians(100, 4, seed=7, num_cameras=6, occlusion_fraction=0.3)
    return tuple(generator.sample(identity, image) for identity in range(100) for image in range(4))


def view_of(direction: str, occluder: str | None, *, standing: bool = False, blur: int = 0) -> View:
    return View(0, direction, 1, standing, 800, 500, 30, occluder, 500, 400, 0, 256, blur, False, False)


def everything_shown() -> VisibleParts:
    areas = tuple(0 if part in (Part.NOTHING, Part.OCCLUDER) else 100_000 for part in Part)
    return VisibleParts(areas, areas)


def nothing_shown() -> VisibleParts:
    return VisibleParts(tuple(0 for _ in Part), tuple(100_000 for _ in Part))


people = st.integers(0, 10**6).map(lambda number: sample_attributes(RandomStream(11, number)))
areas = st.tuples(*[st.sampled_from([0, 1_000, 4_000, 20_000, 100_000]) for _ in Part])


@settings(max_examples=300, deadline=None)
@given(
    person=people,
    direction=st.sampled_from(DIRECTIONS),
    occluder=st.sampled_from([None, *OCCLUDERS]),
    standing=st.booleans(),
    blur=st.integers(0, 2),
    shown=areas,
    hidden=areas,
    place=st.sampled_from(PLACES),
    seed=st.integers(0, 2**32),
)
def test_every_caption_has_20_to_40_words_and_sound_grammar(
    person: PersonAttributes,
    direction: str,
    occluder: str | None,
    standing: bool,
    blur: int,
    shown: tuple[int, ...],
    hidden: tuple[int, ...],
    place: str,
    seed: int,
) -> None:
    visible = VisibleParts(shown, tuple(a + b for a, b in zip(shown, hidden, strict=True)))
    view = view_of(direction, occluder, standing=standing, blur=blur)
    check_english(write_caption(person, view, visible, place, RandomStream(seed)), person)


def check_english(caption: str, person: PersonAttributes) -> None:
    assert 20 <= len(caption.split()) <= 40, caption
    assert re.fullmatch(r"[A-Za-z ,.\-]+", caption), caption
    assert "  " not in caption
    assert " ," not in caption
    assert caption.endswith(".")
    for sentence in caption[:-1].split(". "):
        assert sentence[0].isupper(), caption
        assert re.search(r"\b(is|has|wears|carries|holds|pulls|walks|stands|heads|comes)\b", sentence), caption
    # Every word of the vocabulary that starts with a vowel letter also starts with a vowel sound, and the reverse.
    assert not re.search(r"\b[Aa] [aeiou]", caption), caption
    assert not re.search(r"\b[Aa]n [^aeiou]", caption), caption
    assert not re.search(r"\ba \S+ (trousers|jeans|shorts|pants|trainers|sneakers|shoes|boots|glasses)\b", caption), (
        caption
    )
    assert not re.search(r"\b(\w+) \1\b", caption.lower()), caption
    wrong = r"\b(he|his|him)\b" if person.gender == "woman" else r"\b(she|her)\b"
    assert not re.search(wrong, caption.lower()), caption


@pytest.mark.parametrize("visible", [everything_shown(), nothing_shown()], ids=["everything", "nothing"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_extremes_of_visibility_stay_within_the_limits(visible: VisibleParts, direction: str) -> None:
    for number in range(60):
        person = sample_attributes(RandomStream(3, number))
        view = view_of(direction, "bin", standing=number % 2 == 0)
        check_english(write_caption(person, view, visible, "park", RandomStream(number)), person)


def test_captions_of_real_images_keep_to_the_limits() -> None:
    for sample in samples():
        for caption in sample.captions:
            check_english(caption, sample.person)


def mentions(caption: str, words: tuple[str, ...]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", caption.lower()) for word in words)


def test_every_named_color_belongs_to_a_visible_thing() -> None:
    hair_words = {"black", "dark", "brown", "fair", "blond", "red", "ginger", "grey", "gray"}
    fields = {
        "upper_color": "upper_color",
        "pattern": "pattern_color",
        "inner_color": "inner_color",
        "lower_color": "lower_color",
        "shoes_color": "shoes_color",
        "headwear": "headwear_color",
        "bag": "bag_color",
        "scarf_color": "scarf_color",
        "umbrella_color": "umbrella_color",
    }
    for sample in samples():
        shown = described_attributes(sample.person, sample.view, sample.visible)
        allowed = {word for test, name in fields.items() if test in shown for word in words_of(sample.person, name)}
        for caption in sample.captions:
            text = re.sub(r"green bushes|pale buildings|dark sunglasses", "", caption.lower())
            for words in COLOR_WORDS.values():
                for word in words:
                    if re.search(rf"\b{word}\b", text) and word not in allowed:
                        inside_other = any(word != other and word in other and other in text for other in allowed)
                        of_hair = word in hair_words and "hair_color" in shown
                        assert inside_other or of_hair, (word, caption, sample.person)


def words_of(person: PersonAttributes, field: str) -> tuple[str, ...]:
    name = getattr(person, field)
    return () if name is None else COLOR_WORDS[name]


def test_garments_and_objects_are_named_only_where_the_person_has_them() -> None:
    for sample in samples():
        p = sample.person
        shown = described_attributes(p, sample.view, sample.visible)
        for caption in sample.captions:
            text = caption.lower()
            for kind, words in BAGS.items():
                if mentions(text, words):
                    assert kind == p.bag, caption
                    assert {"bag", "backpack_straps"} & shown, caption
            for kind, words in LOWER_GARMENTS.items():
                own = mentions(text, words) and not (
                    kind == "trousers" and p.lower == "shorts" and "short pants" in text
                )
                if own:
                    assert kind == p.lower, caption
                    assert "lower" in shown, caption
            if mentions(text, ("cap", "beanie", "woolly hat", "knitted hat", "brimmed hat", "baseball cap")):
                assert mentions(text, HEADWEAR[p.headwear]), caption
            for word, present in {
                "glasses": p.glasses == "glasses",
                "sunglasses": p.glasses == "sunglasses",
                "beard": p.beard,
                "scarf": p.scarf_color is not None,
                "umbrella": p.umbrella_color is not None,
                "bald": p.hair_style == "bald",
                "striped": p.pattern == "striped",
                "stripes": p.pattern == "striped",
                "checked": p.pattern == "checked",
                "plaid": p.pattern == "checked",
                "logo": p.pattern == "logo",
                "elderly": p.age == "elderly",
                "young": p.age == "young",
                "hoodie": p.upper == "hoodie",
                "dress": p.upper == "dress",
                "coat": p.upper == "coat",
                "jacket": p.upper == "jacket",
                "ponytail": p.hair_style == "ponytail",
            }.items():
                assert present or not mentions(text, (word,)), (word, caption)


def test_what_a_view_cannot_show_is_not_said() -> None:
    seen = {"backpack from behind": 0, "glasses from the front": 0, "logo from the front": 0}
    for sample in samples():
        text = " ".join(sample.captions).lower()
        p, direction = sample.person, sample.view.direction
        if direction == "back":
            assert not mentions(text, ("glasses", "sunglasses", "beard", "logo", "print", "emblem", "young")), text
            seen["backpack from behind"] += p.bag == "backpack" and mentions(text, BAGS["backpack"])
        if direction == "front":
            if p.bag == "backpack":
                assert not re.search(rf"({'|'.join(COLOR_WORDS[p.bag_color or 'grey'])}) (backpack|rucksack)", text), (
                    text
                )
            seen["glasses from the front"] += mentions(text, ("glasses", "sunglasses"))
            seen["logo from the front"] += mentions(text, ("logo", "print", "emblem"))
    assert all(count > 0 for count in seen.values()), seen


def test_an_occluder_removes_what_it_hides_and_may_be_named() -> None:
    legs_hidden = [s for s in samples() if s.view.occluder in ("car", "planter", "bin") and "shoes_color" not in
                   described_attributes(s.person, s.view, s.visible)]  # fmt: skip
    assert legs_hidden
    for sample in legs_hidden:
        text = " ".join(sample.captions).lower()
        assert not mentions(text, ("trainers", "sneakers", "boots", "sports shoes", "shoes")), text
    assert any("partly" in caption for sample in legs_hidden for caption in sample.captions)
    assert not any("partly" in caption for s in samples() if s.view.occluder is None for caption in s.captions)


def test_wording_varies_and_attributes_are_sometimes_left_out() -> None:
    captions = [caption for sample in samples() for caption in sample.captions]
    assert len(set(captions)) > 0.99 * len(captions)
    assert all(sample.captions[0] != sample.captions[1] for sample in samples())
    assert len({" ".join(caption.split()[:3]) for caption in captions}) > 40
    lengths = [len(caption.split()) for caption in captions]
    assert max(lengths) - min(lengths) >= 12
    with_shoes = [s for s in samples() if "shoes_color" in described_attributes(s.person, s.view, s.visible)]
    named = sum(
        "shoes" in c or "trainers" in c or "sneakers" in c or "boots" in c for s in with_shoes for c in s.captions
    )
    assert 0.4 < named / (2 * len(with_shoes)) < 0.95
    for color, words in COLOR_WORDS.items():
        assert any(mentions(caption, words) for caption in captions), color
    for kind, words in UPPER_GARMENTS.items():
        assert any(mentions(caption, words) for caption in captions), kind


def test_articles() -> None:
    assert with_article("orange coat") == "an orange coat"
    assert with_article("umbrella") == "an umbrella"
    assert with_article("blue cap") == "a blue cap"
