"""Which pairs of data sets are warned about, and which are not."""

from __future__ import annotations

import warnings

import pytest

from reid_zoo.data.leakage import IdentityLeakageWarning, shared_image_sources, warn_about_leakage


@pytest.mark.parametrize(
    ("trained_on", "evaluated_on", "source"),
    [
        ("icfg-pedes", "rstpreid", "MSMT17"),
        ("rstpreid", "icfg-pedes", "MSMT17"),
        ("msmt17", "rstpreid", "MSMT17"),
        ("icfg-pedes", "msmt17", "MSMT17"),
        ("occluded-icfg-pedes", "rstpreid", "MSMT17"),
        ("cuhk-pedes", "market1501", "Market-1501"),
        ("dukemtmc-reid", "occluded-duke", "DukeMTMC"),
    ],
)
def test_sets_of_one_source_are_warned_about(trained_on: str, evaluated_on: str, source: str) -> None:
    with pytest.warns(IdentityLeakageWarning, match=f"both hold images of {source} under different splits"):
        assert warn_about_leakage(trained_on, evaluated_on) == (source,)


@pytest.mark.parametrize(
    ("trained_on", "evaluated_on"),
    [
        ("icfg-pedes", "icfg-pedes"),
        ("cuhk-pedes", "occluded-cuhk-pedes"),
        ("occluded-rstpreid", "rstpreid"),
        ("cuhk-pedes", "icfg-pedes"),
        ("veri-776", "vehicleid"),
        ("own", "own"),
        ("my-people", "rstpreid"),
    ],
)
def test_others_are_not(trained_on: str, evaluated_on: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_about_leakage(trained_on, evaluated_on) == ()
    assert shared_image_sources(evaluated_on, trained_on) == ()
