"""The gallery as a user sees it: create, open, search, filter, delete, reopen, and every mistake on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_zoo.data.records import PersonRecord
from reid_zoo.errors import DatasetError, FilterError, GalleryError, ModelMismatchError, QueryError
from reid_zoo.gallery import Gallery, GalleryHit, ModelIdentity, image_name
from reid_zoo.gallery.engines.base import ColumnType
from reid_zoo.gallery.filters import Eq

MakeEncoder = Callable[..., Any]


@pytest.fixture
def gallery(tmp_path: Path, encoder: Any, photos: list[Path]) -> Gallery:
    """Twelve photos with a camera and a time each."""
    gallery = Gallery.create(tmp_path / "people.gallery", encoder)
    gallery.add(
        photos,
        metadata={
            "camera_id": [number % 3 for number in range(12)],
            "time": [f"2024-05-{n + 1:02}" for n in range(12)],
        },
        progress=False,
    )
    return gallery


# ------------------------------------------------------------------------------------------------- create and open


def test_a_gallery_is_one_directory_that_can_be_reopened(tmp_path: Path, encoder: Any, photos: list[Path]) -> None:
    path = tmp_path / "new" / "people.gallery"
    with Gallery.create(path, encoder) as gallery:
        gallery.add(photos, progress=False)
        before = gallery.search("a woman in a red coat")
    assert json.loads((path / "gallery.json").read_text())["format_version"] == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["people.gallery"], "nothing is left beside it"
    with Gallery.open(str(path), encoder) as gallery:
        assert gallery.search("a woman in a red coat") == before
        assert len(gallery) == 12
        info = gallery.info()
    assert info.rows == 12
    assert info.path == path
    assert info.identity == encoder.identity
    assert info.columns == {"image": "str"}
    assert info.bytes > 12 * 32 * 2
    assert (info.engine, info.search, info.format_version) == ("lance", "exact", 1)
    assert info.version
    assert "people.gallery" in repr(gallery)


def test_a_moved_gallery_still_works(gallery: Gallery, tmp_path: Path, encoder: Any) -> None:
    before = gallery.search("a man")
    gallery.close()
    (tmp_path / "people.gallery").rename(tmp_path / "elsewhere")
    with Gallery.open(tmp_path / "elsewhere", encoder) as moved:
        assert moved.search("a man") == before
        assert moved.add(Image.new("RGB", (4, 4), "red"), progress=False).added == 1


def test_an_empty_directory_can_become_a_gallery(tmp_path: Path, encoder: Any) -> None:
    (tmp_path / "empty").mkdir()
    with Gallery.create(tmp_path / "empty", encoder) as gallery:
        assert len(gallery) == 0
        assert gallery.search("anybody") == []


def test_create_does_not_overwrite(gallery: Gallery, tmp_path: Path, encoder: Any, make_encoder: MakeEncoder) -> None:
    path = gallery.path
    with pytest.raises(GalleryError, match="there is a gallery already"):
        Gallery.create(path, encoder)
    with Gallery.create(path, encoder, exist_ok=True) as same:
        assert len(same) == 12
    with pytest.raises(ModelMismatchError, match=r"fake/model.*other/model"):
        Gallery.create(path, make_encoder(name="other/model"), exist_ok=True)
    with pytest.raises(ModelMismatchError):
        Gallery.create(path, identity=make_encoder(size=8).identity, exist_ok=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    with pytest.raises(GalleryError, match="not empty and not a gallery"):
        Gallery.create(tmp_path / "notes", encoder, exist_ok=True)
    with pytest.raises(GalleryError, match="a file and not a gallery"):
        Gallery.create(tmp_path / "notes" / "diary.txt", encoder)
    with pytest.raises(GalleryError, match="cannot be made"):
        Gallery.create(tmp_path / "notes" / "diary.txt" / "below", encoder)
    assert (tmp_path / "notes" / "diary.txt").read_text() == "dear diary"


def test_a_gallery_belongs_to_a_model(tmp_path: Path, encoder: Any, make_encoder: MakeEncoder) -> None:
    with pytest.raises(GalleryError, match="encoder= or identity="):
        Gallery.create(tmp_path / "g")
    with pytest.raises(ModelMismatchError, match=r"other.*fake/model"):
        Gallery.create(tmp_path / "g", encoder, identity=make_encoder(name="other").identity)
    Gallery.create(tmp_path / "g", identity=encoder.identity).close()
    with Gallery.open(tmp_path / "g", encoder) as gallery:
        assert gallery.identity == encoder.identity


@pytest.mark.parametrize("other", [{"name": "other/model"}, {"size": 64}])
def test_a_gallery_of_another_model_is_refused_and_both_are_named(
    gallery: Gallery, make_encoder: MakeEncoder, other: dict[str, Any]
) -> None:
    stranger = make_encoder(**other)
    with pytest.raises(ModelMismatchError) as caught:
        Gallery.open(gallery.path, stranger)
    for identity in (gallery.identity, stranger.identity):
        assert f"'{identity.name}'" in str(caught.value)
        assert f"embedding size {identity.embedding_size}" in str(caught.value)
        assert identity.fingerprint[:12] in str(caught.value)
    with Gallery.open(gallery.path, encoder_loader=lambda identity: stranger) as lazy:
        with pytest.raises(ModelMismatchError):
            lazy.search("a man")
        with pytest.raises(ModelMismatchError):
            lazy.add(Image.new("RGB", (2, 2)), progress=False)


def test_the_same_model_under_another_name_is_accepted(gallery: Gallery, make_encoder: MakeEncoder) -> None:
    moved = make_encoder()
    moved.identity = ModelIdentity("/a/local/copy", None, "fake", 32, moved.identity.fingerprint)
    with Gallery.open(gallery.path, moved) as again:
        assert len(again.search("a man")) == 10


def test_without_a_model_only_vectors_can_be_searched(gallery: Gallery, encoder: Any, photos: list[Path]) -> None:
    query = encoder.encode_texts(["a man"])[0]
    expected = gallery.search("a man")
    with Gallery.open(gallery.path) as bare:
        assert bare.search(query) == expected
        for use in (
            lambda: bare.search("a man"),
            lambda: bare.search(photos[0]),
            lambda: bare.add(photos, progress=False),
        ):
            with pytest.raises(GalleryError, match=r"needs the model 'fake/model'.*encoder_loader="):
                use()


def test_the_model_is_loaded_when_it_is_needed(gallery: Gallery, encoder: Any) -> None:
    asked: list[ModelIdentity] = []

    def load(identity: ModelIdentity) -> Any:
        asked.append(identity)
        return encoder

    with Gallery.open(gallery.path, encoder_loader=load) as lazy:
        lazy.search(np.ones(32))
        assert asked == []
        lazy.search("a man")
        lazy.search("a woman")
    assert asked == [gallery.identity]


def test_what_is_not_a_gallery_is_refused(tmp_path: Path, gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="no such gallery"):
        Gallery.open(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GalleryError, match="is not a gallery"):
        Gallery.open(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(GalleryError, match="is not a gallery"):
        Gallery.open(tmp_path / "file")
    gallery.close()
    description = gallery.path / "gallery.json"
    good = json.loads(description.read_text())
    for bad, message in (
        ("{", "is damaged"),
        ("[]", "is damaged"),
        (json.dumps({**good, "format": "other"}), "is damaged"),
        (json.dumps({**good, "format_version": 99}), r"format version 99.*upgrade"),
        (json.dumps({**good, "engine": "milvus"}), "needs the engine 'milvus'"),
    ):
        description.write_text(bad)
        with pytest.raises(GalleryError, match=message):
            Gallery.open(gallery.path)
    description.write_text(json.dumps(good))
    import shutil

    shutil.rmtree(gallery.path / "table.lance")
    with pytest.raises(GalleryError, match=r"table\.lance' is missing"):
        Gallery.open(gallery.path)


def test_a_closed_gallery_says_so(gallery: Gallery) -> None:
    gallery.close()
    gallery.close()
    with pytest.raises(GalleryError, match="closed"):
        gallery.search("a man")


# --------------------------------------------------------------------------------------------------------- search


def test_an_image_finds_itself(gallery: Gallery, photos: list[Path]) -> None:
    for query in (photos[7], str(photos[7]), Image.open(photos[7])):
        hits = gallery.search(query, top_k=3)
        assert hits[0].image == str(photos[7])
        assert hits[0].score == pytest.approx(1, abs=1e-3)  # float16 storage: 2^-11 relative
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert hits[0].score >= hits[1].score >= hits[2].score


def test_a_hit_reads_like_a_dictionary(gallery: Gallery, photos: list[Path]) -> None:
    hit = gallery.search(photos[4], top_k=1)[0]
    assert isinstance(hit, GalleryHit)
    assert dict(hit) == {
        "rank": 1,
        "score": hit.score,
        "image": str(photos[4]),
        "id": 4,
        "metadata": {"camera_id": 1, "time": "2024-05-05"},
        "exact": True,
    }
    assert hit["score"] == hit.score
    with pytest.raises(KeyError):
        hit["colour"]


def test_scores_are_the_inner_products(gallery: Gallery, encoder: Any, photos: list[Path]) -> None:
    embeddings = encoder.encode_images([Image.open(path) for path in photos])
    query = encoder.encode_texts(["a man"])[0]
    hits = gallery.search("a man", top_k=12)
    assert [hit.id for hit in hits] == np.argsort(-(embeddings @ query)).tolist()
    # 2e-3: each of 32 stored values carries a relative rounding error of up to 2^-11
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(embeddings @ query)[::-1], atol=2e-3)


def test_several_queries_at_once(gallery: Gallery, encoder: Any, photos: list[Path]) -> None:
    vector = encoder.encode_texts(["a girl"])[0]
    mixed = gallery.search(["a man", photos[3], Image.open(photos[5]), vector], top_k=2)
    alone = [gallery.search(query, top_k=2) for query in ("a man", photos[3], photos[5], "a girl")]
    assert mixed == alone
    assert gallery.search(np.stack([vector, vector]), top_k=2) == [alone[3], alone[3]]
    assert gallery.search(vector.astype(np.float64), top_k=2) == alone[3]
    assert gallery.search([]) == []
    assert gallery.search(np.empty((0, 32), np.float32)) == []


def test_top_k_larger_than_the_gallery_returns_all(gallery: Gallery) -> None:
    assert len(gallery.search("a man", top_k=10**9)) == 12
    assert len(gallery.search("a man", top_k=np.int64(3))) == 3


@pytest.mark.parametrize("top_k", [0, -1, 2.5, True, "3", None])
def test_a_wrong_top_k_is_refused(gallery: Gallery, top_k: Any) -> None:
    with pytest.raises(QueryError, match="top_k"):
        gallery.search("a man", top_k=top_k)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        (["a man", ""], "empty"),
        (["a man", "?!"], "nothing is known of"),
        (None, "cannot search for NoneType"),
        (3, "cannot search for int"),
        (b"bytes", "cannot search for bytes"),
        (["a man", 3], "cannot search for int"),
        (np.ones(31), r"shape \(31,\).*\(32,\)"),
        (np.ones((2, 2, 32)), "shape"),
        (np.float32(1), "cannot search for float32"),
        (np.array(["a man"]), "type <U5"),
        (np.full(32, np.nan), "NaN"),
        ([np.ones(31)], "shape"),
        ([np.ones((2, 32))], "in a list"),
        (Path("missing.jpg"), "no such file"),
        ("missing.jpg", "no such file"),
    ],
)
def test_a_wrong_query_is_refused(gallery: Gallery, query: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        gallery.search(query)
    assert "\n" not in str(caught.value)


def test_a_damaged_query_image_is_refused(gallery: Gallery, photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photos[0].read_bytes()[:60])
    with pytest.raises(QueryError, match="cannot be read"):
        gallery.search(broken)
    with pytest.raises(QueryError, match="cannot be read"):
        gallery.search(Image.open(broken))


def test_queries_in_any_script_are_sentences(gallery: Gallery) -> None:
    for query in ("一个穿红色外套的女人", "женщина в красном", "a man. jpg", "word " * 10_000):
        assert len(gallery.search(query, top_k=2)) == 2


def test_equal_images_come_in_the_order_they_were_added(tmp_path: Path, encoder: Any) -> None:
    paths = []
    for number in (3, 1, 2):
        paths.append(tmp_path / f"copy{number}.png")
        Image.new("RGB", (8, 8), "green").save(paths[-1])
    with Gallery.create(tmp_path / "g", encoder) as gallery:
        gallery.add(paths, progress=False)
        assert [hit.image for hit in gallery.search("a man")] == [str(path) for path in paths]


def test_a_model_that_breaks_its_promise_is_named(gallery: Gallery, encoder: Any) -> None:
    for bad, message in ((np.ones((1, 5)), r"shape \(1, 5\); wanted \(1, 32\)"), (np.full((1, 32), np.nan), "NaN")):
        encoder.encode_texts = lambda texts, bad=bad: bad
        with pytest.raises(GalleryError, match=f"fake/model.*{message}"):
            gallery.search("a man")


# -------------------------------------------------------------------------------------------------------- filters


def test_a_filter_narrows_the_search(gallery: Gallery) -> None:
    everything = gallery.search("a man", top_k=12)
    for where in ("camera_id = 1 and time >= '2024-05-04'", Eq("camera_id", 2)):
        found = gallery.search("a man", top_k=12, where=where)
        if isinstance(where, str):
            wanted = [h for h in everything if h.metadata["camera_id"] == 1 and h.metadata["time"] >= "2024-05-04"]
        else:
            wanted = [h for h in everything if h.metadata["camera_id"] == 2]
        assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in wanted]
        assert [hit.rank for hit in found] == list(range(1, len(wanted) + 1))
    assert gallery.search("a man", where=f"image = '{everything[0].image}'")[0].id == everything[0].id
    assert gallery.search("a man", where="id IN (3, 4)", top_k=1)[0].id in (3, 4)
    assert gallery.search("a man", where="camera_id = 77") == []


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("camra_id = 3", "unknown field 'camra_id'; this gallery has: camera_id, id, image, time"),
        ("_image_version = 'x'", "unknown field '_image_version'"),
        ("_rowid = 3", "unknown field '_rowid'"),
        ("camera_id = ", "expected a number"),
        ("", "empty"),
        ("camera_id = 'x'", "holds a whole number"),
        (3, "where is int"),
    ],
)
def test_a_wrong_filter_is_refused(gallery: Gallery, where: Any, message: str) -> None:
    for use in (lambda: gallery.search("a man", where=where), lambda: gallery.delete(where=where)):
        with pytest.raises(FilterError, match=message):
            use()
    assert len(gallery) == 12


# --------------------------------------------------------------------------------------------------------- delete


def test_delete_by_id_and_by_filter(gallery: Gallery, encoder: Any, photos: list[Path]) -> None:
    assert gallery.delete(ids=[0, 3, 999]) == 2
    assert gallery.delete(7) == 1
    assert gallery.delete(np.array([8])) == 1
    assert gallery.delete(where="camera_id = 0") == 2
    assert gallery.delete([]) == 0
    assert len(gallery) == 6
    assert {hit.id for hit in gallery.search("a man", top_k=99)} == {1, 2, 4, 5, 10, 11}
    assert photos[0].exists(), "the files themselves are not touched"
    gallery.close()
    with Gallery.open(gallery.path, encoder) as again:
        assert len(again) == 6
        assert again.add(photos, progress=False).added == 6
        assert {hit.id for hit in again.search("a man", top_k=99)} >= {12, 13}, "ids are never used again"


@pytest.mark.parametrize("arguments", [{}, {"ids": [1], "where": "id = 1"}, {"ids": ["x"]}, {"ids": [1.5]}])
def test_a_wrong_delete_deletes_nothing(gallery: Gallery, arguments: dict[str, Any]) -> None:
    with pytest.raises(GalleryError, match="delete"):
        gallery.delete(**arguments)
    assert len(gallery) == 12


def test_compact_changes_no_answer(gallery: Gallery) -> None:
    gallery.delete(where="camera_id = 1")
    before = gallery.search("a man", top_k=99)
    gallery.compact()
    assert gallery.search("a man", top_k=99) == before


def test_a_gallery_over_its_budget_says_that_answers_are_approximate(
    tmp_path: Path, encoder: Any, write_photos: Callable[..., list[Path]]
) -> None:
    photos = write_photos(tmp_path / "many", 600, size=(4, 4))
    with Gallery.create(tmp_path / "g", encoder, matrix_bytes=1000) as gallery:
        gallery.add(photos, progress=False)
        assert all(hit.exact for hit in gallery.search("a man")), "there is no compressed index yet"
        gallery.compact()
        assert gallery.info().search == "IVF_RQ"
        approximate = gallery.search("a man", top_k=5)
        assert not any(hit.exact for hit in approximate)
        assert len(approximate) == 5
    with Gallery.open(tmp_path / "g", encoder) as gallery:
        assert all(hit.exact for hit in gallery.search("a man"))


# ------------------------------------------------------------------------------------------------------- metadata


def test_records_bring_their_columns(tmp_path: Path, encoder: Any, photos: list[Path]) -> None:
    records = [
        PersonRecord(path, number, ("a man", "he walks"), 100 + number, number % 2, {"split": "test", "height": 1.5})
        for number, path in enumerate(photos)
    ] + [PersonRecord(photos[0].with_name("missing.png"), 99)]
    with Gallery.create(tmp_path / "g", encoder) as gallery:
        report = gallery.add(records, metadata={"site": "north"}, progress=False)
        assert report.added == 12
        assert [failed.reason for failed in report.failed] == ["no such file"]
        assert gallery.columns == {
            "image": ColumnType.STRING,
            "split": ColumnType.STRING,
            "height": ColumnType.FLOAT,
            "captions": ColumnType.STRINGS,
            "person_id": ColumnType.INT,
            "camera_id": ColumnType.INT,
            "site": ColumnType.STRING,
        }
        hit = gallery.search("x", where="person_id = 103 AND site = 'north' AND height > 1")[0]
        assert hit.metadata == {
            "captions": ("a man", "he walks"),
            "person_id": 103,
            "camera_id": 1,
            "split": "test",
            "height": 1.5,
            "site": "north",
        }


def test_columns_grow_with_later_images(
    gallery: Gallery, write_photos: Callable[..., list[Path]], tmp_path: Path
) -> None:
    more = write_photos(tmp_path / "more", 2, seed=5)
    gallery.add(more, metadata=[{"floor": 1, "indoor": np.bool_(True)}, {"floor": np.int64(2)}], progress=False)
    assert gallery.columns["floor"] is ColumnType.INT
    assert gallery.columns["indoor"] is ColumnType.BOOL
    assert [hit.metadata for hit in gallery.search("x", where="floor = 1")] == [{"floor": 1, "indoor": True}]
    assert len(gallery.search("x", 99, where="floor IS NULL")) == 12
    assert len(gallery.search("x", 99, where="camera_id IS NULL")) == 2


def test_whole_numbers_and_fractions_make_a_float_column(tmp_path: Path, encoder: Any, photos: list[Path]) -> None:
    with Gallery.create(tmp_path / "g", encoder) as gallery:
        values = [1, 2.5, None, float("nan"), *range(8)]
        gallery.add(photos, metadata={"height": values, "empty": [None] * 12}, progress=False)
        assert gallery.columns == {"image": ColumnType.STRING, "height": ColumnType.FLOAT}
        assert gallery.search("x", where="height = 2.5")[0].id == 1
        assert len(gallery.search("x", 99, where="height IS NULL")) == 2
        gallery.add(Image.new("RGB", (3, 3)), metadata={"height": 7}, progress=False)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"camera_id": "three"}, "column 'camera_id' holds int values, but .* has 'three'"),
        ({"camera_id": 1.5}, "column 'camera_id' holds int values"),
        ({"time": 3}, "column 'time' holds str values"),
        ({"new": [1, "x"]}, "column 'new' holds int values, but .* has 'x'"),
        ({"new": [True, 1]}, "column 'new' holds bool values"),
        ({"new": {"a": 1}}, "column 'new'"),
        ({"new": 2**63}, "column 'new'"),
        ({"new": [1]}, "column 'new' has 1 values for 2 images"),
        ([{"new": 1}], "1 entries for 2 images"),
        ([{"new": 1}, 3], "entry 1 is 3"),
        ({"a.b": 1}, "cannot be the name"),
        ({"id": 1}, "cannot be the name"),
        ({"image": "x"}, "cannot be the name"),
        ({"_hidden": 1}, "cannot be the name"),
        ({3: 1}, "cannot be the name"),
    ],
)
def test_wrong_metadata_is_refused_before_anything_is_encoded(
    gallery: Gallery, encoder: Any, metadata: Any, message: str
) -> None:
    encoder.batches.clear()
    images = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    with pytest.raises(GalleryError, match=message):
        gallery.add(images, metadata=metadata, progress=False)
    assert encoder.batches == []
    assert len(gallery) == 12
    assert "new" not in gallery.columns


# --------------------------------------------------------------------------------------------------- what is added


def test_a_folder_a_file_and_images_in_memory(tmp_path: Path, encoder: Any, photos: list[Path]) -> None:
    (photos[0].parent / "readme.txt").write_text("no image")
    red = Image.new("RGB", (4, 4), "red")
    with Gallery.create(tmp_path / "g", encoder) as gallery:
        assert gallery.add(photos[0].parent, progress=False).added == 12
        assert [hit.id for hit in gallery.search(photos[10], 1)] == [10], "10.png comes after 9.png"
        assert gallery.add(str(photos[0]), progress=False).skipped == 1
        assert gallery.add([red, Image.new("L", (4, 4), 9), red.copy()], progress=False).added == 2
        assert gallery.add(red, progress=False).skipped == 1
        hit = gallery.search(red, 1)[0]
        assert hit.image == image_name(red)
        assert hit.image.startswith("memory:")
        assert gallery.add(PersonRecord(photos[0], 0), progress=False).skipped == 1
        assert gallery.add(iter(photos), progress=False).skipped == 12


@pytest.mark.parametrize("images", [[], 3, None, b"x", {"a": 1}, [3], [None], [["nested"]], np.zeros((2, 2))])
def test_what_cannot_be_added_is_refused(gallery: Gallery, images: Any) -> None:
    with pytest.raises(GalleryError, match=r"cannot add|no images to add"):
        gallery.add(images, progress=False)


def test_missing_and_empty_folders_are_refused(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    for folder in ("void", "missing"):
        with pytest.raises(DatasetError, match=folder):
            gallery.add(tmp_path / folder, progress=False)


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"batch_size": 1.5}, {"num_workers": -1}, {"num_workers": True}])
def test_wrong_options_are_refused(gallery: Gallery, photos: list[Path], option: dict[str, Any]) -> None:
    with pytest.raises(GalleryError, match=next(iter(option))):
        gallery.add(photos, progress=False, **option)
