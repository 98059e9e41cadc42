"""The words of the captions: synonyms of colours, garments, objects, places and movements."""

from __future__ import annotations

__all__ = [
    "BAGS",
    "COLOR_WORDS",
    "DIRECTION_PHRASES",
    "HAIR_COLOR_WORDS",
    "HEADWEAR",
    "LOWER_GARMENTS",
    "MOVEMENT_PHRASES",
    "OCCLUDER_NOUNS",
    "PEOPLE",
    "PLACE_PHRASES",
    "SHOES",
    "UPPER_GARMENTS",
    "with_article",
]

# Repeated entries are more frequent. No word of one list is used for another colour: a caption must stay true.
COLOR_WORDS: dict[str, tuple[str, ...]] = {
    "black": ("black", "black", "black"),
    "white": ("white", "white", "white"),
    "grey": ("grey", "grey", "gray"),
    "red": ("red", "red", "bright red"),
    "burgundy": ("burgundy", "maroon", "dark red", "wine-red"),
    "orange": ("orange",),
    "yellow": ("yellow", "yellow", "bright yellow"),
    "green": ("green",),
    "olive": ("olive", "olive green", "khaki"),
    "teal": ("teal", "turquoise"),
    "light blue": ("light blue", "sky blue", "pale blue"),
    "blue": ("blue", "blue", "royal blue"),
    "navy": ("navy", "navy blue", "dark blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "pink", "light pink"),
    "brown": ("brown",),
    "beige": ("beige", "tan", "sand-coloured"),
}

HAIR_COLOR_WORDS: dict[str, tuple[str, ...]] = {
    "black": ("black", "black", "dark"),
    "brown": ("brown",),
    "blond": ("blond", "fair"),
    "red": ("red", "ginger"),
    "grey": ("grey", "gray"),
}

UPPER_GARMENTS: dict[str, tuple[str, ...]] = {
    "t-shirt": ("t-shirt", "t-shirt", "tee", "short-sleeved top"),
    "shirt": ("shirt", "long-sleeved shirt", "long-sleeved shirt"),
    "sweater": ("sweater", "jumper", "pullover"),
    "hoodie": ("hoodie", "hoodie", "hooded sweatshirt"),
    "jacket": ("jacket",),
    "coat": ("coat", "long coat", "overcoat"),
    "dress": ("dress", "knee-length dress"),
}

LOWER_GARMENTS: dict[str, tuple[str, ...]] = {
    "trousers": ("trousers", "trousers", "pants", "long pants"),
    "jeans": ("jeans", "jeans", "denim jeans"),
    "shorts": ("shorts", "shorts", "short pants"),
    "skirt": ("skirt", "knee-length skirt"),
}

SHOES: dict[str, tuple[str, ...]] = {
    "trainers": ("trainers", "sneakers", "sports shoes", "running shoes"),
    "boots": ("boots", "ankle boots"),
    "leather shoes": ("leather shoes", "shoes", "shoes"),
}

BAGS: dict[str, tuple[str, ...]] = {
    "backpack": ("backpack", "rucksack"),
    "handbag": ("handbag", "hand bag", "purse"),
    "shoulder bag": ("shoulder bag", "cross-body bag", "messenger bag"),
    "shopping bag": ("shopping bag", "carrier bag"),
    "suitcase": ("suitcase", "trolley case", "wheeled suitcase"),
}

HEADWEAR: dict[str, tuple[str, ...]] = {
    "cap": ("cap", "baseball cap"),
    "beanie": ("beanie", "knitted hat", "woolly hat"),
    "hat": ("hat", "brimmed hat"),
}

PEOPLE: dict[str, tuple[str, ...]] = {
    "man": ("man", "man", "man", "male pedestrian", "gentleman", "person"),
    "woman": ("woman", "woman", "woman", "female pedestrian", "lady", "person"),
}

#: Verb phrases that say from where the person is seen; `{his}` becomes his or her.
DIRECTION_PHRASES: dict[str, tuple[str, ...]] = {
    "front": ("is facing the camera", "is seen from the front", "is turned towards the viewer"),
    "back": ("is seen from behind", "has {his} back to the camera", "is facing away from the camera"),
    "left": ("is seen from the side", "is facing left", "is turned to the left side of the picture"),
    "right": ("is seen from the side", "is facing right", "is turned to the right side of the picture"),
}

#: Verb phrases of somebody who walks.
MOVEMENT_PHRASES: dict[str, tuple[str, ...]] = {
    "front": ("walks towards the camera", "is walking towards us", "is coming towards the viewer"),
    "back": ("walks away from the camera", "is walking away", "is walking away from us"),
    "left": ("walks to the left", "is walking from right to left", "heads to the left"),
    "right": ("walks to the right", "is walking from left to right", "heads to the right"),
}

PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "brick street": ("in front of a brick wall", "on a pavement beside a brick building"),
    "park": ("on a path in a park", "in front of green bushes and trees"),
    "shops": ("in front of shop windows", "on a pavement beside some shops"),
    "station": ("in front of a tiled wall", "inside a station hall"),
    "crossing": ("on a road in town", "on a street with a pedestrian crossing"),
    "plaza": ("on a paved square", "in an open square with pale buildings"),
}

OCCLUDER_NOUNS: dict[str, tuple[str, ...]] = {
    "post": ("post", "metal pole"),
    "bin": ("litter bin", "rubbish bin"),
    "car": ("car", "parked car"),
    "planter": ("plant", "potted bush"),
    "railing": ("metal railing", "railing"),
    "bench": ("wooden bench", "bench"),
}


def with_article(phrase: str) -> str:
    """A singular noun phrase with its indefinite article, e.g. `"an orange t-shirt"`."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
