"""Captions that are true of an image: only what its pixels show is said, in varied words and order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .attributes import PersonAttributes
from .randomness import RandomStream
from .view import Part, View
from .wording import (
    BAGS,
    COLOR_WORDS,
    DIRECTION_PHRASES,
    HAIR_COLOR_WORDS,
    HEADWEAR,
    LOWER_GARMENTS,
    MOVEMENT_PHRASES,
    OCCLUDER_NOUNS,
    PEOPLE,
    PLACE_PHRASES,
    SHOES,
    UPPER_GARMENTS,
    with_article,
)

__all__ = ["LONGEST", "SHORTEST", "VisibleParts", "write_caption"]

SHORTEST, LONGEST = 20, 40  # words of a caption


@dataclass(frozen=True, slots=True)
class VisibleParts:
    """How much of every part an image shows.

    Attributes:
        areas: Visible area of each `Part`, in millionths of the image.
        drawn: The same before anything was put in front of the person.
    """

    areas: tuple[int, ...]
    drawn: tuple[int, ...]

    @classmethod
    def from_counts(cls, drawn: Sequence[int], remaining: Sequence[int], total: int) -> VisibleParts:
        """From the pixel counts of each part before and after the occluder was drawn, of `total` pixels."""
        areas = tuple(remaining[part] * 1_000_000 // total for part in Part)
        return cls(areas, tuple(drawn[part] * 1_000_000 // total for part in Part))

    def shows(self, *parts: Part, area: int, percent: int = 45) -> bool:
        """Whether the parts together cover `area` millionths and `percent` of them is not hidden."""
        visible = sum(self.areas[part] for part in parts)
        return visible >= area and visible * 100 >= percent * sum(self.drawn[part] for part in parts)

    @property
    def hidden_percent(self) -> int:
        """How much of the person the occluder hides."""
        figure = [part for part in Part if part not in (Part.NOTHING, Part.OCCLUDER)]
        drawn = sum(self.drawn[part] for part in figure)
        return 100 - 100 * sum(self.areas[part] for part in figure) // max(1, drawn)


def described_attributes(person: PersonAttributes, view: View, visible: VisibleParts) -> frozenset[str]:
    """Names of the attributes that an image shows well enough to be described.

    Besides the fields of `PersonAttributes` there is `"backpack_straps"`, for a backpack of which only those are seen.
    """
    blurred = view.blur + view.low_resolution + view.motion_blur >= 2
    tests = {
        "upper_color": visible.shows(Part.UPPER, Part.UPPER_PATTERN, area=25_000, percent=40),
        "upper": visible.shows(Part.UPPER, Part.UPPER_PATTERN, area=30_000, percent=65),
        "pattern": not blurred and visible.shows(Part.UPPER_PATTERN, area=2_500, percent=55),
        "inner_color": visible.shows(Part.INNER, area=6_000),
        "lower_color": visible.shows(Part.LOWER, area=14_000, percent=45),
        "lower": visible.shows(Part.LOWER, area=14_000, percent=70),
        "shoes_color": visible.shows(Part.SHOES, area=3_500, percent=60),
        "shoes": not blurred and visible.shows(Part.SHOES, area=3_500, percent=75),
        "hair_color": visible.shows(Part.HAIR, Part.TIED_HAIR, area=2_500, percent=60),
        "headwear": visible.shows(Part.HEADWEAR, area=3_000, percent=60),
        "beard": not blurred and visible.shows(Part.BEARD, area=900, percent=60),
        "glasses": not blurred and visible.shows(Part.GLASSES, area=1_300, percent=60),
        "bag": visible.shows(Part.BAG, area=6_000, percent=60),
        "backpack_straps": person.bag == "backpack"
        and visible.areas[Part.BAG] == 0
        and visible.shows(Part.STRAP, area=3_500, percent=60),
        "scarf_color": visible.shows(Part.SCARF, area=3_000, percent=60),
        "umbrella_color": visible.shows(Part.UMBRELLA, area=12_000, percent=60),
    }
    uncovered = person.headwear == "none"
    if person.hair_style == "bald":
        tests["hair_style"] = uncovered and visible.shows(Part.FACE, Part.SKIN, area=5_000, percent=65)
    elif person.hair_style in ("ponytail", "bun"):
        tests["hair_style"] = visible.shows(Part.TIED_HAIR, area=1_200, percent=60)
    else:
        tests["hair_style"] = tests["hair_color"] and (uncovered or person.hair_style in ("long", "bob"))
    face = not blurred and visible.shows(Part.FACE, area=6_000, percent=65)
    tests["age"] = {
        "young": face,
        "adult": False,
        "elderly": tests["hair_color"] or (face and view.direction == "front"),
    }[person.age]
    tests["build"] = person.build == "heavy" and tests["upper"]
    absent = {None, False, "none"}
    return frozenset(
        name
        for name, shown in tests.items()
        if shown and (name == "backpack_straps" or getattr(person, name) not in absent)
    )


class _Writer:
    """Writes one caption."""

    def __init__(self, person: PersonAttributes, view: View, visible: VisibleParts, place: str, stream: RandomStream):
        self.person = person
        self.view = view
        self.visible = visible
        self.place = place
        self.stream = stream
        self.shown = described_attributes(person, view, visible)
        woman = person.gender == "woman"
        self.he, self.his, self.him = ("she", "her", "her") if woman else ("he", "his", "him")

    # --- noun phrases ------------------------------------------------------------------------------------------------

    def color(self, name: str | None) -> str:
        return self.stream.choice(COLOR_WORDS[name or "grey"])

    def person_phrase(self) -> str:
        """The person without article, e.g. `"elderly man"`."""
        noun = self.stream.choice(PEOPLE[self.person.gender])
        adjectives = []
        if "age" in self.shown and self.stream.chance(60):
            adjectives.append(self.stream.choice(("elderly", "older") if self.person.age == "elderly" else ("young",)))
        if "build" in self.shown and self.stream.chance(25):
            adjectives.append(self.stream.choice(("stocky", "heavily built")))
        return " ".join([*adjectives, noun])

    def hair(self) -> str | None:
        """Hair with article where one is needed, or `None` where it cannot be described."""
        if "hair_color" not in self.shown:
            return None
        color = self.stream.choice(HAIR_COLOR_WORDS[self.person.hair_color or "black"])
        style = self.person.hair_style if "hair_style" in self.shown else "unknown"
        options: dict[str, tuple[str, ...]] = {
            "short": (f"short {color} hair", f"{color} hair cut short"),
            "curly": (f"curly {color} hair", f"thick {color} curls"),
            "bob": (f"chin-length {color} hair", with_article(f"{color} bob")),
            "long": (f"long {color} hair", f"{color} hair past the shoulders"),
            "ponytail": (f"{color} hair in a ponytail", with_article(f"{color} ponytail")),
            "bun": (f"{color} hair tied up in a bun", with_article(f"{color} bun on top of {self.his} head")),
            "unknown": (f"{color} hair",),
        }
        return self.stream.choice(options[style])

    def upper(self) -> str | None:
        """The upper garment with its article."""
        p = self.person
        if "upper_color" not in self.shown:
            return None
        color = self.color(p.upper_color)
        kind_known = "upper" in self.shown and not self.stream.chance(6)
        vague = "garment" if p.upper in ("jacket", "coat", "dress") else "top"
        noun = self.stream.choice(UPPER_GARMENTS[p.upper]) if kind_known else vague
        if p.upper == "coat" and noun == "long coat" and not self.visible.shows(Part.UPPER, area=30_000, percent=85):
            noun = "coat"
        if "pattern" in self.shown and p.pattern != "plain" and self.stream.chance(88):
            second = self.color(p.pattern_color)
            if p.pattern == "striped":
                forms = (f"{color} and {second} striped {noun}", f"{color} {noun} with {second} stripes")
            elif p.pattern == "checked":
                forms = (
                    f"{color} and {second} {self.stream.choice(('checked', 'plaid'))} {noun}",
                    f"{color} {noun} with {with_article(second)} check pattern",
                )
            else:
                logo = self.stream.choice(("logo", "print", "emblem"))
                forms = (
                    f"{color} {noun} with {with_article(second)} {logo} on the chest",
                    f"{color} {noun} with a round {second} {logo}",
                )
            return with_article(self.stream.choice(forms))
        if "inner_color" in self.shown and self.stream.chance(75):
            under = self.stream.choice(("top", "shirt", "t-shirt"))
            link = self.stream.choice(("over", "on top of"))
            opened = self.stream.choice(("open ", ""))
            return (
                with_article(f"{opened}{color} {noun}")
                + f" {link} "
                + with_article(f"{self.color(p.inner_color)} {under}")
            )
        plain = "plain " if p.pattern == "plain" and p.inner_color is None and self.stream.chance(10) else ""
        return with_article(f"{plain}{color} {noun}")

    def lower(self) -> str | None:
        """The lower garment, with its article where it is singular."""
        p = self.person
        if "lower_color" not in self.shown:
            return None
        color = self.color(p.lower_color)
        if "lower" not in self.shown:
            # Hidden too much to tell which garment it is.
            return f"{color} bottoms"
        noun = self.stream.choice(LOWER_GARMENTS[p.lower])
        if p.lower == "skirt":
            return with_article(f"{color} {noun}")
        return f"a pair of {color} {noun}" if self.stream.chance(22) else f"{color} {noun}"

    def shoes(self) -> str | None:
        """The shoes, plural."""
        if "shoes_color" not in self.shown:
            return None
        noun = self.stream.choice(SHOES[self.person.shoes]) if "shoes" in self.shown else "shoes"
        return f"{self.color(self.person.shoes_color)} {noun}"

    # --- clauses: verb phrases about the person, or whole sentences -------------------------------------------------------

    def bag_clauses(self) -> list[str]:
        p = self.person
        if "backpack_straps" in self.shown:
            noun = self.stream.choice(BAGS["backpack"])
            return [self.stream.choice((f"has the straps of a {noun} over both shoulders", f"is wearing a {noun}"))]
        if "bag" not in self.shown:
            return []
        noun = with_article(f"{self.color(p.bag_color)} {self.stream.choice(BAGS[p.bag])}")
        forms = {
            "backpack": (f"carries {noun}", f"has {noun} on {self.his} back", f"is wearing {noun}"),
            "handbag": (f"carries {noun}", f"holds {noun} in one hand", f"has {noun} in {self.his} hand"),
            "shoulder bag": (f"carries {noun}", f"has {noun} hanging at the hip", f"wears {noun} on a strap"),
            "shopping bag": (f"carries {noun}", f"holds {noun} in one hand", f"has {noun} in {self.his} hand"),
            "suitcase": (f"pulls {noun}", f"is pulling {noun} along", f"has {noun} on wheels"),
        }[p.bag]
        form = self.stream.choice(forms)
        if "on wheels" in form and "wheeled" in form:
            form = f"pulls {noun}"
        return [form]

    def clothes_clauses(self) -> list[str]:
        upper, lower, shoes = self.upper(), self.lower(), self.shoes()
        if upper is not None and self.stream.chance(3):
            upper = None
        if lower is not None and self.stream.chance(9):
            lower = None
        if shoes is not None and self.stream.chance(28):
            shoes = None
        verb = self.stream.choice(("wears", "is wearing", "has on", "is dressed in"))
        if upper is not None and lower is not None:
            joint = self.stream.choice((" and ", " with ", " together with "))
            if " with " in upper or " over " in upper or " on top of " in upper:
                joint = " and "
            if shoes is not None and joint == " and " and self.stream.chance(35):
                return [f"{verb} {upper}, {lower} and {shoes}"]
            clauses = [f"{verb} {upper}{joint}{lower}"]
        else:
            clauses = [f"{verb} {item}" for item in (upper, lower) if item is not None]
        if shoes is not None:
            clauses.append(self.stream.choice((f"wears {shoes}", f"has {shoes} on {self.his} feet", f"has {shoes} on")))
        return clauses

    def small_clauses(self) -> list[str]:
        """Headwear, glasses, beard, scarf and umbrella."""
        p = self.person
        clauses = []
        if "headwear" in self.shown:
            noun = with_article(f"{self.color(p.headwear_color)} {self.stream.choice(HEADWEAR[p.headwear])}")
            clauses.append(self.stream.choice((f"wears {noun}", f"has {noun} on {self.his} head")))
        if "glasses" in self.shown:
            noun = "dark sunglasses" if p.glasses == "sunglasses" and self.stream.chance(40) else p.glasses
            clauses.append(self.stream.choice((f"wears {noun}", f"is wearing {noun}")))
        if "beard" in self.shown:
            clauses.append("has a beard")
        if "scarf_color" in self.shown:
            noun = with_article(f"{self.color(p.scarf_color)} scarf")
            clauses.append(self.stream.choice((f"wears {noun}", f"has {noun} around {self.his} neck")))
        if "umbrella_color" in self.shown:
            noun = f"{self.color(p.umbrella_color)} umbrella"
            clauses.append(
                self.stream.choice((f"holds {with_article(noun)}", f"is under {with_article('open ' + noun)}"))
            )
        return [clause for clause in clauses if self.stream.chance(80)]

    def hair_clauses(self) -> list[str]:
        if self.person.hair_style == "bald" and "hair_style" in self.shown:
            return [self.stream.choice(("is bald", "has a bald head", "has no hair on the head"))]
        hair = self.hair()
        return [] if hair is None else [f"has {hair}"]

    def circumstances(self) -> list[str]:
        """Clauses about direction, movement, place and what is in front; there are always enough to fill a caption."""
        place = self.stream.choice(PLACE_PHRASES[self.place])
        turned = self.stream.choice(DIRECTION_PHRASES[self.view.direction]).replace("{his}", self.his)
        if self.view.standing:
            where = f"{self.stream.choice(('stands', 'is standing'))} {place}"
        else:
            where = f"is walking {place}"
            if self.stream.chance(45):
                turned = self.stream.choice(MOVEMENT_PHRASES[self.view.direction])
        clauses = [turned, where]
        if self.view.occluder is not None and self.visible.hidden_percent >= 4:
            noun = with_article(self.stream.choice(OCCLUDER_NOUNS[self.view.occluder]))
            clauses.append(self.stream.choice((f"is partly hidden by {noun}", f"is partly behind {noun}")))
        return self.stream.shuffled(clauses)

    # --- putting together --------------------------------------------------------------------------------------------

    def first_sentence(self, clause: str, extra: str | None) -> str:
        article = self.stream.weighted([("a", 70), ("this", 15), ("the", 15)])
        noun = self.person_phrase()
        subject = with_article(noun) if article == "a" else f"{article} {noun}"
        if extra is not None:
            subject += f" {extra}"
        for verb in ("wears ", "is wearing ", "is dressed in "):
            if clause.startswith(verb) and extra is None and "," not in clause and self.stream.chance(22):
                what = clause.removeprefix(verb)
                return f"{subject} in {what}"
        return f"{subject} {clause}"

    def compose(self) -> str:
        """One attempt at a caption; its length is checked by the caller."""
        clothes = self.clothes_clauses()
        hair = self.hair_clauses() if self.stream.chance(72) else []
        details = [*self.bag_clauses(), *self.small_clauses()]
        if self.stream.chance(12):
            details = details[1:]
        circumstances = self.circumstances()
        extra = None
        if hair and hair[0].startswith("has ") and self.stream.chance(50):
            extra = "with " + hair.pop().removeprefix("has ")
        ordered = self.stream.shuffled([*clothes[1:], *hair, *details])
        wanted = self.stream.weighted([(0, 30), (1, 50), (2, 20)])
        ordered = [*clothes[:1], *ordered]
        for clause in circumstances[:wanted]:
            ordered.insert(self.stream.below(len(ordered) + 1), clause)
        spare = circumstances[wanted:]
        length = sum(len(clause.split()) + 1 for clause in ordered) + (len(extra.split()) if extra else 0) + 2
        while spare and length < SHORTEST + 1:
            ordered.append(spare.pop(0))
            length += len(ordered[-1].split()) + 1
        return self.join(ordered, extra)

    def join(self, clauses: list[str], extra: str | None) -> str:
        """Makes sentences of one or two clauses each."""
        sentences: list[str] = []
        index = 0
        while index < len(clauses):
            clause = clauses[index]
            index += 1
            if not sentences:
                sentence = self.first_sentence(clause, extra)
                bare = " in " in sentence and not sentence.endswith(clause)
                if bare:
                    following = clauses[index] if index < len(clauses) else None
                    if following is None or following.split()[0] in ("has", "wears"):
                        sentence = sentence.replace(" in ", " is dressed in ", 1)
                    else:
                        sentence += f" {following}"
                        index += 1
                    sentences.append(sentence)
                    continue
            else:
                subject = self.he if self.stream.chance(80) else f"the {self.person.gender}"
                sentence = f"{subject} {clause}"
            if index < len(clauses) and self.stream.chance(55):
                shared = _shared_verb(clause, clauses[index])
                if shared is None or " and " not in clause:
                    sentence += " and " + clauses[index].removeprefix(shared or "")
                    index += 1
            sentences.append(sentence)
        return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in sentences)


def _shared_verb(first: str, second: str) -> str | None:
    """The verb that two clauses start with, which then need not be said twice."""
    if any(clause.startswith("has on ") or clause.endswith(" on") for clause in (first, second)):
        return None  # "has on" is another verb than "has"
    for verb in ("is wearing ", "wears ", "has ", "carries "):
        if first.startswith(verb) and second.startswith(verb):
            return verb
    return None


#: True of every image; added only where so little is visible that nothing else fills a caption.
_PADDING = (
    "The person is near the middle of the frame.",
    "The picture comes from a fixed surveillance camera.",
)
_ATTEMPTS_WITHOUT_PADDING = 8


def write_caption(person: PersonAttributes, view: View, visible: VisibleParts, place: str, stream: RandomStream) -> str:
    """Writes one caption of 20 to 40 words that is true of the image.

    Args:
        person: Who is shown.
        view: The circumstances of the image.
        visible: What the image shows of the person.
        place: Kind of place behind the person, one of `scene.PLACES`.
        stream: Draws of this caption.
    """
    writer = _Writer(person, view, visible, place, stream)
    attempt = 0
    while True:
        caption = writer.compose()
        attempt += 1
        if attempt > _ATTEMPTS_WITHOUT_PADDING:
            for padding in _PADDING:
                if len(caption.split()) < SHORTEST:
                    caption = f"{caption} {padding}"
        if SHORTEST <= len(caption.split()) <= LONGEST:
            return caption
