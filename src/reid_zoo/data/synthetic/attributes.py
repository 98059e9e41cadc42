"""What a synthetic person looks like: the vocabulary, the rules of what goes together, and the sampling."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from .randomness import RandomStream
from .raster import Color

__all__ = [
    "COLORS",
    "LOOKALIKE_FIELDS",
    "VOCABULARY",
    "PersonAttributes",
    "is_consistent",
    "one_field_signatures",
    "sample_attributes",
    "sample_lookalike",
]

COLORS: dict[str, Color] = {
    "black": (32, 32, 36),
    "white": (236, 236, 232),
    "grey": (136, 138, 142),
    "red": (192, 34, 40),
    "burgundy": (106, 24, 44),
    "orange": (228, 118, 36),
    "yellow": (232, 198, 52),
    "green": (44, 136, 66),
    "olive": (104, 106, 52),
    "teal": (36, 148, 150),
    "light blue": (142, 188, 228),
    "blue": (40, 88, 196),
    "navy": (26, 34, 84),
    "purple": (112, 58, 150),
    "pink": (238, 148, 178),
    "brown": (112, 70, 42),
    "beige": (208, 182, 142),
}

_SMALLEST_COLOR_CHANGE = 150  # sum of the three channel differences: a look-alike's other colour must be tellable


@dataclass(frozen=True, slots=True)
class PersonAttributes:
    """Everything that makes a synthetic person recognisable; constant over all images of the identity.

    Colours are names of `COLORS`; a colour is `None` where its garment or object is absent. The skin tone (0 lightest
    to 5 darkest) is drawn but never described.
    """

    gender: str
    age: str
    build: str
    skin_tone: int
    hair_style: str
    hair_color: str | None
    beard: bool
    headwear: str
    headwear_color: str | None
    upper: str
    upper_color: str
    pattern: str
    pattern_color: str | None
    inner_color: str | None
    lower: str
    lower_color: str | None
    shoes: str
    shoes_color: str
    bag: str
    bag_color: str | None
    glasses: str
    scarf_color: str | None
    umbrella_color: str | None

    def differing_fields(self, other: PersonAttributes) -> tuple[str, ...]:
        """Names of the attributes in which two people differ."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name))


_GARMENT_COLORS = tuple(COLORS)
_HAIR_COLORS = ("black", "brown", "blond", "red", "grey")

VOCABULARY: dict[str, tuple[str | int | bool | None, ...]] = {
    "gender": ("man", "woman"),
    "age": ("young", "adult", "elderly"),
    "build": ("slim", "average", "heavy"),
    "skin_tone": (0, 1, 2, 3, 4, 5),
    "hair_style": ("short", "curly", "bob", "long", "ponytail", "bun", "bald"),
    "hair_color": (*_HAIR_COLORS, None),
    "beard": (False, True),
    "headwear": ("none", "cap", "beanie", "hat"),
    "headwear_color": ("black", "white", "grey", "red", "navy", "green", "beige", "pink", "yellow", None),
    "upper": ("t-shirt", "shirt", "sweater", "hoodie", "jacket", "coat", "dress"),
    "upper_color": _GARMENT_COLORS,
    "pattern": ("plain", "striped", "checked", "logo"),
    "pattern_color": ("white", "black", "red", "navy", "yellow", "grey", None),
    "inner_color": ("white", "black", "red", "light blue", "yellow", None),
    "lower": ("trousers", "jeans", "shorts", "skirt", "none"),
    "lower_color": ("black", "grey", "navy", "blue", "light blue", "beige", "brown", "olive", "white", "red", None),
    "shoes": ("trainers", "boots", "leather shoes"),
    "shoes_color": ("white", "black", "brown", "red", "blue", "grey", "yellow"),
    "bag": ("none", "backpack", "handbag", "shoulder bag", "shopping bag", "suitcase"),
    "bag_color": ("black", "red", "blue", "brown", "grey", "green", "pink", "yellow", "white", None),
    "glasses": ("none", "glasses", "sunglasses"),
    "scarf_color": ("red", "grey", "yellow", "green", "white", "purple", None),
    "umbrella_color": ("black", "red", "blue", "yellow", "green", "purple", None),
}

#: Attributes in which look-alikes may differ: the ones that most views show.
LOOKALIKE_FIELDS = (
    "upper_color",
    "lower_color",
    "upper",
    "lower",
    "pattern",
    "pattern_color",
    "shoes_color",
    "hair_style",
    "hair_color",
    "headwear",
    "headwear_color",
    "bag",
    "bag_color",
    "scarf_color",
    "umbrella_color",
)

_JEANS_COLORS = ("blue", "navy", "light blue", "black", "grey")
_LEATHER_COLORS = ("black", "brown")
_WARM_UPPERS = ("sweater", "hoodie", "jacket", "coat")


def color_distance(first: str | None, second: str | None) -> int:
    """Sum of the absolute channel differences of two named colours; 765 where only one of them is absent."""
    if first == second:
        return 0
    if first not in COLORS or second not in COLORS:
        return 765
    return sum(abs(a - b) for a, b in zip(COLORS[first], COLORS[second], strict=True))


def is_consistent(person: PersonAttributes) -> bool:
    """Whether the attributes can occur together: absent things have no colour, clothes fit the wearer and season."""
    p = person
    pattern_allowed = {
        "t-shirt": ("plain", "striped", "logo"),
        "shirt": ("plain", "striped", "checked"),
        "sweater": ("plain", "striped", "logo"),
        "hoodie": ("plain", "logo"),
        "jacket": ("plain",),
        "coat": ("plain", "checked"),
        "dress": ("plain", "striped", "checked"),
    }[p.upper]
    return (
        (p.hair_style == "bald") == (p.hair_color is None)
        and (p.headwear == "none") == (p.headwear_color is None)
        and (p.pattern == "plain") == (p.pattern_color is None)
        and (p.lower == "none") == (p.lower_color is None)
        and (p.bag == "none") == (p.bag_color is None)
        and (p.upper == "dress") == (p.lower == "none")
        and p.pattern in pattern_allowed
        and (p.pattern == "plain" or color_distance(p.upper_color, p.pattern_color) >= _SMALLEST_COLOR_CHANGE)
        and (p.inner_color is None or p.upper == "jacket")
        and (p.inner_color is None or color_distance(p.upper_color, p.inner_color) >= _SMALLEST_COLOR_CHANGE)
        and (p.gender == "woman" or (p.upper != "dress" and p.lower != "skirt"))
        and (p.gender == "woman" or p.hair_style in ("short", "curly", "long", "bald"))
        and (p.gender == "man" or p.hair_style != "bald")
        and (p.gender == "man" or not p.beard)
        and (p.gender == "woman" or p.bag != "handbag")
        and (p.age == "elderly" or p.hair_color != "grey")
        and (p.age != "elderly" or p.hair_color in ("grey", None))
        and (p.lower != "jeans" or p.lower_color in _JEANS_COLORS)
        and (p.shoes == "trainers" or p.shoes_color in _LEATHER_COLORS)
        and (p.upper != "coat" or p.lower in ("trousers", "jeans"))
        and (p.scarf_color is None or p.upper in _WARM_UPPERS)
        and (p.scarf_color is None or color_distance(p.upper_color, p.scarf_color) >= _SMALLEST_COLOR_CHANGE)
        and (p.scarf_color is None or p.lower not in ("shorts",))
        and (p.headwear != "beanie" or (p.lower != "shorts" and p.upper != "t-shirt" and p.upper != "dress"))
        and not (p.headwear != "none" and p.hair_style in ("bun", "curly"))
        and (p.umbrella_color is None or p.glasses != "sunglasses")
        and (p.umbrella_color is None or p.bag not in ("suitcase",))
        and (p.umbrella_color is None or p.headwear != "hat")
    )


def _color(stream: RandomStream, field: str) -> str:
    named = [value for value in VOCABULARY[field] if isinstance(value, str)]
    return stream.choice(named)


def _draw(stream: RandomStream) -> PersonAttributes:
    woman = stream.chance(50)
    age = stream.weighted([("young", 40), ("adult", 42), ("elderly", 18)])
    if woman:
        styles = [("long", 34), ("ponytail", 22), ("bob", 16), ("bun", 12), ("short", 8), ("curly", 8)]
        uppers = [("t-shirt", 20), ("shirt", 14), ("sweater", 14), ("hoodie", 10), ("jacket", 16), ("coat", 10)]
        uppers.append(("dress", 16))
        lowers = [("jeans", 34), ("trousers", 26), ("skirt", 24), ("shorts", 16)]
        bags = [("none", 30), ("backpack", 18), ("handbag", 20), ("shoulder bag", 16), ("shopping bag", 8)]
    else:
        styles = [("short", 62), ("curly", 12), ("bald", 14), ("long", 12)]
        uppers = [("t-shirt", 24), ("shirt", 18), ("sweater", 14), ("hoodie", 18), ("jacket", 18), ("coat", 8)]
        lowers = [("jeans", 38), ("trousers", 40), ("shorts", 22)]
        bags = [("none", 34), ("backpack", 28), ("shoulder bag", 18), ("shopping bag", 10)]
    hair_style = stream.weighted(styles)
    hair_color = (
        "grey" if age == "elderly" else stream.weighted([("black", 38), ("brown", 34), ("blond", 20), ("red", 8)])
    )
    headwear = stream.weighted([("none", 70), ("cap", 13), ("beanie", 10), ("hat", 7)])
    upper = stream.weighted(uppers)
    pattern = stream.weighted([("plain", 56), ("striped", 18), ("checked", 14), ("logo", 12)])
    lower = "none" if upper == "dress" else stream.weighted(lowers)
    shoes = stream.weighted([("trainers", 56), ("boots", 20), ("leather shoes", 24)])
    bag = stream.weighted([*bags, ("suitcase", 8)])
    return PersonAttributes(
        gender="woman" if woman else "man",
        age=age,
        build=stream.weighted([("slim", 30), ("average", 50), ("heavy", 20)]),
        skin_tone=stream.below(6),
        hair_style=hair_style,
        hair_color=None if hair_style == "bald" else hair_color,
        beard=not woman and stream.chance(26),
        headwear=headwear,
        headwear_color=None if headwear == "none" else _color(stream, "headwear_color"),
        upper=upper,
        upper_color=_color(stream, "upper_color"),
        pattern=pattern,
        pattern_color=None if pattern == "plain" else _color(stream, "pattern_color"),
        inner_color=_color(stream, "inner_color") if upper == "jacket" and stream.chance(55) else None,
        lower=lower,
        lower_color=None if lower == "none" else _color(stream, "lower_color"),
        shoes=shoes,
        shoes_color=_color(stream, "shoes_color"),
        bag=bag,
        bag_color=None if bag == "none" else _color(stream, "bag_color"),
        glasses=stream.weighted([("none", 72), ("glasses", 18), ("sunglasses", 10)]),
        scarf_color=_color(stream, "scarf_color") if stream.chance(14) else None,
        umbrella_color=_color(stream, "umbrella_color") if stream.chance(7) else None,
    )


def sample_attributes(stream: RandomStream) -> PersonAttributes:
    """Draws a person; combinations that do not go together are drawn again."""
    while True:
        person = _draw(stream)
        if is_consistent(person):
            return person


def lookalike_candidates(person: PersonAttributes, field: str) -> list[PersonAttributes]:
    """Consistent people that differ from `person` in `field` only, colours being clearly different ones."""
    current = getattr(person, field)
    candidates = []
    for value in VOCABULARY[field]:
        if value == current:
            continue
        if field.endswith("_color") and color_distance(current, value) < _SMALLEST_COLOR_CHANGE:  # type: ignore[arg-type]
            continue
        candidate = replace(person, **{field: value})  # type: ignore[arg-type]
        if is_consistent(candidate):
            candidates.append(candidate)
    return candidates


def sample_lookalike(person: PersonAttributes, stream: RandomStream) -> PersonAttributes:
    """Draws a person who differs from `person` in exactly one of `LOOKALIKE_FIELDS`."""
    for field in stream.shuffled(LOOKALIKE_FIELDS):
        candidates = lookalike_candidates(person, field)
        if candidates:
            return stream.choice(candidates)
    raise AssertionError("the colour of the upper garment can always be changed")


def one_field_signatures(person: PersonAttributes) -> list[tuple[str, PersonAttributes]]:
    """One key per attribute; two people share a key exactly when they differ in at most that attribute."""
    blank: dict[str, object] = {f.name: None for f in fields(person)}
    return [(name, replace(person, **{name: value})) for name, value in blank.items()]  # type: ignore[arg-type]
