"""The page in headless Chromium, over a toy world that answers at its next frame."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from worldrt.runtime.serve.access import make_access

from .client import served_in_thread
from .toy import GROUNDS, ToyWorld

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
PIXEL = """() => {
  const canvas = document.getElementById('picture');
  const data = canvas.getContext('2d').getImageData(canvas.width - 20, canvas.height - 20, 8, 8).data;
  return [data[0], data[1], data[2]];
}"""


@pytest.fixture(scope="module")
def chromium():
    place = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if place is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=place, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def pages(chromium):
    """Opens pages; none of them may complain."""
    contexts, errors = [], []

    def page(url, script=None, **options):
        context = chromium.new_context(**options)
        contexts.append(context)
        shown = context.new_page()
        shown.set_default_timeout(60000)
        shown.on("pageerror", lambda error: errors.append(str(error)))
        if script:
            shown.add_init_script(script)
        shown.goto(url)
        return shown

    yield page
    for context in contexts:
        context.close()
    assert errors == []


def numbers(page):
    return page.evaluate("worldrt.numbers")


def until(page, condition):
    """Polled from outside: the policy of the page forbids it to make code of text."""
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < end, (condition, numbers(page))
        time.sleep(0.02)


def until_ground(page, control):
    end = time.monotonic() + 60
    while max(abs(a - b) for a, b in zip(page.evaluate(PIXEL), GROUNDS[control], strict=True)) > 24:
        assert time.monotonic() < end, (control, page.evaluate(PIXEL), numbers(page))
        time.sleep(0.02)


def until_drawn(page, more=3):
    before = numbers(page)["drawn"]
    until(page, f"worldrt.numbers.drawn > {before + more}")


NO_WEBCODECS = "delete window.VideoDecoder"
NO_H264 = "VideoDecoder.isConfigSupported = async () => ({ supported: false })"


@pytest.mark.parametrize(("script", "kind"), [(None, "H.264"), (NO_WEBCODECS, "JPEG"), (NO_H264, "JPEG")])
def test_frames_change_and_a_key_changes_the_picture(pages, tmp_path, script, kind):
    world = ToyWorld()
    with served_in_thread(tmp_path, world) as (url, _):
        page = pages(url, script)
        until_drawn(page)
        assert page.locator("#kind").text_content() == kind
        until_ground(page, None)
        page.keyboard.down("w")
        until_ground(page, "D")
        page.keyboard.down("ArrowLeft")
        until_ground(page, "DL")
        page.keyboard.up("w")
        page.keyboard.up("ArrowLeft")
        until_ground(page, None)
        assert world.asked[0] == "D" and world.asked[-1] is None and set(world.asked) == {"D", "DL", None}
        assert page.locator("#status").text_content() == "running"
        until(page, "worldrt.numbers.latencies_ms.length >= 3")
        assert all(0 < latency < 60000 for latency in numbers(page)["latencies_ms"])
        until(page, "document.getElementById('latency').textContent.endsWith(' ms')")


def test_a_key_that_is_let_go_before_the_wheel_is_confirmed_does_not_stick(pages, tmp_path):
    world = ToyWorld()
    with served_in_thread(tmp_path, world) as (url, _):
        page = pages(url)
        until_drawn(page)
        page.evaluate(
            """for (const type of ['keydown', 'keyup']) dispatchEvent(new KeyboardEvent(type, {code: 'KeyW'}))"""
        )
        until(page, "worldrt.numbers.state.wheel === 'yours'")
        until_drawn(page)
        until_ground(page, None)
        assert world.asked[-1] is None


def test_keys_write_in_the_prompt_box_and_do_not_steer(pages, tmp_path):
    world = ToyWorld()
    with served_in_thread(tmp_path, world) as (url, _):
        page = pages(url)
        page.locator("#wheel").click()
        until(page, "worldrt.numbers.state.wheel === 'yours'")
        page.locator("#prompt").click()
        page.keyboard.type("a wads of <b>snow</b>")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('prompt').value === ''")
        assert world.prompts == ["a toy", "a wads of <b>snow</b>"] and world.asked == []
        until(page, "document.getElementById('prompt').placeholder.includes('<b>snow')")
        page.locator("#prompt").fill("refuse this")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('answer').textContent.includes('does not like it')")
        assert page.locator("#prompt").input_value() == "refuse this", "what was refused is not lost"


def test_stop_run_reset_and_record(pages, tmp_path):
    world = ToyWorld()
    with served_in_thread(tmp_path, world) as (url, _):
        page = pages(url)
        until(page, "worldrt.numbers.connected")
        assert page.locator("#run").is_disabled(), "only the driver may"
        page.locator("#wheel").click()
        page.locator("#record").click()
        until(page, "document.getElementById('notice').textContent.startsWith('recording 2')")
        until_drawn(page)
        page.locator("#record").click()
        until(page, "document.getElementById('notice').hidden")
        page.locator("#run").click()
        until(page, "document.getElementById('status').textContent === 'paused'")
        index = world.index
        page.locator("#reset").click()
        until(page, "!document.getElementById('reset').disabled")
        end = time.monotonic() + 60
        while world.index:
            assert time.monotonic() < end, index
        page.locator("#run").click()
        until_drawn(page)
    assert [file.suffix for file in (tmp_path / "recordings").iterdir()] == [".mp4"]


def test_two_watch_and_one_drives_and_hands_over(pages, tmp_path):
    with served_in_thread(tmp_path) as (url, _):
        first, second = pages(url), pages(url)
        for page in (first, second):
            until_drawn(page)
        first.keyboard.down("d")
        for page in (first, second):
            until_ground(page, "DR")
        second.keyboard.down("w")
        second.locator("#wheel").click()
        until(second, "worldrt.numbers.state.wheel === 'asked'")
        until(first, "document.getElementById('hint').textContent.includes('1 would like to')")
        until_ground(second, "DR")
        first.locator("#wheel").click()
        until(second, "worldrt.numbers.state.wheel === 'yours'")
        until_ground(first, None)
        second.keyboard.up("w")
        second.keyboard.down("a")
        for page in (first, second):
            until_ground(page, "DL")
        second.close()
        until(first, "worldrt.numbers.state.wheel === 'free' && worldrt.numbers.state.viewers === 1")
        until_ground(first, None)


def test_it_comes_back_when_the_server_does(pages, tmp_path):
    with served_in_thread(tmp_path) as (url, _):
        page = pages(url)
        until_drawn(page)
    until(page, "document.getElementById('status').textContent === 'connecting again'")
    assert page.locator("#run").is_disabled()
    time.sleep(0.5)
    with served_in_thread(tmp_path, port=int(url.rpartition(":")[2])):
        until_drawn(page, 5)
        page.keyboard.down("s")
        until_ground(page, "B")


def test_on_a_phone_nothing_sticks_out_and_fingers_drive(pages, tmp_path):
    with served_in_thread(tmp_path) as (url, _):
        page = pages(url, **PHONE)
        until_drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for box in [button.bounding_box() for button in page.locator("button:visible").all()]:
            assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 390, "as large as a finger"
        place = page.locator("[data-key=A]").bounding_box()
        page.mouse.move(place["x"] + 10, place["y"] + 10)
        page.mouse.down()
        until_ground(page, "DL")
        page.mouse.up()
        until_ground(page, None)
        page.locator("[data-key=W]").tap()
        page.set_viewport_size({"width": 740, "height": 360})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        pad, picture = page.locator("#pad").bounding_box(), page.locator("#picture").bounding_box()
        assert pad["y"] + pad["height"] <= 360 and pad["x"] >= picture["x"] + picture["width"], "both at once"
        if (folder := os.environ.get("WORLDRT_SCREENSHOTS")) is not None:
            page.screenshot(path=Path(folder) / "land.png")
            page.set_viewport_size(PHONE["viewport"])
            page.screenshot(path=Path(folder) / "phone.png")
            wide = pages(url)
            until_drawn(wide)
            wide.screenshot(path=Path(folder) / "wide.png")


def test_a_world_that_fails_is_told_of_in_plain_text(pages, tmp_path, capfd):
    from worldrt.engine.errors import InputError

    world = ToyWorld()
    with served_in_thread(tmp_path, world) as (url, _):
        page = pages(url)
        until_drawn(page)
        world.broken = InputError("<img src=x onerror=alert(1)> is no model")
        until(page, "document.getElementById('status').textContent === 'failed'")
        assert page.locator("#notice").text_content() == "<img src=x onerror=alert(1)> is no model"
        assert page.locator("#notice img").count() == 0
        page.locator("#wheel").click()
        page.locator("#run").click()
        until_drawn(page)


def test_the_token_is_asked_for_and_leaves_the_address(pages, tmp_path):
    access = make_access("0.0.0.0", "a-token-of-ours", ())
    with served_in_thread(tmp_path, access=access) as (url, _):
        page = pages(url)
        until(page, "!document.getElementById('token-form').hidden")
        page.locator("#token").fill("wrong")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('token').value === ''")
        until(page, "document.activeElement.id === 'token'")
        page.locator("#token").fill("a-token-of-ours")
        page.keyboard.press("Enter")
        until_drawn(page)
        assert page.locator("#token-form").is_hidden()
        given = pages(f"{url}/#token=a-token-of-ours")
        until_drawn(given)
        assert given.url == f"{url}/"


def test_a_decoder_that_fails_begins_again_with_a_key(pages, tmp_path):
    with served_in_thread(tmp_path) as (url, _):
        page = pages(
            url,
            """const decode = VideoDecoder.prototype.decode;
            let count = 0;
            VideoDecoder.prototype.decode = function (chunk) {
              count++;
              if (count === 5) this.close();
              const data = new Uint8Array(chunk.byteLength);
              const garbage = new EncodedVideoChunk({ type: chunk.type, timestamp: chunk.timestamp, data });
              decode.call(this, count === 10 ? garbage : chunk);
            };""",
        )
        until_drawn(page, 20)
        assert page.locator("#kind").text_content() == "H.264"


def test_it_asks_nobody_but_the_server(pages, tmp_path):
    with served_in_thread(tmp_path) as (url, _):
        page = pages(url)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        until_drawn(page)
        assert asked and all(address.startswith((url, "data:")) for address in asked), asked
