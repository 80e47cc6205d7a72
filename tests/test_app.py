"""The playground in a browser: type, move a slider, see another text; nothing that is typed is markup."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from training_fixtures import adapted, byte_tokenizer, llama_classifier, randomised, save_backbone, trained_toy

from style_adapter import OFF, gates_of, pipeline
from style_adapter.app.changes import cards, changes, marked
from style_adapter.inference import Choice
from style_adapter.model import style_map

SLIDE = """const [box, level] = arguments; box.value = level;
for (const kind of ['input', 'change', 'blur', 'pointerup']) box.dispatchEvent(new Event(kind, {bubbles: true}))"""

# Where styles lie


def test_distances_on_the_map_of_three_styles_are_those_of_their_gates():
    model = randomised(adapted(styles=["a", "b", "c"]))
    found, gates = style_map(model), gates_of(model)
    whole = {name: torch.cat([*layers.values()]) for name, layers in gates.items()}
    for one, two in (("a", "b"), ("b", "c"), ("a", "c")):  # three points always lie in a plane
        here, there = (torch.tensor(found.points[name]) for name in (one, two))
        torch.testing.assert_close((here - there).norm(), (whole[one] - whole[two]).norm())


def test_a_mixture_lies_between_its_styles_and_off_is_a_place_too():
    found = style_map(randomised(adapted()))
    (ax, ay), (bx, by) = found.points.values()
    bank = adapted().styles
    x, y = found.place(0.25 * bank["loud"] + 0.75 * bank["calm"])
    assert (x, y) == pytest.approx((0.25 * ax + 0.75 * bx, 0.25 * ay + 0.75 * by), abs=1e-5)
    assert found.place(OFF) == pytest.approx(found.place(0 * bank["loud"]))


def test_a_single_style_has_a_map():
    assert style_map(randomised(adapted(styles=["a"]))).points == {"a": (0.0, 0.0)}


# Which words changed


@pytest.mark.parametrize(
    ("source", "output"), [("a b c d", "a x c"), ("", "a b"), ("a b", ""), ("a a b", "b a a"), ("same", "same")]
)
def test_changes_give_both_texts_back(source, output):
    found = [*changes(source, output)]
    assert " ".join(words for kind, words in found if kind != "insert") == source
    assert " ".join(words for kind, words in found if kind != "delete") == output


def test_no_text_becomes_markup():
    class Tags(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.found.append(tag)

    evil = '<script>alert(1)</script> "><img src=x onerror=alert(1)> &lt;b&gt;'
    for html, tags in (
        (marked("a", evil), {"del", "ins"}),
        (marked(evil, "b"), {"del", "ins"}),
        (cards(evil, [Choice(evil, 1.0)], rewrites=True), {"section", "article", "p", "small"}),
        (cards("", [Choice(evil, 1.0)], rewrites=False), {"section", "article", "p", "small"}),
    ):
        parser = Tags()
        parser.found = []
        parser.feed(html)
        assert {*parser.found} == tags


# The page


def test_an_adapter_that_sorts_texts_has_no_page():
    pytest.importorskip("gradio")
    from style_adapter.app import build_page

    classifier = randomised(adapted(llama_classifier(), task_type="SEQ_CLS"))
    with pytest.raises(ValueError, match="task='classification' must be transfer or generation for a page"):
        build_page(pipeline(classifier, byte_tokenizer()))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; skips where it or its driver is missing."""
    selenium = pytest.importorskip("selenium.webdriver")
    pytest.importorskip("gradio")
    chrome, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chrome and driver):
        pytest.skip("chromium and chromium-driver are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = chrome
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1000"):
        options.add_argument(argument)
    window = selenium.Chrome(options, selenium.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """Where `style-adapter app` serves the toy, learnt by heart, until it is interrupted."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("app")
    save_backbone(folder)
    trained_toy(folder / "run").style_model.save_pretrained(folder / "<b>toy")
    command = [sys.executable, "-m", "style_adapter", "app", str(folder / "<b>toy"), "--base", str(folder / "base")]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("http://127.0.0.1:")
        yield line.split()[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


@pytest.fixture
def page(browser, address) -> Any:
    """The page, freshly loaded."""
    browser.get(address)
    until(lambda: browser.find_elements("css selector", "#text textarea"))
    return browser


def until(found: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What is found, as soon as it is there."""
    end = time.monotonic() + seconds
    while True:
        if result := found():
            return result
        assert time.monotonic() < end, "the page does not come to show it"
        time.sleep(0.1)


def typed(page: Any, place: str, text: str) -> None:
    """Types into a field, in place of what it holds, and presses Enter."""
    field = page.find_element("css selector", f"{place} textarea, {place} input")
    field.clear()
    field.send_keys(text, "\ue007")


def texts(page: Any) -> list[str]:
    """The candidates as a person reads them, without what is struck out."""
    script = """return [...document.querySelectorAll('#candidates .text')].map(p => {
        const copy = p.cloneNode(true); copy.querySelectorAll('del').forEach(d => d.remove());
        return copy.textContent.trim()})"""
    return page.execute_script(script)


def test_a_text_is_rewritten_and_a_moved_slider_gives_another(page):
    field = page.find_element("css selector", "#text textarea")
    field.send_keys("ab")
    page.find_element("css selector", "#go").click()
    until(lambda: texts(page)[:1] == ["AB!"])
    assert page.find_elements("css selector", "#map img, #map canvas, #map svg")
    for number, level in ((0, "0"), (1, "1")):  # loud down, calm up
        slider = page.find_element("css selector", f"#style-{number} input[type=number]")
        page.execute_script(SLIDE, slider, level)
    mixture = page.find_element("css selector", "#mixture input, #mixture textarea")
    until(lambda: mixture.get_attribute("value") == "calm")
    until(lambda: texts(page)[:1] == ["ab."])


def test_a_mixture_may_be_typed_and_moves_the_sliders(page):
    page.find_element("css selector", "#text textarea").send_keys("cde")
    typed(page, "#mixture", "calm")
    until(lambda: texts(page)[:1] == ["cde."])
    levels = [page.find_element("css selector", f"#style-{i} input[type=number]") for i in (0, 1)]
    until(lambda: [float(level.get_attribute("value")) for level in levels] == [0.0, 1.0])


def test_a_mistake_is_told_on_the_page_as_text(page):
    typed(page, "#mixture", "calm + <img src=x onerror=alert(1)>")
    notice = until(lambda: page.find_elements("css selector", "#candidates .notice"))[0]
    assert "column 8" in notice.text
    assert not page.find_elements("css selector", "#candidates img")


def test_what_is_typed_is_shown_and_never_run(page):
    evil = "<img src=x onerror=\"document.title='run'\">"
    page.find_element("css selector", "#text textarea").send_keys(evil)
    page.find_element("css selector", "#go").click()
    until(lambda: texts(page))
    assert "img src" in page.find_element("css selector", "#candidates").text
    assert page.title != "run"
    assert not page.find_elements("css selector", "#candidates img, h1 b")
