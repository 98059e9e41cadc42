"""Sheets: what is drawn where, which frame means what, and text that is long, foreign or impossible to draw."""

from __future__ import annotations

import warnings

import pytest
from PIL import Image, ImageFont

from reid_zoo.encoding import PersonEncoder
from reid_zoo.errors import QueryError
from reid_zoo.evaluation import contact_sheet
from reid_zoo.evaluation.contact_sheet import (
    SheetRow,
    SheetTile,
    UndrawableTextWarning,
    check_sheet_path,
    draw_contact_sheet,
    draw_dataset_answers,
)

GREEN, RED, GREY = contact_sheet._RIGHT, contact_sheet._WRONG, contact_sheet._NEUTRAL


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (40, 100), (10, 20, 250)).save(path)
    return str(path)


def pixels(path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def frames(picture: Image.Image) -> list[tuple[int, int, int]]:
    """Colours of the frames' upper edges, in reading order: runs of one tile's width in one frame colour."""
    found, width = [], contact_sheet._TILE_WIDTH
    for y in range(picture.height):
        x = 0
        while x <= picture.width - width:
            color = picture.getpixel((x, y))
            above = picture.getpixel((x, y - 1)) if y else None
            run = {picture.getpixel((column, y)) for column in range(x, x + width)}
            if color in (GREEN, RED, GREY) and run == {color} and above not in (GREEN, RED, GREY):
                found.append(color)
                x += width
            else:
                x += 1
    return found


def test_frames_tell_right_wrong_and_unknown_in_rank_order(photo, tmp_path):
    matches = [True, False, None, True]
    tiles = [SheetTile(photo, f"{rank}   0.5", is_match) for rank, is_match in enumerate(matches, start=1)]
    path = draw_contact_sheet([SheetRow("a man", tiles)], tmp_path / "new" / "sheet.png")
    assert frames(pixels(path)) == [GREEN, RED, GREY, GREEN]


def test_more_than_ten_tiles_go_on_below_and_rows_follow_each_other(photo, tmp_path):
    ten = pixels(draw_contact_sheet([SheetRow("a man", [SheetTile(photo)] * 10)], tmp_path / "10.png"))
    twelve = [SheetRow("a man", [SheetTile(photo, is_match=True)] * 12), SheetRow("a woman", [SheetTile(photo)] * 2)]
    picture = pixels(draw_contact_sheet(twelve, tmp_path / "12.png"))
    assert picture.width == ten.width
    assert picture.height > 2 * ten.height
    assert frames(picture) == [GREEN] * 12 + [GREY] * 2


@pytest.mark.parametrize("size", [(300, 30), (30, 300), (1, 1), (1, 3000)])
def test_the_whole_image_is_shown_in_its_own_proportions(size, tmp_path):
    Image.new("RGB", size, (10, 20, 250)).save(tmp_path / "photo.png")
    sheet = pixels(draw_contact_sheet([SheetRow("x", [SheetTile(str(tmp_path / "photo.png"))])], tmp_path / "s.png"))
    blue = sheet.point(lambda value: 255 if value > 240 else 0).getchannel("B")
    red = sheet.getchannel("R").point(lambda value: 255 if value < 60 else 0)
    left, top, right, bottom = Image.composite(blue, Image.new("L", sheet.size), red).getbbox()
    inner = contact_sheet._TILE_WIDTH - 2 * contact_sheet._FRAME, contact_sheet._TILE_HEIGHT - 2 * contact_sheet._FRAME
    scale = min(inner[0] / size[0], inner[1] / size[1])
    # one pixel: sizes are rounded to whole pixels, and nothing gets thinner than that
    assert right - left == pytest.approx(max(1, size[0] * scale), abs=1)
    assert bottom - top == pytest.approx(max(1, size[1] * scale), abs=1)


def test_an_image_that_went_away_or_broke_is_a_tile_that_says_so(photo, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG oh no")
    tiles = [SheetTile(str(tmp_path / "gone.png")), SheetTile(str(tmp_path / "broken.png")), SheetTile(photo)]
    assert frames(pixels(draw_contact_sheet([SheetRow("x", tiles)], tmp_path / "s.png"))) == [GREY] * 3


@pytest.mark.parametrize(
    "text",
    ["red coat " * 1000, "x" * 5000, "a " + "y" * 300 + " b " * 300, "word " * 9 + "z" * 400, "", "a man"],
    ids=["many words", "one long word", "mixed", "long word last", "nothing", "short"],
)
def test_titles_stay_inside_the_sheet_in_at_most_four_lines(text):
    font, width = contact_sheet._font(17), 500
    lines = contact_sheet._wrap(text, font, width)
    assert 1 <= len(lines) <= 4
    assert all(font.getlength(line) <= width for line in lines)
    shown = "".join("".join(lines).split())
    whole = "".join(text.split())
    if shown != whole:  # what is left out is said, and nothing else is lost
        assert lines[-1].endswith(" ...")
        assert len(lines) == 4
        assert whole.startswith(shown.removesuffix("..."))


def test_a_font_that_has_the_characters_is_looked_for(monkeypatch):
    default = contact_sheet._font(17)
    assert contact_sheet._can_draw(default, "a man in a red coat")
    assert not contact_sheet._can_draw(default, "穿红色外套的女人")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert contact_sheet._font_for("a man", 17) is default

    class Full:
        """A font that has a different picture for every character."""

        @staticmethod
        def getmask(text: str):
            return ImageFont.load_default(12).getmask("a" if text == "\uffff" else "b")

    full = Full()
    monkeypatch.setattr(contact_sheet, "_other_fonts", lambda size: (full,))
    assert contact_sheet._font_for("穿红色外套的女人", 17) is full


def test_text_that_no_font_has_is_drawn_as_boxes_and_said(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "_other_fonts", lambda size: ())
    with pytest.warns(UndrawableTextWarning, match="boxes"):
        draw_contact_sheet([SheetRow("穿红色外套的女人" * 40, [SheetTile(photo)])], tmp_path / "s.png")
    assert (tmp_path / "s.png").is_file()


def test_fonts_that_are_not_installed_are_passed_over(monkeypatch):
    monkeypatch.setattr(contact_sheet, "_OTHER_FONTS", ("no such font.ttf",))
    contact_sheet._other_fonts.cache_clear()
    assert contact_sheet._other_fonts(17) == ()
    contact_sheet._other_fonts.cache_clear()


@pytest.mark.parametrize("name", ["sheet.txt", "sheet", "sheet.psd", ".png"])
def test_a_name_that_is_no_picture_is_refused(name, photo, tmp_path):
    with pytest.raises(QueryError, match="name the sheet as a picture"):
        check_sheet_path(tmp_path / name)
    with pytest.raises(QueryError, match="name the sheet as a picture"):
        draw_contact_sheet([SheetRow("x", [SheetTile(photo)])], tmp_path / name)


def test_other_formats_and_nothing_to_draw(photo, tmp_path):
    for name in ("sheet.JPG", "sheet.webp"):
        assert pixels(draw_contact_sheet([SheetRow("x", [SheetTile(photo)])], tmp_path / name)).width > 100
    with pytest.raises(QueryError, match="no image"):
        draw_contact_sheet([SheetRow("x", [])], tmp_path / "s.png")


def test_answers_of_a_data_set_are_framed_by_identity(tmp_path):
    from reid_zoo.data import load_dataset
    from tiny_models import draw_people, tiny_model, tiny_processor

    draw_people(tmp_path, identities=6, images=2)
    records = load_dataset("cuhk-pedes", tmp_path, "test")
    encoder = PersonEncoder(tiny_model(), tiny_processor(), name="tiny")
    path = draw_dataset_answers(encoder, records, tmp_path / "answers.png", num_queries=5, top_k=10)
    # two people with two images each: both are asked for, and all four images answer
    found = frames(pixels(path))
    assert len(found) == 8
    assert found[:4].count(GREEN) == found[4:].count(GREEN) == 2
    assert GREY not in found
