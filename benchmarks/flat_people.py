"""Draw a small data set of flat-shaded people in the CUHK-PEDES layout, by another renderer and other words than ours.

    python benchmarks/flat_people.py DIR [--seed 1] [--train 200] [--test 60]

The recipe `cfine-tiny` is measured on it, so that it is not tuned to `SyntheticPedestrians` alone: four images of 64×192 pixels
per person, seen from the front or back, with colour casts, blur, noise, clutter and occlusion; two captions per image that
leave attributes out.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Color = tuple[int, int, int]

COLORS: dict[str, Color] = {
    "red": (200, 30, 35),
    "blue": (35, 60, 190),
    "green": (30, 140, 60),
    "yellow": (225, 205, 50),
    "black": (25, 25, 28),
    "white": (235, 235, 232),
    "grey": (128, 128, 130),
    "brown": (110, 70, 40),
    "pink": (235, 140, 170),
    "purple": (120, 50, 150),
    "orange": (235, 130, 35),
    "beige": (215, 195, 160),
}
OTHER_WORDS = {"grey": ["gray"], "red": ["crimson"], "blue": ["dark blue"], "beige": ["tan"]}
HAIR: dict[str, Color] = {
    "black": (20, 18, 18),
    "blonde": (215, 180, 90),
    "brown": (95, 60, 30),
    "grey": (150, 150, 150),
}
HEM = {"coat": 125, "jacket": 104, "sweater": 102, "t-shirt": 100, "vest": 100}
SKIN: Color = (215, 170, 140)
SCALE, SIZE = 3, (64, 192)


@dataclass(frozen=True, slots=True)
class Person:
    """What is true of a person in every image."""

    woman: bool
    top: str
    top_color: str
    bottom: str
    bottom_color: str
    hair_color: str
    long_hair: bool
    bag: str
    bag_color: str
    shoes: str
    hat: str
    stripes: str


class Painter:
    """Draws and describes people with one random generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.noise = np.random.default_rng(seed)

    def person(self) -> Person:
        """Someone with random attributes."""
        pick, chance = self.random.choice, self.random.random
        colors = list(COLORS)
        return Person(
            woman=chance() < 0.5,
            top=pick(list(HEM)),
            top_color=pick(colors),
            bottom=pick(["trousers", "shorts", "skirt", "jeans"]),
            bottom_color=pick(colors),
            hair_color=pick(list(HAIR)),
            long_hair=chance() < 0.5,
            bag=pick(["", "", "backpack", "handbag", "suitcase"]),
            bag_color=pick(colors),
            shoes=pick(["black", "white", "red", "brown", "blue"]),
            hat=pick(colors) if chance() < 0.8 else "",
            stripes=pick(colors) if chance() < 0.2 else "",
        )

    def _shade(self, color: Color, spread: float = 10) -> Color:
        red, green, blue = (max(0, min(255, round(value + self.random.gauss(0, spread)))) for value in color)
        return red, green, blue

    def _background(self) -> Image.Image:
        uniform, whole = self.random.uniform, self.random.randint
        width, height = SIZE[0] * SCALE, SIZE[1] * SCALE
        light = np.linspace(uniform(90, 200), uniform(60, 190), height)[:, None, None] * np.ones((1, width, 3))
        light += self.noise.normal(0, 20, 3)
        light += self.noise.normal(0, 8, (height // 12, width // 12, 1)).repeat(12, 0).repeat(12, 1)
        image = Image.fromarray(light.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(whole(0, 4)):
            x, y = whole(0, width), whole(0, height)
            clutter = (whole(40, 220), whole(40, 220), whole(40, 220))
            draw.rectangle([x, y, x + whole(10, 60), y + whole(20, 160)], fill=clutter)
        return image

    def image(self, person: Person) -> Image.Image:
        """One view, 64 × 192 pixels."""
        uniform, whole, chance = self.random.uniform, self.random.randint, self.random.random
        image = self._background()
        draw = ImageDraw.Draw(image)
        scale, center, top = uniform(0.85, 1.05), image.width / 2 + self.random.gauss(0, 10), uniform(15, 50)

        def box(left: float, upper: float, right: float, lower: float) -> list[float]:
            vertical, horizontal = 2.7 * scale, 3.0 * scale
            return [
                center + left * horizontal,
                top + upper * vertical,
                center + right * horizontal,
                top + lower * vertical,
            ]

        back, stride, lean = chance() < 0.4, uniform(0, 7), self.random.gauss(0, 2)
        skin = self._shade(SKIN, 20)
        cloth, below = self._shade(COLORS[person.top_color]), self._shade(COLORS[person.bottom_color])
        hair = self._shade(HAIR[person.hair_color], 8)
        bag = self._shade(COLORS[person.bag_color], 8)
        dark = (45, 45, 45)
        if person.bag == "backpack" and not back:
            draw.rectangle(box(-17, 48, 17, 85), fill=bag)
        for side in (-1, 1):
            hip, foot = sorted((0, side * 10)), sorted((side * (3 + stride) - 2, side * (7 + stride) + 2))
            upper, lower = box(hip[0], 100, hip[1], 100), box(foot[0], 178, foot[1], 178)
            leg = [tuple(upper[:2]), tuple(upper[2:]), tuple(lower[2:]), tuple(lower[:2])]
            draw.polygon(leg, fill=below if person.bottom in ("trousers", "jeans") else skin)
            draw.ellipse(
                box(side * (5 + stride) - 3, 174, side * (5 + stride) + 3, 182), fill=self._shade(COLORS[person.shoes])
            )
        if person.bottom == "shorts":
            draw.rectangle(box(-12, 96, 12, 125), fill=below)
        if person.bottom == "skirt":
            upper, lower = box(-10, 95, 10, 95), box(-17, 135, 17, 135)
            draw.polygon([tuple(upper[:2]), tuple(upper[2:]), tuple(lower[2:]), tuple(lower[:2])], fill=below)
        draw.rounded_rectangle(box(lean - 14, 42, lean + 14, HEM[person.top]), radius=16, fill=cloth)
        if person.stripes:
            stripe = self._shade(COLORS[person.stripes], 8)
            for y in range(50, 100, 12):
                draw.rectangle(box(lean - 14, y, lean + 14, y + 4), fill=stripe)
        for side in (-1, 1):
            swing = uniform(0, 8)
            sleeve = cloth if person.top in ("jacket", "coat", "sweater") else skin
            shoulder, hand = box(side * 13, 48, side * (18 + swing), 95), box(side * (18 + swing), 92, 0, 100)
            draw.line(shoulder, fill=sleeve, width=round(22 * scale))
            if person.top == "t-shirt":
                draw.line(box(side * 13, 48, side * (15 + 0.3 * swing), 65), fill=cloth, width=round(24 * scale))
            draw.ellipse([hand[0] - 10, hand[1], hand[0] + 10, hand[3]], fill=skin)
        if person.top == "jacket":
            draw.line(box(lean, 44, lean, HEM["jacket"]), fill=dark, width=4)
        if person.bag == "backpack" and back:
            draw.rounded_rectangle(box(-12, 48, 12, 88), radius=14, fill=bag)
        if person.bag == "handbag":
            draw.rectangle(box(15, 88, 29, 106), fill=bag)
            draw.arc(box(16, 75, 28, 98), 180, 360, fill=dark, width=4)
        if person.bag == "suitcase":
            draw.rectangle(box(-31, 125, -15, 170), fill=bag)
            draw.line(box(-22, 100, -22, 125), fill=dark, width=5)
        if person.long_hair:
            draw.rounded_rectangle(box(lean - 11, 12, lean + 11, 52), radius=18, fill=hair)
        draw.ellipse(box(lean - 9, 12, lean + 9, 38), fill=hair if back else skin)
        draw.pieslice(box(lean - 10, 8, lean + 10, 34), 180, 360, fill=hair)
        if person.hat:
            hat = self._shade(COLORS[person.hat], 8)
            draw.rectangle(box(lean - 11, 6, lean + 11, 16), fill=hat)
            draw.rectangle(box(lean - 14, 14, lean + 14, 18), fill=hat)
        if chance() < 0.2:
            wall = (whole(40, 160), whole(40, 160), whole(40, 160))
            draw.rectangle([0, box(0, whole(130, 160), 0, 0)[1], image.width, image.height], fill=wall)
        image = ImageEnhance.Brightness(image.resize(SIZE, Image.Resampling.LANCZOS)).enhance(uniform(0.65, 1.25))
        if chance() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(uniform(0.3, 1.3)))
        if chance() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(image, np.float64) + self.noise.normal(0, 6, (SIZE[1], SIZE[0], 3))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def _word(self, color: str) -> str:
        return self.random.choice([color, *OTHER_WORDS.get(color, [])])

    def caption(self, person: Person) -> str:
        """One description; hair, shoes, bag and hat may be left out."""
        pick, chance = self.random.choice, self.random.random
        names = ["woman", "lady", "female pedestrian"] if person.woman else ["man", "guy", "male pedestrian"]
        name = pick([*names, "person"])
        he, his, him = ("She", "her", "her") if person.woman else ("He", "his", "him")
        stripes = f" with {self._word(person.stripes)} stripes" if person.stripes else ""
        above = f"a {self._word(person.top_color)} {person.top}{stripes}"
        below = f"{'a ' if person.bottom == 'skirt' else ''}{self._word(person.bottom_color)} {person.bottom}"
        rest = []
        if chance() < 0.75:
            length = pick(["long", "shoulder-length"] if person.long_hair else ["short", "cropped"])
            rest.append(f"{he} has {length} {person.hair_color} hair.")
        if chance() < 0.7:
            shoes = person.shoes
            rest.append(
                pick([f"The shoes are {shoes}.", f"{he} walks in {shoes} shoes.", f"On {his} feet are {shoes} shoes."])
            )
        if person.bag and chance() < 0.9:
            bag = f"a {self._word(person.bag_color)} {person.bag}"
            rest.append(pick([f"{he} carries {bag}.", f"There is {bag} with {him}."]))
        if person.hat and chance() < 0.9:
            rest.append(f"A {self._word(person.hat)} {pick(['hat', 'cap'])} sits on {his} head.")
        self.random.shuffle(rest)
        first = pick(
            [
                f"A {name} wearing {above} and {below}.",
                f"The {name} is dressed in {above} together with {below}.",
                f"This {name} has {above} on top and {below} below.",
                f"The {name} wears {below} and {above}.",
                f"A {name} in {below} under {above}.",
            ]
        )
        return " ".join([*rest[:1], first, *rest[1:]] if len(rest) > 1 and chance() < 0.3 else [first, *rest])


def draw_data_set(root: Path, seed: int, train: int, test: int) -> None:
    """Write `root/CUHK-PEDES`; no two people share every attribute."""
    painter, images = Painter(seed), root / "CUHK-PEDES" / "imgs"
    images.mkdir(parents=True, exist_ok=True)
    people: dict[tuple[object, ...], Person] = {}
    while len(people) < train + test:
        person = painter.person()
        people.setdefault(astuple(person), person)
    records = []
    for number, person in enumerate(people.values(), start=1):
        for view in range(4):
            name = f"{number:04d}_{view}.png"
            painter.image(person).save(images / name)
            captions = [painter.caption(person) for _ in range(2)]
            split = "train" if number <= train else "test"
            records.append({"split": split, "captions": captions, "file_path": name, "id": number})
    (root / "CUHK-PEDES" / "reid_raw.json").write_text(json.dumps(records), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=60)
    options = parser.parse_args()
    draw_data_set(options.root, options.seed, options.train, options.test)
    print(f"{options.train + options.test} people drawn in {options.root}")


if __name__ == "__main__":
    main()
