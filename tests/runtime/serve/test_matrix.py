"""The page over a real session: the nano model of The Matrix in its queue, decoded as it goes."""

from __future__ import annotations

from contextlib import closing

import pytest

from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.recording import Recording
from worldrt.runtime.live.replay import check_model, read
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models

from ..live.conftest import nano_matrix, nano_matrix_bundle  # noqa: F401  # fixtures
from .client import served_in_thread
from .test_page import chromium, numbers, pages, until, until_drawn  # noqa: F401  # fixtures


@pytest.fixture
def session(nano_matrix):  # noqa: F811
    world = World(Models.open([nano_matrix]))
    with closing(Recording(None, world.facts())) as log:
        yield WorldSession(world, pace=PaceOptions(16.0), log=log)


def test_a_world_of_the_matrix_is_watched_steered_told_and_reset(pages, tmp_path, session):  # noqa: F811
    with served_in_thread(tmp_path, session) as (url, hub):
        page = pages(url)
        until_drawn(page)
        first = page.evaluate("document.getElementById('picture').toDataURL()")
        page.keyboard.down("a")
        until(page, "worldrt.numbers.answered >= 1")
        assert page.evaluate("document.getElementById('picture').toDataURL()") != first
        page.keyboard.up("a")
        until(page, "worldrt.numbers.answered >= 2")
        assert hub.metrics.latency_ms() is not None
        page.locator("#keep").click()
        page.get_by_text("Branch from 1").click()
        until_drawn(page)
        with page.expect_download() as download:
            page.locator("#replay").click()
        facts, scripts = read(download.value.path())
        check_model(facts, session.model)
        assert "DL" in scripts[-1].controls.values() and scripts[-1].frames > 0
        page.locator("#prompt").fill("A desert at night")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('prompt').placeholder === 'A desert at night'")
        page.locator("#reset").click()
        until_drawn(page)
        assert numbers(page)["state"]["state"] == "running"
