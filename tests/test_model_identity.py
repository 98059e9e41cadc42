"""Identity of a model: what it says and how it is kept."""

from __future__ import annotations

import json

import pytest

from reid_zoo.model_identity import ModelIdentity


def test_an_identity_survives_json() -> None:
    identity = ModelIdentity("org/model", None, "cfine", 512, "abc")
    assert ModelIdentity.from_dict(json.loads(json.dumps({**identity.to_dict(), "later": 1}))) == identity
    with pytest.raises(KeyError):
        ModelIdentity.from_dict({"name": "x"})
    assert "at revision v2" in ModelIdentity("org/model", "v2", "cfine", 512, "abc").describe()
