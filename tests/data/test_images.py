"""Decoding and finding image files: what comes out, and one clear reason for whatever is wrong with a file."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reid_zoo.data.images import DEFAULT_MAX_PIXELS, IMAGE_EXTENSIONS, find_images, load_image, natural_sort_key
from reid_zoo.errors import DatasetError, ImageReadError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def photo(width: int = 20, height: int = 40) -> Image.Image:
    """A smooth picture whose four corners differ, so that any flip or turn shows."""
    across = np.linspace(0, 255, width)[None, :, None] * np.array([1.0, 0.0, 0.0])
    down = np.linspace(0, 255, height)[:, None, None] * np.array([0.0, 1.0, 0.0])
    return Image.fromarray((across + down).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def reason_of(path: Path | str, **options: int) -> str:
    with pytest.raises(ImageReadError) as caught:
        load_image(path, **options)
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG", "JPEG2000"])
def test_every_format_is_decoded_to_rgb(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "image.bin"  # the content counts, not the name
    path.write_bytes(encoded(photo(), image_format))
    image = load_image(path)
    assert image.mode == "RGB"
    assert image.size == (20, 40)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(photo())).mean() < 8  # GIF and JPEG lose a little


def test_cmyk_jpeg_keeps_its_colour(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.jpg"
    Image.new("RGB", (16, 16), RED).convert("CMYK").save(path)
    red, green, blue = load_image(path).getpixel((8, 8))
    assert red > 240
    assert max(green, blue) < 15


def test_palette_one_bit_and_grey(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), GREEN).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "bit.png")
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    assert load_image(tmp_path / "p.png").getpixel((0, 0)) == GREEN
    assert load_image(tmp_path / "bit.png").getpixel((0, 0)) == (255, 255, 255)
    assert load_image(tmp_path / "grey.png").getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (10, 0), (255, 255, 255)),
        ("LA", (10, 255), (10, 10, 10)),
    ],
)
def test_transparency_lies_on_white(
    tmp_path: Path, mode: str, colour: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    path = tmp_path / "alpha.png"
    Image.new(mode, (3, 3), colour).save(path)
    assert load_image(path).getpixel((1, 1)) == expected


def test_transparent_colour_of_a_palette_or_of_rgb_lies_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "index.png", transparency=0)
    palette.save(tmp_path / "bytes.png", transparency=bytes([0, 255]))
    palette.save(tmp_path / "index.gif", transparency=0)
    for name in ("index.png", "bytes.png", "index.gif"):
        image = load_image(tmp_path / name)
        assert (image.getpixel((0, 0)), image.getpixel((1, 0))) == ((255, 255, 255), BLUE), name
    Image.new("RGB", (2, 2), RED).save(tmp_path / "rgb.png", transparency=RED)
    assert load_image(tmp_path / "rgb.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    assert [load_image(tmp_path / name).getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_float_and_32_bit_images(tmp_path: Path) -> None:
    def first_channel(values: np.ndarray) -> list[int]:
        Image.fromarray(values).save(tmp_path / "deep.tif")
        return np.asarray(load_image(tmp_path / "deep.tif"))[0, :, 0].tolist()

    assert first_channel(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)) == [0, 128, 255]
    assert first_channel(np.array([[-10.0, 0.0, 10.0]], dtype=np.float32)) == [0, 128, 255]
    assert first_channel(np.array([[0, 500_000, 1_000_000]], dtype=np.int32)) == [0, 128, 255]
    assert first_channel(np.array([[-7, -7]], dtype=np.int32)) == [0, 0]
    Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)).save(tmp_path / "nan.tif")
    assert "NaN" in reason_of(tmp_path / "nan.tif")


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert load_image(tmp_path / name).getpixel((4, 4)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["o.png", "o.jpg", "o.tif", "o.webp"])
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int, name: str) -> None:
    upright = photo()
    # What a camera stores so that the viewer, who applies the orientation, sees the upright picture.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 95}}.get(Path(name).suffix, {})
    stored.save(tmp_path / name, exif=exif, **options)
    for target_size in (None, (10, 5)):
        image = load_image(tmp_path / name, target_size=target_size)
        reference = upright.resize(image.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(reference)).mean() < 6
        assert "exif" not in image.info
        assert image.getexif().get(0x0112) is None


def test_damaged_exif_does_not_matter(tmp_path: Path) -> None:
    photo().save(tmp_path / "exif.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xffgarbage")
    assert load_image(tmp_path / "exif.jpg").size == (20, 40)


def test_target_size_decodes_a_jpeg_smaller_but_never_under_twice_the_target(tmp_path: Path) -> None:
    photo(640, 960).save(tmp_path / "big.jpg")
    photo(640, 960).save(tmp_path / "big.png")
    assert load_image(tmp_path / "big.jpg").size == (640, 960)
    assert load_image(tmp_path / "big.jpg", target_size=(192, 64)).size == (320, 480)
    assert load_image(tmp_path / "big.jpg", target_size=(60, 40)).size == (80, 120)
    assert load_image(tmp_path / "big.jpg", target_size=(384, 128)).size == (640, 960)
    assert load_image(tmp_path / "big.png", target_size=(60, 40)).size == (640, 960)


def test_missing_folder_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("this is no image at all")
    (tmp_path / "file.pdf").write_bytes(b"%PDF-1.7\n" + b"x" * 100)
    (tmp_path / "phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + b"\x00" * 100)
    (tmp_path / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    assert reason_of(tmp_path / "none.jpg") == "no such file"
    assert "folder" in reason_of(tmp_path)
    assert "empty (0 bytes)" in reason_of(tmp_path / "empty.jpg")
    assert "not an image" in reason_of(tmp_path / "text.jpg")
    assert "PDF is not a supported" in reason_of(tmp_path / "file.pdf")
    assert "HEIC is not a supported" in reason_of(tmp_path / "phone.heic")
    assert "PostScript is not a supported" in reason_of(tmp_path / "drawing.eps")
    assert reason_of("bad\0name.jpg")


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a regular file" in reason_of(tmp_path / "pipe.jpg")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "secret.png")

    def refuse(*_: object, **__: object) -> None:  # as open() does; permissions alone do not stop the superuser
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    assert reason_of(tmp_path / "secret.png") == "permission denied"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM"])
def test_truncated_file(tmp_path: Path, image_format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    whole = encoded(noise, image_format)
    (tmp_path / "cut").write_bytes(whole[: len(whole) * 2 // 3])
    assert "truncated" in reason_of(tmp_path / "cut")


def test_damaged_header_and_damaged_data(tmp_path: Path) -> None:
    (tmp_path / "head.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 50)
    assert reason_of(tmp_path / "head.png") == "damaged or truncated PNG file: its header cannot be read"
    content = bytearray(encoded(photo(), "PNG"))
    start = content.index(b"IDAT") + 8
    content[start : start + 10] = b"\xff" * 10
    (tmp_path / "data.png").write_bytes(bytes(content))
    assert "damaged" in reason_of(tmp_path / "data.png")


def bitmap_header(width: int, height: int) -> bytes:
    header = b"BM" + (54).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    header += (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return header + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)


def test_huge_image_is_refused_from_its_header(tmp_path: Path) -> None:
    (tmp_path / "over.bmp").write_bytes(bitmap_header(11_000, 10_000))
    (tmp_path / "bomb.bmp").write_bytes(bitmap_header(60_000, 60_000))
    photo().save(tmp_path / "small.png")
    assert reason_of(tmp_path / "over.bmp") == f"11000 x 10000 pixels is more than the limit of {DEFAULT_MAX_PIXELS}"
    assert reason_of(tmp_path / "bomb.bmp") == f"3600000000 pixels is more than the limit of {DEFAULT_MAX_PIXELS}"
    assert "Pillow's limit" in reason_of(tmp_path / "bomb.bmp", max_pixels=10**10)
    assert reason_of(tmp_path / "small.png", max_pixels=799) == "20 x 40 pixels is more than the limit of 799"
    assert load_image(tmp_path / "small.png", max_pixels=800).size == (20, 40)


def test_pillow_warnings_do_not_escape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # 800 pixels: Pillow warns, but reads it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        assert load_image(tmp_path / "large.png").size == (20, 40)
        assert warnings.filters == filters


def test_threads_leave_the_warning_filters_as_they_were(tmp_path: Path) -> None:
    photo(200, 200).save(tmp_path / "image.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    sizes: list[tuple[int, int]] = []

    def decode() -> None:
        for _ in range(5):
            sizes.append(load_image(tmp_path / "image.png").size)
            with pytest.raises(ImageReadError):
                load_image(tmp_path / "bad.png")

    before = list(warnings.filters)
    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [(200, 200)] * 40
    assert list(warnings.filters) == before


def test_lab_image_is_converted(tmp_path: Path) -> None:
    Image.new("LAB", (4, 4), (255, 128, 128)).save(tmp_path / "lab.tif")  # L = 100, a = b = 0
    assert min(load_image(tmp_path / "lab.tif").getpixel((0, 0))) > 240


SAMPLES = [
    encoded(photo(), "JPEG"),
    encoded(photo(), "PNG"),
    encoded(photo().convert("P"), "GIF"),
    encoded(photo(), "WEBP"),
    encoded(photo(), "BMP"),
    encoded(photo(), "TIFF"),
    encoded(photo(), "PPM"),
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_damage_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, min(len(content) - 1, 300)))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    with contextlib.suppress(ImageReadError):  # anything else fails the test
        assert load_image(path, max_pixels=1_000_000).mode == "RGB"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_find_images_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/10.jpg", "b/2.PNG", "a10/x.webp", "a9/x.tiff", "Z.jpeg", "note.txt", "b/img.jpg.bak")
    touch(tmp_path, ".hidden/1.jpg", "b/._2.jpg", "__MACOSX/1.jpg")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a9/x.tiff", "a10/x.webp", "b/2.PNG", "b/10.jpg", "Z.jpeg"]
    assert find_images(str(tmp_path)) == find_images(tmp_path)
    assert [path.name for path in find_images(tmp_path, extensions=frozenset({".bak"}))] == ["img.jpg.bak"]


def test_find_images_follows_links_once(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.jpg", "people/2.jpg")
    (tmp_path / "people" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "people" / "loop").symlink_to(tmp_path / "people")
    found = [path.relative_to(tmp_path / "people").as_posix() for path in find_images(tmp_path / "people")]
    assert found == ["2.jpg", "linked/1.jpg"]


def test_find_images_says_why_there_are_none(tmp_path: Path) -> None:
    touch(tmp_path, "text/readme.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no such folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="is a file"):
        find_images(tmp_path / "text" / "readme.txt")
    with pytest.raises(DatasetError, match="it is empty"):
        find_images(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"only 1 other file\(s\).*\.jpg"):
        find_images(tmp_path / "text")


def test_find_images_reports_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "1.jpg")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match="cannot list this folder"):
        find_images(tmp_path)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="/\0"), min_size=1), min_size=2, max_size=6))
def test_natural_sort_key_orders_all_paths(names: list[str]) -> None:
    paths = [Path(name) for name in {*names, *(f"{name}/{name}" for name in names)}]
    ascending = sorted(paths, key=natural_sort_key)
    paths.reverse()
    assert sorted(paths, key=natural_sort_key) == ascending


def test_the_usual_endings_are_known() -> None:
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"} <= IMAGE_EXTENSIONS
