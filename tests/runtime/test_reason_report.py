"""The report of a review, as a browser shows it that has no network; and the clip that a critic is shown."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldrt.engine.errors import BackendError, InputError
from worldrt.runtime.reason import report as report_module
from worldrt.runtime.reason.answers import parse
from worldrt.runtime.reason.clip import chosen, read_clip
from worldrt.runtime.reason.critic import Review
from worldrt.runtime.reason.report import report
from worldrt.runtime.sinks.base import VideoFormat, open_sink

ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
FOUND = f"""<think><overview>A block slides. {ATTACK}</overview>
<component name="block {ATTACK.replace("<", "&lt;").replace('"', "&quot;")}">
<analysis>It turns red. {ATTACK}</analysis><anomaly>Yes</anomaly>
<box start="1.0" end="2.0" left="250" top="500" right="500" bottom="750">{ATTACK}</box></component>
<component name="floor"><analysis>Steady.</analysis><anomaly>No</anomaly></component></think><answer>Yes</answer>"""
ANSWERS = (FOUND, "<answer>No</answer>", "<answer>No</answer>", f"{ATTACK} I see nothing")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A real film: 49 frames at 16 a second, in which a block moves."""
    path = tmp_path_factory.mktemp("film") / "film_seed3.mp4"
    y, x = np.mgrid[0:176, 0:320]
    with open_sink(str(path), VideoFormat(320, 176, 16)) as write:
        for i in range(49):
            frame = np.stack([x // 2, y, np.full_like(x, 90)], -1).astype(np.uint8)
            frame[80:120, 4 * i : 4 * i + 40] = (230, 60, 60) if i > 20 else (230, 200, 60)
            write(frame)
    return read_clip(path)


def until(page, condition):
    """Wait for it from outside: the page's policy lets no text be run inside."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(condition)


@pytest.fixture(scope="module")
def page(clip, tmp_path_factory):
    """The report in headless Chromium, offline; `requests` and `errors` are what it asked for and complained of."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    place = tmp_path_factory.mktemp("report") / "report.html"
    html = report(clip, Review(tuple(map(parse, ANSWERS)), {}), [("prompt", f"a block {ATTACK}"), ("seed", "3")])
    place.write_text(html, encoding="utf-8")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=flags)
        shown = browser.new_context(offline=True, viewport={"width": 1000, "height": 900}).new_page()
        shown.requests, shown.errors = [], []
        shown.on("request", lambda request: shown.requests.append(request.url))
        shown.on("pageerror", lambda error: shown.errors.append(str(error)))
        shown.on("console", lambda message: shown.errors.append(message.text))
        shown.goto(place.as_uri())
        until(shown, "document.querySelector('video').readyState >= 2")
        yield shown
        browser.close()


def test_it_opens_offline_and_asks_for_nothing(page):
    outside = [url for url in page.requests if not url.startswith(("file:", "data:"))]
    assert outside == [] and page.errors == []


def test_hostile_texts_are_shown_and_not_run(page):
    assert page.title() == "film_seed3.mp4: 67%"
    assert page.locator("script").count() == 1 and page.locator("img").count() == 0
    for place in (".about", "#trial-1 article p", "#trial-1 article h3", "#trial-1 figcaption", "#trial-1 pre"):
        assert "<script>" in page.locator(place).first.text_content(), place


def test_a_script_that_slipped_in_would_not_run(page):
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    script = "const s = document.createElement('script'); s.textContent = 'document.title=1'; document.body.append(s)"
    page.evaluate(script)
    page.wait_for_timeout(100)
    assert page.title() == "film_seed3.mp4: 67%"
    assert any("Content Security Policy" in text for text in page.errors)
    page.errors.clear()


def test_counts_and_trials_are_there(page):
    counts = [text.strip() for text in page.locator(".counts dd").all_text_contents()]
    assert counts == ["67%", "2", "1", "1"]
    verdicts = page.locator(".trial .verdict").all_text_contents()
    assert verdicts == ["anomaly", "nothing wrong", "nothing wrong", "no verdict"]
    assert page.locator("#trial-1 article").count() == 2 and page.locator("#trial-4 details[open]").count() == 1


def test_the_video_plays_and_its_boxes_follow_the_time(page):
    assert page.evaluate("[video.videoWidth, video.videoHeight, Math.round(video.duration * 16)]") == [320, 176, 49]
    shown = page.locator("#overlay .box:not([hidden])")
    assert shown.count() == 0
    page.locator("button[data-seek]").first.click()
    until(page, "video.currentTime > 0.9 && !video.seeking")
    assert shown.count() == 1 and abs(page.evaluate("video.currentTime") - 1.0) < 0.01
    video, box = page.locator("video").bounding_box(), shown.locator("rect").bounding_box()
    assert abs(box["x"] - (video["x"] + video["width"] / 4)) < 3 and abs(box["width"] - video["width"] / 4) < 4
    assert abs(box["y"] - (video["y"] + video["height"] / 2)) < 3 and abs(box["height"] - video["height"] / 4) < 4
    page.locator("#trial").select_option("2")
    assert shown.count() == 0
    page.locator("#trial").select_option("all")
    page.evaluate("video.currentTime = 2.5")
    until(page, "video.currentTime > 2.4 && !video.seeking")
    assert shown.count() == 0


def test_the_frame_with_the_box_is_the_one_in_its_middle(page, clip):
    """Read back from the pixels of the screenshot: the block is red after frame 20, and the box goes from 1 to 2 s."""
    figure = page.locator("#trial-1 figure svg").first
    figure.screenshot(path=(place := Path(clip.path).with_name("figure.png")))
    from PIL import Image

    picture = np.asarray(Image.open(place).convert("RGB"), int)
    height, width = picture.shape[:2]
    middle = picture[round(height * 100 / 176), round(width * (4 * 24 + 20) / 320)]  # of the block at 1.5 s
    assert np.abs(middle - (230, 60, 60)).max() < 30


def test_it_is_readable_on_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("video").bounding_box()["width"] <= 360
    page.set_viewport_size({"width": 1000, "height": 900})


def test_a_review_without_boxes_or_verdicts_has_a_report_too(clip):
    html = report(clip, Review(tuple(map(parse, ("", "?"))), {}))
    assert "no verdict" in html and "(empty)" in html and 'id="line"' not in html


def test_many_boxes_do_not_swell_the_report(clip):
    box = '<box left="0" top="0" right="500" bottom="500">x</box>'
    html = report(clip, Review((parse(f'<component name="c">{box * 150}</component><answer>Yes</answer>'),), {}))
    assert html.count("image/jpeg") == 60 and html.count('<g class="box') == 150 + 60


def test_a_critic_that_sees_faults_everywhere_costs_no_more_than_others(clip):
    box = '<box left="0" top="0" right="500" bottom="500">x</box>'
    answer = "".join(f'<component name="c">{box * 8}</component>' for _ in range(200)) + "<answer>Yes</answer>"
    start = time.perf_counter()
    html = report(clip, Review(tuple(parse(answer) for _ in range(20)), {}))
    assert time.perf_counter() - start < 20 and html.count('<g class="box') == 1000 + 60
    assert "The first 1000 of 32000 boxes are shown" in html


def test_letters_that_turn_or_pile_up_do_not_leave_their_place(page, clip, tmp_path):
    piled = "z" + "\u0301\u0489" * 80
    answer = parse(f'<overview>{piled}</overview><component name="a&#x202e;b"><anomaly>No</anomaly></component>')
    named = tmp_path / "a\u202egnp.mp4"
    shutil.copy(clip.path, named)
    (tmp_path / "report.html").write_text(report(replace(clip, path=named), Review((answer,), {})), encoding="utf-8")
    other = page.context.new_page()
    other.set_viewport_size({"width": 360, "height": 740})
    other.goto((tmp_path / "report.html").as_uri())
    assert other.title() == "a gnp.mp4: no verdict"
    assert other.evaluate("document.documentElement.scrollWidth") <= 360
    assert other.locator("h3 bdi").text_content() == "a\u202eb"
    other.close()


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(report_module.importlib, "import_module", absent)
    with pytest.raises(BackendError, match=r"pip install 'worldrt\[critic\]'"):
        report_module.available()


def test_a_clip_is_shown_as_the_official_script_shows_it(clip):
    assert clip.frames.shape == (48, 176, 320, 3) and clip.duration_s == 49 / 16
    assert clip.fps == pytest.approx(16 * 48 / 49)


@pytest.mark.parametrize(
    ("total", "rate", "count"),
    [(93, 16, 92), (61, 10, 60), (1, 16, 1), (2, 16, 2), (3, 16, 2), (5, 24, 4), (481, 24, 320)],
)  # fmt: skip
def test_frames_are_spread_over_the_clip(total, rate, count):
    numbers = chosen(total, rate)
    assert len(numbers) == count and numbers[0] == 0 and numbers[-1] == (total - 1 if count > 1 else 0)
    assert len(set(numbers)) == count and max(np.diff(numbers), default=1) - min(np.diff(numbers), default=1) <= 1


def test_large_frames_are_shrunk_to_what_the_model_reads(tmp_path):
    with open_sink(str(tmp_path / "large.mp4"), VideoFormat(1280, 704, 16)) as write:
        for i in range(4):
            write(np.full((704, 1280, 3), 40 * i + 20, np.uint8))
    clip = read_clip(tmp_path / "large.mp4")
    height, width = clip.frames.shape[1:3]
    assert width % 28 == height % 28 == 0 and width * height <= 768 * 28 * 28 and width > 1000
    assert [abs(int(frame.mean()) - 40 * i - 20) <= 2 for i, frame in enumerate(clip.frames)] == [True] * 4


def test_files_that_are_no_video_are_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("not a film")
    (tmp_path / "empty.mp4").touch()
    for name in ("text.mp4", "empty.mp4", "absent.mp4"):
        with pytest.raises(InputError, match=name):
            read_clip(tmp_path / name)
