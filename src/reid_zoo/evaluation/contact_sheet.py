"""Pictures of ranked answers: the query on top, tiles in rank order, green and red frames where identities are known."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from ..data.images import load_image
from ..data.records import PersonDataset
from ..errors import ImageReadError, QueryError

if TYPE_CHECKING:
    from ..encoding import PersonEncoder

__all__ = [
    "SheetRow",
    "SheetTile",
    "UndrawableTextWarning",
    "check_sheet_path",
    "draw_contact_sheet",
    "draw_dataset_answers",
]

_TILE_WIDTH, _TILE_HEIGHT = 96, 240
_FRAME, _GAP, _MARGIN = 5, 10, 20
_COLUMNS = 10
_TITLE_LINES = 4
_BACKGROUND, _TEXT, _MUTED = (250, 250, 248), (30, 30, 34), (120, 120, 126)
_RIGHT, _WRONG, _NEUTRAL = (38, 150, 72), (200, 50, 45), (190, 190, 194)


# Pillow's own font has little more than ASCII; these are looked for where the system keeps its fonts.
_OTHER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSans-Regular.ttf",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "arial.ttf",
)


class UndrawableTextWarning(UserWarning):
    """No font at hand has all characters of a title; the missing ones are drawn as boxes."""


@dataclass(frozen=True, slots=True)
class SheetTile:
    """One image of a sheet.

    Attributes:
        image: File to show.
        label: Text below it.
        is_match: Green frame if true, red if false, grey if unknown.
    """

    image: str
    label: str = ""
    is_match: bool | None = None


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A title with tiles below it, ten to a line."""

    title: str
    tiles: Sequence[SheetTile]


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


@cache
def _other_fonts(size: int) -> tuple[Any, ...]:
    fonts = []
    for name in _OTHER_FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(fonts)


def _can_draw(font: Any, text: str) -> bool:
    """Whether the font has a glyph of its own for every character: a missing one looks like that of a non-character."""
    missing = font.getmask("\uffff")
    for character in set(text) - {" "}:
        mask = font.getmask(character)
        if mask.size == missing.size and bytes(mask) == bytes(missing):
            return False
    return True


def _font_for(text: str, size: int) -> Any:
    for font in (_font(size), *_other_fonts(size)):
        if _can_draw(font, text):
            return font
    warnings.warn(
        "no font of this machine has all characters of the text on the sheet; the missing ones are drawn as boxes.",
        UndrawableTextWarning,
        stacklevel=3,
    )
    return _font(size)


def _fitting(text: str, font: Any, width: int) -> int:
    """How many characters of a text fit on one line, at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return low


def _wrap(text: str, font: Any, width: int) -> list[str]:
    """Lines of at most `width` pixels; words longer than a line, and scripts without spaces, break anywhere."""
    lines: list[str] = [""]
    for whole_word in text.split():
        word = whole_word
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        while font.getlength(word) > width and len(lines) <= _TITLE_LINES:
            count = _fitting(word, font, width)
            lines[-1], word = word[:count], word[count:]
            lines.append("")
        lines[-1] = word
        if len(lines) > _TITLE_LINES:
            break
    if len(lines) > _TITLE_LINES:
        last = lines[_TITLE_LINES - 1]
        while last and font.getlength(f"{last} ...") > width:
            last = last[:-1]
        lines = [*lines[: _TITLE_LINES - 1], f"{last.rstrip()} ..."]
    return lines


def _tile(tile: SheetTile) -> Image.Image:
    """The framed image; its aspect ratio is kept."""
    color = _NEUTRAL if tile.is_match is None else _RIGHT if tile.is_match else _WRONG
    canvas = Image.new("RGB", (_TILE_WIDTH, _TILE_HEIGHT), color)
    inner = (_TILE_WIDTH - 2 * _FRAME, _TILE_HEIGHT - 2 * _FRAME)
    canvas.paste((235, 235, 233), (_FRAME, _FRAME, _FRAME + inner[0], _FRAME + inner[1]))
    try:
        picture = load_image(tile.image)
    except ImageReadError:
        ImageDraw.Draw(canvas).text((_FRAME + 8, _TILE_HEIGHT // 2), "unreadable", fill=_MUTED, font=_font(12))
        return canvas
    scale = min(inner[0] / picture.width, inner[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(picture, ((_TILE_WIDTH - size[0]) // 2, (_TILE_HEIGHT - size[1]) // 2))
    return canvas


def check_sheet_path(path: str | Path) -> Path:
    """Refuse a name that no picture can be written under, before the work that the picture is to show.

    Args:
        path: File to write later.

    Returns:
        The path.

    Raises:
        QueryError: If its ending names no picture format that can be written.
    """
    target = Path(path)
    if Image.registered_extensions().get(target.suffix.lower()) not in Image.SAVE:
        raise QueryError(f"{target}: name the sheet as a picture, for example {target.stem or 'sheet'}.png.")
    return target


def draw_contact_sheet(rows: Sequence[SheetRow], path: str | Path) -> Path:
    """Write a sheet as a PNG (or whatever the file's ending says).

    Args:
        rows: Titles with their tiles.
        path: File to write; its folder is made.

    Returns:
        The path.

    Raises:
        QueryError: If there is nothing to draw, or the ending names no picture format.
    """
    target = check_sheet_path(path)
    if not any(row.tiles for row in rows):
        raise QueryError(f"there is no image to put on the sheet {target}.")
    title_fonts, label_font = [_font_for("".join(row.title.split()), 17) for row in rows], _font(14)
    widest = max(min(len(row.tiles), _COLUMNS) for row in rows)
    width = 2 * _MARGIN + max(5, widest) * (_TILE_WIDTH + _GAP) - _GAP
    titles = [_wrap(row.title, font, width - 2 * _MARGIN) for row, font in zip(rows, title_fonts, strict=True)]
    line_height, label_height = 24, 24
    heights = [
        len(title) * line_height + -(-len(row.tiles) // _COLUMNS) * (_TILE_HEIGHT + label_height + _GAP) + _GAP
        for row, title in zip(rows, titles, strict=True)
    ]
    sheet = Image.new("RGB", (width, sum(heights) + 2 * _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, title, title_font, height in zip(rows, titles, title_fonts, heights, strict=True):
        for index, line in enumerate(title):
            draw.text((_MARGIN, top + index * line_height), line, fill=_TEXT, font=title_font)
        for index, tile in enumerate(row.tiles):
            left = _MARGIN + index % _COLUMNS * (_TILE_WIDTH + _GAP)
            y = top + len(title) * line_height + index // _COLUMNS * (_TILE_HEIGHT + label_height + _GAP) + 4
            sheet.paste(_tile(tile), (left, y))
            label_width = draw.textlength(tile.label, font=label_font)
            draw.text(
                (left + (_TILE_WIDTH - label_width) / 2, y + _TILE_HEIGHT + 3), tile.label, fill=_MUTED, font=label_font
            )
        top += height
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
    return target


def draw_dataset_answers(
    encoder: PersonEncoder, dataset: PersonDataset, path: str | Path, *, num_queries: int = 6, top_k: int = 10
) -> Path:
    """Answers to captions of different people, spread over the data set, with green and red frames.

    Args:
        encoder: The model.
        dataset: Records with captions and identities.
        path: Picture to write.
        num_queries: Captions to show.
        top_k: Images per caption.
    """
    import numpy as np

    from .protocols import score_captions

    first = {record.person_id: record for record in reversed(dataset.records) if record.captions}
    people = list(first.values())[::-1]
    chosen = [people[index] for index in np.linspace(0, len(people) - 1, min(num_queries, len(people))).astype(int)]
    scores = score_captions(encoder, [record.captions[0] for record in chosen], dataset.records)
    rows = []
    for record, row in zip(chosen, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:top_k]
        tiles = [
            SheetTile(
                str(dataset[int(index)].image_path),
                f"{rank}   {row[index]:.3f}",
                dataset[int(index)].person_id == record.person_id,
            )
            for rank, index in enumerate(best, start=1)
        ]
        rows.append(SheetRow(record.captions[0], tiles))
    return draw_contact_sheet(rows, path)
