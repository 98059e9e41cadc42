from __future__ import annotations

import builtins

import numpy as np
import pytest
from PIL import Image

from reid_zoo.errors import EvaluationError, MissingPackageError
from reid_zoo.evaluation.confidence import ScoreSamples
from reid_zoo.evaluation.figures import plot_cmc, plot_features, plot_robustness, plot_scores

CURVE = np.array([50.0, 70.0, 80.0])


def test_every_plot_is_a_picture(tmp_path):
    generator = np.random.default_rng(0)
    samples = ScoreSamples(generator.normal(1, 1, 100).astype("f"), generator.normal(0, 1, 500).astype("f"))
    features, people = generator.normal(size=(24, 6)), np.repeat(np.arange(6), 4).tolist()
    paths = [
        plot_cmc({"a": CURVE, "b": CURVE + 5}, tmp_path / "new" / "cmc.png"),
        plot_scores(samples, tmp_path / "scores.png", threshold=0.7),
        plot_robustness({"R1": ([0, 50], [80, 60])}, tmp_path / "robustness.png", xlabel="occluded (%)"),
        plot_features(features, people, tmp_path / "features.png", num_persons=4),
    ]
    for path in paths:
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1_000_000)) > 10
    assert plot_cmc({"a": CURVE}, tmp_path / "cmc.pdf").read_bytes().startswith(b"%PDF")


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(EvaluationError, match="no curve"):
        plot_cmc({}, tmp_path / "cmc.png")
    with pytest.raises(EvaluationError, match="no curve"):
        plot_robustness({}, tmp_path / "cmc.png", xlabel="")
    with pytest.raises(EvaluationError, match="name the plot as a picture"):
        plot_cmc({"a": CURVE}, tmp_path / "cmc.word")
    with pytest.raises(EvaluationError, match="two persons"):
        plot_features(np.eye(3), ["a", "a", "b"], tmp_path / "features.png")


def test_missing_packages_are_named_with_their_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("matplotlib", "sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"matplotlib: pip install 'reid-zoo\[report\]'"):
        plot_cmc({"a": CURVE}, tmp_path / "a.png")
    with pytest.raises(MissingPackageError, match=r"scikit-learn: pip install 'reid-zoo\[report\]'"):
        plot_features(np.eye(4), ["a", "a", "b", "b"], tmp_path / "a.png")
