"""Reports: complete, true to the run, and comparable."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from divided_people import divided
from reid_zoo import PersonEncoder, load_dataset
from reid_zoo.data.occlusion import severity_sweep
from reid_zoo.errors import EvaluationError, QueryError
from reid_zoo.evaluation.comparison import compare_reports, write_comparison
from reid_zoo.evaluation.report import read_report, write_report
from reid_zoo.evaluation.robustness import evaluate_robustness
from reid_zoo.evaluation.runs import run_evaluation
from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from tiny_mgcc import build_mgcc
from tiny_models import MAX_TEXT_LENGTH, draw_people, tiny_model, tiny_processor

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::reid_zoo.processing.TruncationWarning")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = draw_people(tmp_path_factory.mktemp("people"), identities=9, images=3, test_identities=6)
    return load_dataset("cuhk-pedes", root, "test")


@pytest.fixture(scope="module")
def run(people):
    return run_evaluation(PersonEncoder(tiny_model(), tiny_processor(), name="one"), people, progress=False)


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(run, folder)


def test_a_report_has_everything(run, report):
    folder, content = report
    pictures = {"cmc.png", "scores.png", "features.png", "best.png", "worst.png", "random.png"}
    tables = {"report.json", "metrics.csv", "queries.csv", "breakdown.csv"}
    assert {path.name for path in folder.iterdir()} == pictures | tables
    for name in pictures:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert len(set(picture.convert("L").getextrema())) == 2
    assert json.loads((folder / "report.json").read_text()) == content
    assert content["metrics"] == pytest.approx(run.metrics.as_dict())
    for name, interval in content["intervals"].items():
        assert interval["low"] <= content["metrics"][name] <= interval["high"]
    assert content["cmc"][0] == pytest.approx(run.metrics.R1)
    lengths = content["breakdown"]["caption length"]
    assert sum(group["num_queries"] for group in lengths.values()) == run.metrics.num_queries
    assert content["threshold"] is not None
    assert -1 <= content["silhouette"] <= 1


def test_queries_are_listed_with_their_results(run, report):
    with (report[0] / "queries.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["caption"] for row in rows] == list(run.query_texts)
    assert np.mean([float(row["average_precision"]) for row in rows]) == pytest.approx(run.metrics.mAP / 100)
    assert np.mean([int(row["best_is_right"]) for row in rows]) == pytest.approx(run.metrics.R1 / 100)


def test_a_report_is_read_back_exactly(run, report):
    found = read_report(report[0])
    assert found.metrics.as_dict() == run.metrics.as_dict()
    np.testing.assert_array_equal(found.metrics.average_precision, run.metrics.average_precision)
    assert (found.model, found.dataset, found.protocol) == ("one", "cuhk-pedes", "text-to-image")


def test_reports_without_pictures_need_no_plots(run, tmp_path):
    write_report(run, tmp_path, pictures=False)
    assert not list(tmp_path.glob("*.png"))


def test_image_and_late_interaction_runs_are_reported_too(people, tmp_path):
    images = run_evaluation(PersonEncoder(tiny_model(), tiny_processor()), divided(people), progress=False)
    content = write_report(images, tmp_path / "images")
    assert (tmp_path / "images" / "worst.png").is_file()
    assert set(content["breakdown"]["camera"]) <= {"camera 0", "camera 1"}
    sizes = {"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH}
    late = PersonEncoder(build_mgcc(MGCCModel, text_config=sizes), tiny_processor())
    content = write_report(run_evaluation(late, people, progress=False), tmp_path / "late")
    assert any("scores.png" in note for note in content["notes"])
    texts = run_evaluation(late, people, protocol="image-to-text", progress=False)
    write_report(texts, tmp_path / "texts")
    assert not (tmp_path / "texts" / "best.png").exists()


def test_runs_are_compared_with_a_paired_test(people, run, report, tmp_path):
    other = run_evaluation(PersonEncoder(tiny_model(seed=1), tiny_processor(), name="two"), people, progress=False)
    write_report(other, tmp_path / "two", pictures=False)
    runs = [read_report(report[0]), read_report(tmp_path / "two")]
    found = compare_reports(runs)
    assert [entry["name"] for entry in found["runs"]] == ["one", "two"]
    assert found["runs"][0]["against_first"] is None
    difference = found["runs"][1]["against_first"]["mAP"]
    assert difference["difference"] == pytest.approx(other.metrics.mAP - run.metrics.mAP)
    assert 0 < difference["p_value"] <= 1
    write_comparison(runs, found, tmp_path / "both")
    assert json.loads((tmp_path / "both" / "comparison.json").read_text()) == found
    assert (tmp_path / "both" / "cmc.png").is_file()


def test_only_the_same_queries_are_compared(people, report, tmp_path):
    images = run_evaluation(PersonEncoder(tiny_model(), tiny_processor()), divided(people), progress=False)
    write_report(images, tmp_path, pictures=False)
    with pytest.raises(EvaluationError, match="compare evaluations of the same data"):
        compare_reports([read_report(report[0]), read_report(tmp_path)])
    with pytest.raises(EvaluationError, match="at least two"):
        compare_reports([read_report(report[0])])


@pytest.mark.parametrize("damage", ["gone", "not json", "cut", "other"])
def test_a_damaged_report_is_named(run, tmp_path, damage):
    write_report(run, tmp_path, pictures=False)
    if damage == "gone":
        (tmp_path / "queries.csv").unlink()
    elif damage == "not json":
        (tmp_path / "report.json").write_text("{")
    elif damage == "other":
        (tmp_path / "report.json").write_text("{}")
    else:
        lines = (tmp_path / "queries.csv").read_text().splitlines()
        (tmp_path / "queries.csv").write_text("\n".join(lines[:-3]) + "\n")
    with pytest.raises(EvaluationError, match=str(tmp_path)):
        read_report(tmp_path)


def test_robustness_is_measured_on_the_same_images_at_every_severity(people, run):
    encoder = PersonEncoder(tiny_model(), tiny_processor(), batch_size=4)
    levels = severity_sweep((0.0, 0.5, 1.0))
    points = evaluate_robustness(encoder, people, severities=levels, progress=False)
    assert points[0].num_occluded == 0
    assert [point.num_occluded for point in points] == sorted(point.num_occluded for point in points)
    assert points[-1].num_occluded == len(people)
    assert points[0].metrics == pytest.approx(run.metrics.as_dict(), abs=0.1)
    assert points[0].metrics != points[-1].metrics
    assert points == evaluate_robustness(encoder, people, severities=levels, progress=False)
    assert evaluate_robustness(encoder, divided(people), severities=levels[:1], progress=False)[0].num_occluded == 0


def test_robustness_of_late_interaction_is_referred_to_occluded_copies(people):
    sizes = {"vocab_size": 200, "max_position_embeddings": MAX_TEXT_LENGTH}
    late = PersonEncoder(build_mgcc(MGCCModel, text_config=sizes), tiny_processor())
    with pytest.raises(QueryError, match="reid-zoo occlude"):
        evaluate_robustness(late, people, progress=False)
