"""The page in a browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from storm_edge.runtime.llm.generate import Generation
from storm_edge.server.page import Page

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install 'storm-edge[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
sync_api.expect.set_options(timeout=30_000)  # milliseconds
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails its test where anything is asked of elsewhere, or a script fails."""
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    page.on(
        "request", lambda asked: None if re.match(r"http://127|data:|blob:", asked.url) else wrong.append(asked.url)
    )
    yield page
    page.close()
    assert wrong == []


def test_it_loads_nothing_from_elsewhere_and_runs_only_its_own_script(served: Any) -> None:
    answer = httpx2.get(f"{served.url}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy == Page.read().policy
    assert not re.search(r"""(src|href)=["'](?!data:)|@import|url\(""", answer.text)


@in_browser
def test_a_clip_is_dropped_asked_about_and_asked_about_again(page: Any, served: Any, clips: list[Path]) -> None:
    page.goto(served.url)
    sync_api.expect(page.locator("#served")).to_contain_text("engine cpu-fp32")
    page.set_input_files("#file", clips[0])
    page.fill("#question", "What happens?")
    page.keyboard.press("Enter")
    first = page.locator("#turns > li").first
    sync_api.expect(first.locator(".soft")).to_contain_text("32 of 128 visual tokens kept (25%)")
    assert first.locator(".answer").inner_text()
    assert page.locator("#frames li").all_inner_texts()[:2] == ["0.00 s", "0.13 s"]
    assert page.locator("#frames img").first.evaluate("image => image.naturalWidth") == 64
    assert "vision" in first.locator(".legend").inner_text()
    page.fill("#question", "And then?")
    page.click("#send")
    second = page.locator("#turns > li", has_text="And then?")
    sync_api.expect(second.locator(".soft")).to_contain_text("known already")
    assert "vision" not in second.locator(".legend").inner_text()
    assert page.locator("#turns > li").count() == 2


@in_browser
def test_the_camera_is_watched_until_something_else_is_asked_about(page: Any, served: Any, clips: list[Path]) -> None:
    page.goto(served.url)
    page.fill("#count", "4")
    page.click("#watch")
    sync_api.expect(page.locator("#chosen")).to_have_text("The camera, live")
    streams = served.service.streams
    served.wait_until(lambda: any(stream.watch.counts[0] >= 4 for stream in streams.listed()))
    (stream,) = streams.listed()
    assert (stream.asked.fps, stream.asked.window) == (4, 4)
    page.fill("#question", "What happens?")
    page.click("#send")
    turn = page.locator("#turns > li").first
    sync_api.expect(turn.locator(".moment")).to_contain_text("about the last 4 frames")
    sync_api.expect(turn.locator(".legend")).to_contain_text("decode")
    before = stream.watch.counts[0]
    served.wait_until(lambda: stream.watch.counts[0] > before)  # it goes on behind the question
    page.set_input_files("#file", clips[0])
    sync_api.expect(page.locator("#chosen")).to_have_text(clips[0].name)
    served.wait_until(lambda: not streams.listed())
    page.click("#watch")
    served.wait_until(lambda: len(streams.listed()) == 1)
    page.click("#watch")
    served.wait_until(lambda: not streams.listed())
    sync_api.expect(page.get_by_role("alert")).to_be_hidden()


@in_browser
def test_what_went_wrong_is_said(page: Any, served: Any, root: Path) -> None:
    page.goto(served.url)
    page.fill("#question", "What happens?")
    page.click("#send")
    sync_api.expect(page.get_by_role("alert")).to_have_text("Choose a video first.")
    (root / "broken.mp4").write_bytes(b"no video")
    page.set_input_files("#file", root / "broken.mp4")
    sync_api.expect(page.get_by_role("alert")).to_be_hidden()
    page.click("#send")
    sync_api.expect(page.get_by_role("alert")).to_contain_text("not a video that can be read")
    sync_api.expect(page.locator("#send")).to_be_enabled()


@in_browser
def test_a_key_is_asked_for_where_there_is_one(page: Any, serve: Callable[..., Any]) -> None:
    page.goto(serve(keys=("k" * 32,)).url)
    sync_api.expect(page.get_by_role("alert")).to_contain_text("API key")
    page.fill("#key", "k" * 32)
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#served")).to_contain_text("engine cpu-fp32")
    sync_api.expect(page.locator("#key-form")).to_be_hidden()


@in_browser
def test_an_answer_is_stopped_by_its_button_or_by_another_video(
    page: Any, served: Any, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Generation.__next__

    def slow(generation: Generation) -> str:
        time.sleep(0.1)  # so that there is time to stop it
        return step(generation)

    monkeypatch.setattr(Generation, "__next__", slow)
    page.goto(served.url)
    page.set_input_files("#file", clips[1])
    page.fill("#question", "What happens?")
    page.click("#send")
    for waits in ("#send", "#watch", "#camera"):
        sync_api.expect(page.locator(waits)).to_be_disabled()
    page.click("#stop")
    for waits in ("#send", "#watch", "#camera"):
        sync_api.expect(page.locator(waits)).to_be_enabled()
    served.wait_until(lambda: served.scheduler.count == 0)
    page.click("#send")
    page.set_input_files("#file", clips[0])
    sync_api.expect(page.locator("#send")).to_be_enabled()
    served.wait_until(lambda: served.scheduler.count == 0)
    assert page.locator("#turns > li").count() == 0


@in_browser
def test_it_is_used_by_keyboard_alone(page: Any, served: Any, clips: list[Path]) -> None:
    page.goto(served.url)
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["file", "watch", "camera", "count", "question", "send", "goes-on"]


@in_browser
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_out_of_the_window_and_words_can_be_read(
    browser: Any, served: Any, clips: list[Path], width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(served.url)
    page.set_input_files("#file", clips[0])
    page.fill("#question", "What happens?" + "long" * 40)
    page.click("#send")
    sync_api.expect(page.locator("#turns .soft")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrast = page.evaluate(CONTRAST)
    assert min(contrast.values()) >= 4.5, contrast
    page.close()


CONTRAST = """() => {
  const bright = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(value => value / 255)
      .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = node => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? ground(node.parentElement) : colour;
  };
  const found = {};
  for (const name of ["h1", "#served", ".soft", ".asked", ".answer", ".legend li", "#frames li", "#send", "#camera"]) {
    const node = document.querySelector(name);
    const [low, high] = [bright(getComputedStyle(node).color), bright(ground(node))].sort((a, b) => a - b);
    found[name] = (high + 0.05) / (low + 0.05);
  }
  return found;
}"""
