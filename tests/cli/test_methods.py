"""`tenuto methods`: everything that it says comes from the methods themselves."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tenuto.cli.main import app
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.explained import explain


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_method_explains_itself(name: str) -> None:
    told = explain(REGULARIZERS[name])
    assert told["summary"].endswith((".", ":"))
    assert told["about"].startswith("    "), "a formula"
    assert all(told[word] and not told[word].startswith(" ") for word in ("paper", "cost", "avoid"))
    assert all(info["about"] for info in told["settings"].values())


def test_listed_explained_and_as_data() -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["methods"])
    assert listed.exit_code == 0
    assert "cached_prior" in listed.stdout
    one = runner.invoke(app, ["methods", "prior_prediction"])
    assert "f_base(x_t, t, c)" in one.stdout
    assert "arXiv:2410.14159" in one.stdout
    assert set(json.loads(runner.invoke(app, ["methods", "--json"]).stdout)) == set(REGULARIZERS)
    wrong = runner.invoke(app, ["methods", "nonsense"])
    assert wrong.exit_code == 1
