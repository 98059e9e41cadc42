"""Galleries of models that compare tokens: ranked by the model's own score, and tokens and rows stay in step."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_zoo.errors import GalleryError, QueryError
from reid_zoo.gallery import Gallery, ModelIdentity, late_interaction
from reid_zoo.gallery.late_interaction import TOKENS_COLUMN

WritePhotos = Callable[..., list[Path]]
SENTENCES = ["a woman in a red coat", "a man", "a girl with a white bag"]


@pytest.fixture
def gallery(tmp_path: Path, late_encoder: Any, photos: list[Path]) -> Gallery:
    gallery = Gallery.create(tmp_path / "people.gallery", late_encoder)
    gallery.add(photos, metadata={"camera_id": [number % 3 for number in range(12)]}, batch_size=5, progress=False)
    late_encoder.scored.clear()
    return gallery


def expected(encoder: Any, photos: list[Path], sentence: str) -> tuple[list[int], np.ndarray]:
    """Positions of the photos, best first, and their scores, from features as they are stored."""
    images = encoder.encode_image_features([Image.open(path).convert("RGB") for path in photos])
    images.tokens, images.embeds = images.tokens.half().float(), images.embeds.half().float()
    scores = encoder.similarity(encoder.encode_text_features([sentence]), images)[0]
    order = np.argsort(-scores, kind="stable")
    return order.tolist(), scores[order]


def entries(gallery: Gallery) -> np.ndarray:
    tokens = gallery._store.token_store()
    assert tokens is not None
    return tokens.keys()


def assert_in_step(gallery: Gallery) -> None:
    """Every row has its tokens, and there are no others."""
    named = [
        (row_id, revision)
        for batch in gallery._store.scan(columns=[TOKENS_COLUMN])
        for row_id, revision in zip(batch.ids, batch.columns[TOKENS_COLUMN], strict=True)
    ]
    assert sorted(named) == sorted(map(tuple, entries(gallery).tolist()))


# ------------------------------------------------------------------------------------------------------- the ranking


def test_sentences_are_ranked_by_the_models_own_score(gallery: Gallery, late_encoder: Any, photos: list[Path]) -> None:
    for sentence in SENTENCES:
        order, scores = expected(late_encoder, photos, sentence)
        hits = gallery.search(sentence, top_k=12)
        assert [hit.image for hit in hits] == [str(photos[position]) for position in order]
        # 1e-6: the same float64 sums of the same stored values, rounded to float32
        np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=0, atol=1e-6)
        assert [hit.rank for hit in hits] == list(range(1, 13))
        assert all(hit.exact for hit in hits)
        assert hits[0].metadata.keys() == {"camera_id"}, "the gallery's own columns are hidden"
    by_vector = np.argsort(
        -late_encoder.encode_images([Image.open(p).convert("RGB") for p in photos])
        @ (late_encoder.encode_texts(SENTENCES[:1])[0])
    )
    assert [hit.id for hit in gallery.search(SENTENCES[0], 12)] != by_vector.tolist(), "the coarse ranking is another"


def test_several_queries_are_answered_as_each_alone(gallery: Gallery, photos: list[Path]) -> None:
    mixed = gallery.search([SENTENCES[0], photos[3], SENTENCES[1]], top_k=4)
    assert mixed == [gallery.search(query, top_k=4) for query in (SENTENCES[0], photos[3], SENTENCES[1])]


def test_images_are_ranked_by_their_coarse_vectors(gallery: Gallery, photos: list[Path]) -> None:
    hit = gallery.search(photos[7], top_k=1)[0]
    assert hit.image == str(photos[7])
    assert hit.score == pytest.approx(1, abs=1e-3)  # the inner product with itself, stored in half precision


def test_vectors_are_refused_because_they_have_no_tokens(gallery: Gallery, late_encoder: Any) -> None:
    for vectors in (np.ones(32), np.ones((2, 32)), [np.ones(32)]):
        with pytest.raises(QueryError, match="comparing tokens"):
            gallery.search(vectors)
    gallery.close()
    with Gallery.open(gallery.path) as unloaded, pytest.raises(QueryError, match="comparing tokens"):
        unloaded.search(np.ones(32))
    with Gallery.open(gallery.path) as unloaded, pytest.raises(GalleryError, match="needs the model"):
        unloaded.search("a man")


def test_equal_images_come_in_the_order_they_were_added(tmp_path: Path, late_encoder: Any) -> None:
    paths = [tmp_path / f"copy{number}.png" for number in (3, 1, 2)]
    for path in paths:
        Image.new("RGB", (8, 8), "green").save(path)
    with Gallery.create(tmp_path / "g", late_encoder) as gallery:
        assert gallery.search("a man") == []
        gallery.add(paths, progress=False)
        assert [hit.image for hit in gallery.search("a man")] == [str(path) for path in paths]


def test_a_filter_narrows_the_search(gallery: Gallery) -> None:
    everything = gallery.search("a man", top_k=12)
    found = gallery.search("a man", top_k=12, where="camera_id = 2")
    wanted = [hit for hit in everything if hit.metadata["camera_id"] == 2]
    assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in wanted]
    assert gallery.search("a man", where="camera_id = 77") == []


# ------------------------------------------------------------------------------------------------------- candidates


def test_candidates_are_those_whose_vectors_fit_best(gallery: Gallery, late_encoder: Any, photos: list[Path]) -> None:
    sentence = SENTENCES[2]
    vectors = late_encoder.encode_images([Image.open(path).convert("RGB") for path in photos]).astype(np.float16)
    coarse = np.argsort(-(vectors.astype(np.float64) @ late_encoder.encode_texts([sentence])[0]))[:5].tolist()
    order, scores = expected(late_encoder, photos, sentence)
    hits = gallery.search(sentence, top_k=3, candidates=5)
    assert [hit.id for hit in hits] == [position for position in order if position in coarse][:3]
    assert dict(zip(order, scores, strict=True))[hits[0].id] == pytest.approx(hits[0].score, abs=1e-6)
    assert not any(hit.exact for hit in hits)
    assert gallery.search(sentence, top_k=3, candidates=12) == gallery.search(sentence, top_k=3)
    filtered = gallery.search(sentence, top_k=2, candidates=2, where="camera_id = 1")
    assert [hit.metadata["camera_id"] for hit in filtered] == [1, 1]


def test_a_large_gallery_is_narrowed_down_by_default(
    gallery: Gallery, late_encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_interaction, "EXACT_ROWS", 11)
    monkeypatch.setattr(late_interaction, "LEAST_CANDIDATES", 4)
    monkeypatch.setattr(late_interaction, "CANDIDATES_PER_ANSWER", 2)
    for top_k, scored in ((1, 4), (3, 6)):
        late_encoder.scored.clear()
        hits = gallery.search("a man", top_k=top_k)
        assert (len(hits), hits[0].exact) == (top_k, False)
        assert late_encoder.scored == [(1, scored)]
    assert gallery.search("a man", top_k=1, candidates=12)[0].exact
    assert gallery.search("a man", where="camera_id = 0", top_k=1)[0].exact, "few enough match"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 2}, "less than|at least as many"),
        ({"candidates": 0}, "candidates is 0"),
        ({"candidates": True}, "candidates is True"),
        ({"candidates": 2.5}, "candidates is 2.5"),
        ({"camera_ids": 1}, "camera_ids are of image queries"),
    ],
)
def test_wrong_options_are_refused(gallery: Gallery, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        gallery.search("a man", top_k=3, **options)


def test_candidates_are_refused_where_they_would_do_nothing(
    gallery: Gallery, photos: list[Path], tmp_path: Path, encoder: Any
) -> None:
    with pytest.raises(QueryError, match="leave it out"):
        gallery.search(photos[0], candidates=20)
    with Gallery.create(tmp_path / "plain", encoder) as plain, pytest.raises(QueryError, match="leave it out"):
        plain.search("a man", candidates=20)


def test_memory_is_bounded_by_blocks(gallery: Gallery, late_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gallery.search(SENTENCES, top_k=4)
    late_encoder.scored.clear()
    monkeypatch.setattr(late_interaction, "BLOCK_VALUES", 5 * 3 * 16)  # five images of three tokens of 16 values
    assert gallery.search(SENTENCES, top_k=4) == whole
    assert late_encoder.scored == [(3, 5), (3, 5), (3, 2)]


def test_tokens_are_committed_before_they_fill_the_memory(
    tmp_path: Path, late_encoder: Any, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid_zoo.gallery.ingest.COMMIT_TOKEN_BYTES", 4 * 3 * 16 * 2)
    with Gallery.create(tmp_path / "g", late_encoder) as gallery:
        upsert, commits = gallery._token_index.upsert, []
        monkeypatch.setattr(
            gallery._token_index, "upsert", lambda ids, *rest: (commits.append(len(ids)), upsert(ids, *rest))
        )
        gallery.add(photos, batch_size=2, progress=False)
        assert commits == [4, 4, 4]
        assert_in_step(gallery)


# ----------------------------------------------------------------------------------------------- rows and tokens


def test_reopened_moved_and_compacted_it_answers_the_same(gallery: Gallery, tmp_path: Path, late_encoder: Any) -> None:
    before = gallery.search(SENTENCES, top_k=12)
    assert gallery.info().late_interaction
    gallery.compact()
    assert gallery.search(SENTENCES, top_k=12) == before
    gallery.close()
    gallery.close()
    gallery.path.rename(tmp_path / "elsewhere")
    with Gallery.open(tmp_path / "elsewhere", late_encoder) as again:
        assert again.search(SENTENCES, top_k=12) == before
        assert again.columns.keys() == {"image", "camera_id"}
        assert again.info().bytes > 12 * 3 * 16 * 2


def test_deleted_images_lose_their_tokens(gallery: Gallery, late_encoder: Any, photos: list[Path]) -> None:
    assert gallery.delete(ids=[0, 5]) == 2
    assert gallery.delete(where="camera_id = 1") == 4
    assert len(entries(gallery)) == 6
    assert_in_step(gallery)
    assert {hit.id for hit in gallery.search("a man", 99)} == {2, 3, 6, 8, 9, 11}
    full = gallery.info().bytes
    gallery.compact()
    assert gallery.info().bytes < full
    assert gallery.add(photos, progress=False).added == 6
    assert_in_step(gallery)
    assert len(gallery.search("a man", 99)) == 12


def test_a_changed_file_replaces_its_tokens(gallery: Gallery, late_encoder: Any, photos: list[Path]) -> None:
    Image.new("RGB", (16, 32), "red").save(photos[5])
    assert gallery.add(photos, progress=False).replaced == 1
    order, _ = expected(late_encoder, photos, "a man")
    assert [hit.id for hit in gallery.search("a man", 12)] == order
    gallery.compact()
    assert_in_step(gallery)
    assert [hit.id for hit in gallery.search("a man", 12)] == order


def test_a_write_that_never_finished_harms_nothing_and_is_cleaned_up(
    gallery: Gallery, photos: list[Path], write_photos: WritePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = gallery.search("a man", 12)
    os.utime(photos[3], ns=(1, 1))
    more = [photos[3], *write_photos(tmp_path / "more", 3, seed=5)]
    with monkeypatch.context() as patch:
        patch.setattr(gallery._store, "upsert", lambda *arguments: (_ for _ in ()).throw(GalleryError("disk full")))
        with pytest.raises(GalleryError, match="disk full"):
            gallery.add(more, progress=False)
    assert len(entries(gallery)) == 16, "the tokens were written first"
    assert gallery.search("a man", 12) == before, "also of the image that should have been replaced"
    gallery.compact()
    assert len(entries(gallery)) == 12
    assert gallery.search("a man", 12) == before
    assert gallery.add(more, progress=False).added == 4
    assert_in_step_after_cleaning(gallery)


def assert_in_step_after_cleaning(gallery: Gallery) -> None:
    gallery.compact()
    assert_in_step(gallery)


def test_a_row_replaced_between_two_reads_is_read_again(
    gallery: Gallery, late_encoder: Any, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process replaces one image, deletes one and cleans up after the rows have been read."""
    other = Gallery.open(gallery.path, late_encoder)
    get, calls = gallery._store.get, []

    def get_then_change(*arguments: Any, **options: Any) -> Any:
        rows = get(*arguments, **options)
        calls.append(1)
        if len(calls) == 1:
            Image.new("RGB", (16, 32), "blue").save(photos[2])
            other.add(photos, progress=False)
            other.delete(4)
            other.compact()
        return rows

    monkeypatch.setattr(gallery._store, "get", get_then_change)
    hits = gallery.search("a man", 12)
    order, scores = expected(late_encoder, photos, "a man")
    assert [hit.id for hit in hits] == [position for position in order if position != 4]
    assert {hit.id: hit.score for hit in hits}[2] == pytest.approx(scores[order.index(2)], abs=1e-6)


# -------------------------------------------------------------------------------------------------- several processes

WRITER = textwrap.dedent(
    """
    import os, signal, sys
    from types import SimpleNamespace
    import numpy as np
    from reid_zoo.gallery import Gallery, ModelIdentity, ingest
    from reid_zoo.gallery.engines.lance import LanceStore

    class Encoder:
        identity = ModelIdentity("m", None, "fake", 32, "late/model-32-fingerprint")
        scores_by_late_interaction = True
        def encode_image_features(self, images):
            rows = np.stack([np.resize(np.asarray(image, np.float32).ravel(), 48) + 1 for image in images])
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            return SimpleNamespace(embeds=rows[:, :32], tokens=rows.reshape(-1, 3, 16), token_mask=None)

    place, folder, commits_before_kill = sys.argv[1], sys.argv[2], int(sys.argv[3])
    upsert = LanceStore.upsert
    done = []
    def counted(*arguments):
        if len(done) == commits_before_kill:
            os.kill(os.getpid(), signal.SIGKILL)
        upsert(*arguments)
        done.append(1)
    LanceStore.upsert = counted
    ingest.COMMIT_ROWS = 4
    with Gallery.open(place, Encoder()) as gallery:
        print("ready", flush=True)
        sys.stdin.readline()
        gallery.add(folder, batch_size=4, progress=False)
    """
)


def start(place: Path, folder: Path, commits_before_kill: int = -1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(place), str(folder), str(commits_before_kill)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the operating system has no SIGKILL")
def test_a_process_killed_between_tokens_and_rows_leaves_only_tokens_behind(
    tmp_path: Path, late_encoder: Any, write_photos: WritePhotos
) -> None:
    place, folder = tmp_path / "g", tmp_path / "people"
    gallery = Gallery.create(place, late_encoder)
    write_photos(folder, 16)
    process = start(place, folder, commits_before_kill=2)
    go(process)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert len(gallery) == len(gallery.search("a man", 99)) == 8
    assert len(entries(gallery)) == 12, "the tokens of the third commit were written, its rows were not"
    gallery.compact()
    assert_in_step(gallery)
    process = start(place, folder)
    go(process)
    assert process.wait(timeout=60) == 0, "the lock of the dead process is gone"
    assert len(gallery.search("a man", 99)) == 16
    assert_in_step(gallery)


def test_two_processes_add_while_another_searches_and_cleans_up(
    tmp_path: Path, late_encoder: Any, write_photos: WritePhotos
) -> None:
    place = tmp_path / "shared.gallery"
    gallery = Gallery.create(place, late_encoder)
    for seed in range(2):
        write_photos(tmp_path / f"people{seed}", 32, seed=seed)
    processes = [start(place, tmp_path / f"people{seed}") for seed in range(2)]
    for process in processes:
        go(process)
    last = 0
    while any(process.poll() is None for process in processes):
        found = len(gallery.search("a man", 1000))  # fails if a row can be seen without its tokens
        assert found >= last
        last = found
        gallery.compact()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert len(gallery) == len(gallery.search("a man", 1000)) == 64
    gallery.compact()
    assert_in_step(gallery)


# ------------------------------------------------------------------------------------------------------- what is wrong


def one_line(error: pytest.ExceptionInfo[GalleryError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_or_damaged_table_is_named(gallery: Gallery, late_encoder: Any, tmp_path: Path) -> None:
    gallery.close()
    for number, damage in enumerate(
        (
            lambda place: shutil.rmtree(place / "tokens.lance"),
            lambda place: [path.write_bytes(b"no table") for path in (place / "tokens.lance").rglob("*.manifest")],
        )
    ):
        place = tmp_path / f"damaged{number}"
        shutil.copytree(gallery.path, place)
        damage(place)
        with pytest.raises(GalleryError, match=r"tokens\.lance") as caught:
            Gallery.open(place, late_encoder)
        assert str(place) in one_line(caught)
    place = tmp_path / "without data"
    shutil.copytree(gallery.path, place)
    for path in (place / "tokens.lance" / "data").iterdir():
        path.unlink()
    with (
        Gallery.open(place, late_encoder) as opened,
        pytest.raises(GalleryError, match="could not read tokens") as caught,
    ):
        opened.search("a man")
    assert str(place) in one_line(caught)


def test_lost_tokens_are_named(gallery: Gallery) -> None:
    tokens = gallery._store.token_store()
    assert tokens is not None
    tokens.delete(tokens.keys()[:3, 1])
    with pytest.raises(GalleryError, match="lacks the tokens of 3 images") as caught:
        gallery.search("a man")
    one_line(caught)
    assert len(gallery.search("a man", where="id > 2", top_k=99)) == 9


def test_images_of_an_older_version_are_completed_by_adding_them_again(
    tmp_path: Path, late_encoder: Any, encoder: Any, photos: list[Path], write_photos: WritePhotos
) -> None:
    """A gallery of the same model, made when only vectors were kept."""
    encoder.identity = late_encoder.identity
    with Gallery.create(tmp_path / "g", encoder) as old:
        old.add(photos, metadata={"camera_id": 1}, progress=False)
    with Gallery.open(tmp_path / "g", late_encoder) as gallery:
        assert not gallery.info().late_interaction
        assert len(gallery.search(photos[0], 99)) == 12, "image queries need no tokens"
        with pytest.raises(GalleryError, match="index the same images again") as caught:
            gallery.search("a man")
        one_line(caught)
        gallery.compact()
        gallery.add(write_photos(tmp_path / "more", 2, seed=9), progress=False)
        with pytest.raises(GalleryError, match=r"the image .*0\.png was indexed by an older reid_zoo") as caught:
            gallery.search("a man", where="id < 3")
        report = gallery.add(photos, progress=False)
        assert (report.added, report.replaced, report.skipped) == (12, 12, 0)
        assert gallery.add(photos, progress=False).skipped == 12
        order, _ = expected(late_encoder, photos, "a man")
        assert [hit.id for hit in gallery.search("a man", 99, where="id < 12")] == order


def test_a_model_that_breaks_its_promise_is_named(gallery: Gallery, late_encoder: Any, monkeypatch: Any) -> None:
    image = Image.new("RGB", (4, 4), "red")
    features = late_encoder.encode_image_features([image])
    for field, value, message in (
        ("tokens", None, "gave no tokens"),
        ("tokens", features.tokens[:, :, :9], "3 tokens of 16 values per image, but the model gives 3 of 9"),
        ("token_mask", features.token_mask[:, :2], "their mask"),
        ("tokens", features.tokens * float("nan"), "a token has a value that is NaN"),
        ("tokens", features.tokens + 1e6, "a token has a value"),
        ("embeds", features.embeds[:, :5], "embeddings of shape"),
    ):
        changed = type(features)(**{**features, field: value})
        monkeypatch.setattr(late_encoder, "encode_image_features", lambda images, changed=changed: changed)
        with pytest.raises(GalleryError, match=message):
            gallery.add(image, progress=False)
    assert len(gallery) == len(entries(gallery)) == 12
    monkeypatch.setattr(late_encoder, "similarity", lambda texts, images: np.full((1, 12), np.nan, np.float32))
    with pytest.raises(GalleryError, match=r"late/model gave a score that is NaN"):
        gallery.search("a man")


def test_a_table_that_a_killed_process_began_to_make_is_made_again(
    tmp_path: Path, late_encoder: Any, photos: list[Path]
) -> None:
    Gallery.create(tmp_path / "g", identity=late_encoder.identity).close()
    (tmp_path / "g" / "tokens.lance" / "_transactions").mkdir(parents=True)
    with Gallery.open(tmp_path / "g", late_encoder) as gallery:
        gallery.add(photos, progress=False)
        assert len(gallery.search("a man", 99)) == 12


def test_an_engine_without_tokens_says_so(memory_store_class: Any, tmp_path: Path) -> None:
    from reid_zoo.gallery.engines.base import StoreSchema, TokenShape

    store = memory_store_class.create(str(tmp_path), StoreSchema(ModelIdentity("m", None, "fake", 4, "f")))
    assert not store.capabilities().token_vectors
    assert store.token_store() is None
    with pytest.raises(GalleryError, match="cannot store tokens"):
        store.token_store(make=TokenShape(2, 3))
