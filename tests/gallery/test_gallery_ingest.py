"""Indexing that meets bad files, Ctrl-C, a full disk, changed files, and itself in another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_zoo.errors import GalleryError
from reid_zoo.gallery import FailedImage, Gallery, ingest
from reid_zoo.gallery.image_sources import ImageItem
from reid_zoo.gallery.ingest import add_images

WritePhotos = Callable[..., list[Path]]


@pytest.fixture
def gallery(tmp_path: Path, encoder: Any) -> Gallery:
    return Gallery.create(tmp_path / "g", encoder)


def names(gallery: Gallery) -> set[str]:
    return {hit.image for hit in gallery.search("x", top_k=10**6)}


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_bad_images_are_skipped_and_reported(
    gallery: Gallery, photos: list[Path], num_workers: int, encoder: Any, tmp_path: Path
) -> None:
    folder = photos[0].parent
    (folder / "1.png").write_bytes(b"")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:80])
    (folder / "3.jpg").write_text("not an image")
    report = gallery.add(folder, num_workers=num_workers, batch_size=4, progress=False)
    assert report.added == 10
    assert report.skipped == report.replaced == 0
    assert [Path(failed.path).name for failed in report.failed] == ["1.png", "2.png", "3.jpg"]
    assert "empty" in report.failed[0].reason
    assert all(failed.reason and "\n" not in failed.reason for failed in report.failed)
    assert encoder.batches == [4, 4, 2]
    assert len(names(gallery)) == 10
    again = gallery.add(folder, num_workers=num_workers, progress=False)
    assert (again.added, again.skipped, len(again.failed)) == (0, 10, 3)


def test_unreadable_images_in_memory_and_odd_names_are_reported(gallery: Gallery, photos: list[Path]) -> None:
    photos[0].write_bytes(photos[0].read_bytes()[:80])
    odd = os.fsdecode(os.fsencode(str(photos[1].parent)) + b"/\xff.png")
    report = gallery.add([Image.open(photos[0]), odd, "nul\0.png", photos[1]], progress=False)
    assert report.added == 1
    assert [type(failed) for failed in report.failed] == [FailedImage] * 3
    assert "image in memory" in report.failed[0].path


def test_a_file_name_that_is_not_unicode_is_reported(gallery: Gallery, photos: list[Path]) -> None:
    odd = os.fsdecode(os.fsencode(str(photos[1].parent)) + b"/\xff.png")
    try:
        os.rename(photos[1], odd)
    except OSError:
        return  # this file system has only Unicode names, so nobody can meet one
    report = gallery.add(photos[1].parent, progress=False)
    assert report.added == 11
    assert "Unicode" in report.failed[0].reason
    report.failed[0].path.encode()


def test_a_changed_file_replaces_its_row(gallery: Gallery, photos: list[Path]) -> None:
    gallery.add(photos, metadata={"camera_id": 1}, progress=False)
    Image.new("RGB", (16, 32), "red").save(photos[5])
    os.utime(photos[6], ns=(1, 1))
    report = gallery.add(photos, metadata={"floor": 2}, progress=False)
    assert (report.added, report.replaced, report.skipped) == (2, 2, 10)
    assert len(gallery) == 12
    hit = gallery.search(Image.new("RGB", (16, 32), "red"), 1)[0]
    assert (hit.id, hit.image, hit.metadata) == (5, str(photos[5]), {"floor": 2})
    assert hit.score == pytest.approx(1, abs=1e-3)
    photos[7].write_bytes(b"now broken")
    assert len(gallery.add(photos, progress=False).failed) == 1
    assert len(gallery) == 12, "the last readable version stays"


def test_the_same_image_twice_in_the_input_is_one_row(gallery: Gallery, photos: list[Path]) -> None:
    relative = os.path.relpath(photos[0])
    report = gallery.add([photos[0], photos[1], relative, photos[0]], progress=False)
    assert (report.added, report.skipped) == (2, 2)
    assert len(gallery) == 2


def test_the_order_of_the_input_is_the_order_of_the_ids(gallery: Gallery, tmp_path: Path, encoder: Any) -> None:
    class SlowFirst(ImageItem):
        def load(self) -> Image.Image:
            time.sleep(0.05 if str(self.source).endswith("0.png") else 0)
            return super().load()

    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 4), (number * 10, 255 - number * 10, 7)).save(path)
    items = [SlowFirst(str(path), {}) for path in paths]
    store = gallery._store
    options = {"batch_size": 3, "num_workers": 4, "progress": False, "token_index": gallery._token_index}
    add_images(store, encoder, items, reserve_ids=gallery._reserve_ids, **options)
    assert store.get(np.arange(20), columns=["image"]).columns["image"].tolist() == [str(path) for path in paths]


def test_decoding_stays_within_its_bounds_while_the_model_works(gallery: Gallery, tmp_path: Path, encoder: Any) -> None:
    alive = 0
    most = 0
    overlapped = False
    encoding = threading.Event()
    lock = threading.Lock()

    class Counted(ImageItem):
        def load(self) -> Image.Image:
            nonlocal alive, most, overlapped
            with lock:
                alive += 1
                most = max(most, alive)
                overlapped = overlapped or encoding.is_set()
            return super().load()

    class Encoder(type(encoder)):  # type: ignore[misc]
        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            nonlocal alive
            encoding.set()
            time.sleep(0.02)
            encoding.clear()
            with lock:
                alive -= len(images)
            return super().encode_images(images)

    def run(count: int, **options: Any) -> None:
        nonlocal most
        most = 0
        items = [Counted(Image.new("RGB", (10, 10), (number, seed, 0)), {}) for number in range(count)]
        common = {"reserve_ids": gallery._reserve_ids, "token_index": gallery._token_index, "progress": False}
        add_images(gallery._store, Encoder(), items, **common, **options)

    seed = 0
    run(120, batch_size=5, num_workers=3)
    assert overlapped, "no image was decoded while the model worked"
    # a batch with the model, 2 batches and one image per worker ahead
    assert most <= 5 + 2 * 5 + 3
    seed = 1
    run(60, batch_size=50, num_workers=3, pixel_budget=1000)
    # at most 10 images of 100 pixels are decoded, and one more by each worker that had started
    assert most <= 10 + 3


def test_interrupting_keeps_what_was_committed_and_a_rerun_continues(
    gallery: Gallery, photos: list[Path], encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "COMMIT_ROWS", 4)
    original = encoder.encode_images

    def interrupted(images: Sequence[Image.Image]) -> np.ndarray:
        if len(encoder.batches) == 4:
            signal.raise_signal(signal.SIGINT)
        return original(images)

    encoder.encode_images = interrupted
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        gallery.add(photos, batch_size=2, progress=False)
    assert len(gallery) == 8, "four batches were encoded; the fifth was in flight"
    assert not [thread for thread in threading.enumerate() if "reid_zoo-decode" in thread.name]
    assert threading.active_count() <= before + 1
    encoder.encode_images = original
    report = gallery.add(photos, batch_size=2, progress=False)
    assert (report.added, report.skipped) == (4, 8)
    assert names(gallery) == {str(path) for path in photos}


def test_an_interrupt_waits_for_the_commit(
    gallery: Gallery, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = gallery._store.upsert
    finished = []

    def upsert(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        original(*arguments)
        finished.append(1)

    monkeypatch.setattr(gallery._store, "upsert", upsert)
    monkeypatch.setattr(ingest, "COMMIT_ROWS", 6)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        gallery.add(photos, batch_size=3, progress=False)
    assert finished == [1]
    assert len(gallery) == 6
    assert signal.getsignal(signal.SIGINT) is handler


def test_indexing_from_another_thread_works(gallery: Gallery, photos: list[Path]) -> None:
    reports = []
    thread = threading.Thread(target=lambda: reports.append(gallery.add(photos, progress=False)))
    thread.start()
    thread.join()
    assert reports[0].added == 12


def test_a_model_that_fails_loses_only_its_batch(gallery: Gallery, photos: list[Path], encoder: Any) -> None:
    original = encoder.encode_images

    def fail(images: Sequence[Image.Image]) -> np.ndarray:
        if len(encoder.batches) == 2:
            raise RuntimeError("out of memory")
        return original(images)

    encoder.encode_images = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        gallery.add(photos, batch_size=3, progress=False)
    assert len(gallery) == 6


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("lance error: LanceError(IO): No space left on device (os error 28), /x/y.rs:1:2"),
    ],
)
def test_a_full_disk_is_one_line_and_a_rerun_continues(
    gallery: Gallery, photos: list[Path], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "COMMIT_ROWS", 4)
    table = gallery._store._table
    merge_insert = type(table).merge_insert
    calls = []

    def full(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return merge_insert(self, *arguments)

    monkeypatch.setattr(type(table), "merge_insert", full)
    with pytest.raises(GalleryError, match="no space left") as caught:
        gallery.add(photos, batch_size=2, progress=False)
    assert "\n" not in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert len(gallery) == 4
    assert gallery.add(photos, progress=False).added == 8


QUOTA = textwrap.dedent(
    """
    import resource, sys
    import numpy as np
    from PIL import Image
    from reid_zoo.errors import GalleryError
    from reid_zoo.gallery import Gallery, ModelIdentity, ingest

    class Encoder:
        identity = ModelIdentity("m", None, "fake", 512, "f")
        def encode_images(self, images):
            rows = np.stack([np.resize(np.asarray(image, np.float32).ravel(), 512) + 1 for image in images])
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    ingest.COMMIT_ROWS = 10
    colours = [Image.new("RGB", (2, 2), (number, 0, 255 - number)) for number in range(60)]
    gallery = Gallery.create(sys.argv[1], Encoder())
    assert gallery.add(colours[:20], batch_size=10, progress=False).added == 20
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for limit in (8_000, 1):  # too small for the vectors of a commit; too small for any file
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            gallery.add(colours, batch_size=10, progress=False)
        except GalleryError as error:
            print(error)
        gallery.search(np.ones(512), 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    gallery.close()
    gallery = Gallery.open(sys.argv[1], Encoder())
    print(len(gallery))
    report = gallery.add(colours, batch_size=10, progress=False)
    print(report.added, report.skipped, len(gallery.search(np.ones(512), 100)))
    """
)


@pytest.mark.skipif(
    sys.platform == "win32", reason="RLIMIT_FSIZE stands for the full disk, which Windows does not have"
)
def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", QUOTA, str(tmp_path / "g")], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 4, result.stdout
    assert all("no space left on the device" in line for line in lines[:2])
    assert lines[2:] == ["20", "40 20 60"]


INDEXER = textwrap.dedent(
    """
    import sys, time
    import numpy as np
    from reid_zoo.gallery import Gallery, ModelIdentity, ingest

    class Encoder:
        identity = ModelIdentity("m", None, "fake", 16, "f")
        def encode_images(self, images):
            time.sleep(float(sys.argv[3]))
            rows = np.stack([np.resize(np.asarray(image, np.float32).ravel(), 16) + 1 for image in images])
            print("batch", flush=True)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    ingest.COMMIT_ROWS = 4
    with Gallery.open(sys.argv[1], Encoder()) as gallery:
        print("ready", flush=True)
        sys.stdin.readline()
        gallery.add(sys.argv[2], batch_size=4, progress=True)
    """
)


def start(path: Path, folder: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", INDEXER, str(path), str(folder), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_index_into_one_gallery(tmp_path: Path, write_photos: WritePhotos, make_encoder: Any) -> None:
    from reid_zoo.gallery import ModelIdentity

    path = tmp_path / "shared.gallery"
    Gallery.create(path, identity=ModelIdentity("m", None, "fake", 16, "f")).close()
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        write_photos(folder, 30, seed=seed)
    processes = [start(path, folder, 0) for folder in folders]
    for process in processes:
        go(process)
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    with Gallery.open(path) as gallery:
        hits = gallery.search(np.ones(16), top_k=100)
        assert len(gallery) == 60
        assert {hit.image for hit in hits} == {str(file) for folder in folders for file in folder.iterdir()}
        assert sorted(hit.id for hit in hits) == list(range(60)), "no id is given twice"


@pytest.mark.parametrize("number", ["SIGINT", "SIGKILL"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither signal for a child process")
def test_a_process_that_is_stopped_loses_nothing_that_was_committed(
    tmp_path: Path, write_photos: WritePhotos, number: str
) -> None:
    from reid_zoo.gallery import ModelIdentity

    path = tmp_path / "g"
    Gallery.create(path, identity=ModelIdentity("m", None, "fake", 16, "f")).close()
    write_photos(tmp_path / "people", 40)
    process = start(path, tmp_path / "people", 0.05)
    go(process)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(getattr(signal, number))
    error = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    if number == "SIGINT":
        assert "KeyboardInterrupt" in error
    with Gallery.open(path) as gallery:
        stored = len(gallery)
    assert 16 <= stored < 40, "the fifth batch begins after the commit of the fourth"
    process = start(path, tmp_path / "people", 0)
    go(process)
    assert "40/40" in process.communicate(timeout=60)[1], "the progress bar goes to stderr"
    assert process.returncode == 0
    with Gallery.open(path) as gallery:
        assert len(gallery) == 40
        assert len({hit.image for hit in gallery.search(np.ones(16), 100)}) == 40


def test_a_lost_counter_of_ids_comes_back(gallery: Gallery, photos: list[Path]) -> None:
    gallery.add(photos[:5], progress=False)
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("")):
        damage(gallery.path / "next_id")
        gallery.add(photos[len(gallery)], progress=False)
    assert sorted(hit.id for hit in gallery.search("x", 99)) == list(range(7))


def test_rows_are_committed_after_a_while_too(
    gallery: Gallery, photos: list[Path], encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "COMMIT_SECONDS", 0.0)
    seen = []
    original = encoder.encode_images

    def encode(images: Sequence[Image.Image]) -> np.ndarray:
        seen.append(len(gallery))
        return original(images)

    encoder.encode_images = encode
    gallery.add(photos, batch_size=3, progress=False)
    assert seen == [0, 3, 6, 9]


@pytest.mark.parametrize("progress", [True, False])
def test_the_progress_bar_is_on_stderr_and_can_be_switched_off(
    gallery: Gallery, photos: list[Path], capsys: pytest.CaptureFixture[str], progress: bool
) -> None:
    gallery.add(photos, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("12/12" in captured.err) is progress
