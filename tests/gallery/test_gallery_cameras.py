"""Galleries of models that use the camera of an image, and of models that take images only."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_zoo import PersonEncoder, ReIDProcessor
from reid_zoo.data.records import PersonRecord
from reid_zoo.encoding import MissingCameraWarning
from reid_zoo.errors import QueryError
from reid_zoo.gallery import Gallery
from tiny_clip_reid_models import build as build_clip_reid


@pytest.fixture(scope="module")
def cameras() -> PersonEncoder:
    """A CLIP-ReID whose embeddings depend on one of four cameras."""
    model = build_clip_reid(sie_camera=True, num_cameras=4)
    return PersonEncoder(model, ReIDProcessor.build(None, image_size=(32, 16)), name="org/cameras")


def embeddings(encoder: PersonEncoder, paths: list[Path], camera_ids: Any) -> np.ndarray:
    return encoder.encode_images([Image.open(path).convert("RGB") for path in paths], camera_ids)


def stored(gallery: Gallery) -> np.ndarray:
    rows = gallery._store.get(np.arange(len(gallery)), vectors=True)
    assert rows.vectors is not None
    return rows.vectors.astype(np.float32)


def test_images_are_encoded_with_the_camera_in_their_metadata(
    tmp_path: Path, cameras: PersonEncoder, photos: list[Path]
) -> None:
    ids = [number % 4 for number in range(12)]
    with Gallery.create(tmp_path / "g", cameras) as gallery, warnings.catch_warnings():
        warnings.simplefilter("error")
        gallery.add(photos, metadata={"camera_id": ids}, batch_size=5, progress=False)
        expected = embeddings(cameras, photos, ids)
        # half precision in the store; the neighbouring camera is much farther away
        np.testing.assert_allclose(stored(gallery), expected, rtol=0, atol=1e-3)
        assert np.abs(embeddings(cameras, photos, [1] * 12) - expected)[2].max() > 1e-2
    with Gallery.create(tmp_path / "records", cameras) as gallery:
        gallery.add([PersonRecord(path, 0, camera_id=1) for path in photos], progress=False)
        np.testing.assert_allclose(stored(gallery), embeddings(cameras, photos, [1] * 12), rtol=0, atol=1e-3)


def test_a_camera_that_the_model_does_not_know_is_a_failed_image(
    tmp_path: Path, cameras: PersonEncoder, photos: list[Path]
) -> None:
    with Gallery.create(tmp_path / "g", cameras) as gallery:
        report = gallery.add(photos[:4], metadata={"camera_id": [0, 4, -1, 3]}, progress=False)
        assert report.added == len(gallery) == 2
        assert [(failed.path, failed.reason) for failed in report.failed] == [
            (str(photos[1]), "camera_id is 4, but the model was trained with num_cameras = 4, numbered from 0"),
            (str(photos[2]), "camera_id is -1, but the model was trained with num_cameras = 4, numbered from 0"),
        ]
        assert gallery.add(photos[:4], metadata={"camera_id": [0, 1, 2, 3]}, progress=False).added == 2
    with Gallery.create(tmp_path / "names", cameras) as gallery:
        report = gallery.add(photos[0], metadata={"camera_id": "entrance"}, progress=False)
        assert [failed.reason for failed in report.failed] == [
            "camera_id is 'entrance', but must be a whole number from 0 to 3"
        ]


def test_images_without_a_camera_are_taken_with_one_warning(
    tmp_path: Path, photos: list[Path], cameras: PersonEncoder
) -> None:
    encoder = PersonEncoder(cameras.model, cameras.processor, name="org/cameras")
    with Gallery.create(tmp_path / "g", encoder) as gallery:
        with pytest.warns(MissingCameraWarning) as caught:
            gallery.add(photos, metadata={"camera_id": [None, 2.0] * 6}, batch_size=4, progress=False)
        assert len(caught) == 1
        both = [None, 2] * 6
        np.testing.assert_allclose(stored(gallery), embeddings(encoder, photos, both), rtol=0, atol=1e-3)


def test_image_queries_have_a_camera_too(tmp_path: Path, cameras: PersonEncoder, photos: list[Path]) -> None:
    with Gallery.create(tmp_path / "g", cameras) as gallery, warnings.catch_warnings():
        warnings.simplefilter("error")
        gallery.add(photos, metadata={"camera_id": 1}, progress=False)
        hit = gallery.search(photos[3], 1, camera_ids=1)[0]
        assert (hit.image, hit.score) == (str(photos[3]), pytest.approx(1, abs=1e-3))
        assert gallery.search(photos[3], 1, camera_ids=2)[0].score < 0.999
        several = gallery.search([photos[3], Image.open(photos[4])], 2, camera_ids=[1, 2])
        again = gallery.search([photos[3], photos[4]], 2, camera_ids=np.array([1, 2]))
        alone = [gallery.search(photos[3], 2, camera_ids=1), gallery.search(photos[4], 2, camera_ids=[2])]
        for hits, expected in zip([*several, *again], [*alone, *alone], strict=True):
            assert [hit.id for hit in hits] == [hit.id for hit in expected]
            # 1e-5: two images at once change the order of float32 sums
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
        vector = cameras.encode_images([Image.open(photos[3]).convert("RGB")], [1])[0]
        mixed = gallery.search([vector, photos[4]], 2, camera_ids=[None, 2])
        assert [hit.id for hit in mixed[1]] == [hit.id for hit in several[1]]
    with (
        Gallery.open(tmp_path / "g", PersonEncoder(cameras.model, cameras.processor)) as gallery,
        pytest.warns(MissingCameraWarning),
    ):
        assert gallery.search(photos[3], 1)[0].score < 0.999


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ("image", {"camera_ids": 4}, "query 0: camera_id is 4"),
        ("image", {"camera_ids": "x"}, "query 0: camera_id is 'x'"),
        ("image", {"camera_ids": [1, 2]}, "there are 2 camera_ids for 1 queries"),
        ("image", {"view_ids": 1}, "view_ids are given, but the model org/cameras does not use them"),
        ("vector", {"camera_ids": 1}, "camera_ids are of image queries, but there is none"),
        ("both", {"camera_ids": [1, 1]}, "query 0 is no image"),
        ("sentence", {}, r"takes images only; .*image-person-retrieval"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    tmp_path: Path, cameras: PersonEncoder, photos: list[Path], query: str, options: dict[str, Any], message: str
) -> None:
    vector = np.ones(cameras.identity.embedding_size)
    queries = {"image": photos[0], "vector": vector, "both": [vector, photos[0]], "sentence": "a man"}
    with Gallery.create(tmp_path / "g", cameras) as gallery, pytest.raises(QueryError, match=message) as caught:
        gallery.search(queries[query], **options)
    assert "\n" not in str(caught.value)


def test_a_model_without_cameras_refuses_them_in_a_query_and_ignores_them_in_metadata(
    tmp_path: Path, photos: list[Path], make_encoder: Callable[..., Any]
) -> None:
    with Gallery.create(tmp_path / "g", make_encoder()) as gallery:
        assert gallery.add(photos, metadata={"camera_id": 99}, progress=False).added == 12
        with pytest.raises(QueryError, match="the model fake/model does not use them; leave them out"):
            gallery.search(photos[0], camera_ids=1)
