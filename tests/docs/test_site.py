"""The documentation as a site: no broken link, nothing from the internet, readable from a disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools.docs.blocks import ROOT

from tenuto.evaluation.metrics import METRICS
from tenuto.project.settings import Project
from tenuto.project.wording import settings_in
from tenuto.regularizers.catalogue import REGULARIZERS
from tests.web.browser import chromium, needs_chromium

REMOTE = re.compile(r"""<(?:script|link|img|iframe)[^>]*\s(?:src|href)=["']?(?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert REMOTE.findall(page.read_text(encoding="utf-8")) == [], page.name


def test_every_setting_method_and_metric_has_its_place(site: Path) -> None:
    def anchors(name: str) -> set[str]:
        return set(re.findall(r'id="([^"]+)"', (site / f"{name}.html").read_text(encoding="utf-8")))

    settings = anchors("settings")
    for section, info in Project.model_fields.items():
        inner = settings_in(info.annotation)
        for name, own in inner.model_fields.items() if inner else ():
            assert settings_in(own.annotation) or f"{section}.{name}" in settings, f"{section}.{name}"
    assert {"training.optimizer.prodigy.d0", "prior.sampler.steps", "regularizers.weight"} <= settings
    methods = anchors("methods")
    for name, method in REGULARIZERS.items():
        assert {name, *(f"{name}.{own}" for own in method.model_fields if own != "schedule")} <= methods
    assert METRICS.keys() <= anchors("metrics")
    assert "must be given" in (site / "settings.html").read_text(encoding="utf-8")


@needs_chromium
def test_it_is_searched_and_read_from_a_disk(site: Path) -> None:
    with chromium() as browser:
        browser.open((site / "index.html").as_uri())
        browser.write("input.md-search__input", "drift budget")
        browser.until(
            lambda: "drift budget" in browser.find(".md-search-result__item").text.casefold(), 30, "an answer"
        )
        entries = "return performance.getEntriesByType('resource').map(each => each.name)"
        assert [name for name in browser.run(entries) if not name.startswith("file:")] == []
        assert browser.complaints() == []
        browser.size(390, 844)
        for page in sorted(site.glob("*.html")):
            if page.name == "404.html":  # for servers: its links begin at the root
                continue
            browser.open(page.as_uri())
            assert browser.run("return document.documentElement.scrollWidth") <= 390, page.name
