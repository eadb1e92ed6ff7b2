"""The page in a real browser: keys are pressed, counters are read, and the console says nothing."""

import shutil
from pathlib import Path

import pytest
from headless_browser import BROWSER, MISSING, Page

import gconv_ga.images
from gconv_ga.play import play_page

pytestmark = pytest.mark.skipif(BROWSER is None, reason=MISSING)

IDLE = "document.body?.dataset.state === 'idle'"
SAMPLE = Path(gconv_ga.images.__file__).parent / "sample"


def count(page, role):
    return page.evaluate(f"Number(document.getElementById('count-{role}').dataset.count)")


def wait_for(page, degrees):
    page.wait(f"{IDLE} && document.body.dataset.done === '{degrees}'")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("play") / "play.html"
    path.write_text(play_page(), encoding="utf-8")
    return path


@pytest.fixture
def page(file, tmp_path):
    with Page(file.as_uri(), tmp_path) as opened:
        opened.wait(IDLE)
        yield opened
        assert opened.said == []


def test_slider_and_buttons_by_keyboard(page):
    """The slider is the first stop of the Tab key, the buttons are the next."""
    assert (count(page, "ours"), count(page, "baseline")) == (0, 0)
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "angle"
    for _ in range(30):
        page.press("ArrowRight")
    wait_for(page, 30)
    assert page.evaluate("document.getElementById('angle-value').textContent") == "30°"
    assert count(page, "ours") > 0, "between multiples of 90 degrees nothing is exact"
    for _ in range(2):
        page.press("Tab")
    page.press("Enter")
    wait_for(page, 90)
    assert count(page, "ours") == 0
    assert count(page, "baseline") > 0
    assert page.evaluate("document.getElementById('count-ours').textContent").startswith("0 of 11,304 labels")


def test_mistakes_taps_and_images_by_keyboard(page):
    page.evaluate("document.querySelector('button[data-angle=\"90\"]').click()")
    wait_for(page, 90)
    for mistake in ("direction", "inverse", "shift"):
        page.evaluate(f"document.getElementById('break-{mistake}').focus()")
        page.press(" ")
        page.wait(f"{IDLE} && Number(document.getElementById('count-ours').dataset.count) > 20")
        page.press(" ")
        page.wait(f"{IDLE} && document.getElementById('count-ours').dataset.count === '0'")
    page.evaluate("document.querySelector('input[name=tap]:checked').focus()")
    page.press("ArrowLeft")
    page.wait(f"{IDLE} && document.getElementById('title-ours').textContent.includes('m = 3')")
    assert count(page, "ours") == 0
    page.evaluate("document.querySelector('input[name=image]:checked').focus()")
    page.press("ArrowRight")
    page.wait(IDLE)
    assert (count(page, "ours"), page.evaluate("document.querySelector('input[name=image]:checked').value")) == (0, "1")


def test_curve_fills_in(page):
    rows = "document.querySelectorAll('#table tr').length"
    assert page.evaluate(rows) == 2, "the head, and the upright image"
    page.evaluate("document.getElementById('sweep').click()")
    page.wait(f"{rows} >= 6")
    page.evaluate("document.getElementById('sweep').click()")
    page.wait(IDLE)
    circles = page.evaluate("document.querySelectorAll('svg circle.ours').length")
    assert circles == page.evaluate(rows), "a dot for each angle, and one in the legend"


def test_lifted_maps_change_places(page):
    page.evaluate("document.querySelector('button[data-angle=\"90\"]').click()")
    page.wait("document.getElementById('map-words-0').textContent.endsWith('270°')")
    assert page.evaluate("document.getElementById('map-words-1').textContent") == "the map that was at 0°"
    difference = "Number(document.getElementById('average-note').dataset.difference)"
    assert page.evaluate(difference) < 1e-5
    # Held upright, a map looks as it did before: the one at 90 degrees as that at 0 degrees of the upright image.
    page.evaluate("document.querySelector('button[data-angle=\"0\"]').click()")
    page.wait("document.getElementById('map-words-1').textContent.endsWith(' 90°')")
    pixels = "document.getElementById('map-{}').toDataURL()"
    upright = page.evaluate(pixels.format(0))
    page.evaluate("document.querySelector('button[data-angle=\"90\"]').click()")
    page.wait("document.getElementById('map-words-1').textContent.endsWith(' 0°')")
    assert page.evaluate(pixels.format(1)) != upright
    page.evaluate("document.getElementById('upright').click()")
    page.wait(f"{pixels.format(1)} === {upright!r}")
    page.evaluate("document.getElementById('break-inverse').click()")
    page.wait(f"{difference} > 1e-2")


def test_file_of_ones_own(page, tmp_path):
    shutil.copy(SAMPLE / "histology" / "images" / "00.png", tmp_path / "mine.png")
    (tmp_path / "text.png").write_text("no picture")
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    field = page.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(tmp_path / "mine.png")], nodeId=field)
    page.wait(f"{IDLE} && document.getElementById('image').getAttribute('aria-label').startsWith('mine.png')")
    page.call("DOM.setFileInputFiles", files=[str(tmp_path / "text.png")], nodeId=field)
    page.wait("document.getElementById('file-note').textContent.includes('cannot read text.png')")


@pytest.mark.parametrize(("width", "dark"), [(1200, True), (360, False)], ids=["desktop, dark", "phone, light"])
def test_page_is_read_without_colour_and_fits(width, dark, file, tmp_path):
    with Page(file.as_uri(), tmp_path, width=width, height=800, dark=dark, phone=width < 500) as page:
        page.wait(IDLE)
        page.evaluate("document.querySelector('button[data-angle=\"90\"]').click()")
        wait_for(page, 90)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        grey = """[...document.querySelectorAll('canvas')].every((canvas) => {
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return data.every((value, at) => at % 4 === 3 || value === data[at - (at % 4)]);
        })"""
        assert page.evaluate(grey)
        assert page.evaluate("document.querySelectorAll('canvas').length") == 16
        # The two curves differ in dash and mark.
        dash = "getComputedStyle(document.querySelector('svg path.{}')).strokeDasharray"
        assert page.evaluate(dash.format("baseline")) != page.evaluate(dash.format("ours")) == "none"
        assert page.evaluate("document.querySelectorAll('svg rect.baseline').length") == 3
        nameless = """[...document.querySelectorAll('input, button, canvas')].filter((each) =>
          !each.labels?.length && !each.textContent.trim() && !each.getAttribute('aria-label')).length"""
        assert page.evaluate(nameless) == 0
        assert page.said == []


@pytest.mark.parametrize("broken", ["console.error('broken')", "nowhere()", "setTimeout(() => nowhere())"])
def test_broken_page_is_caught(broken, file, tmp_path):
    html = tmp_path / "broken.html"
    html.write_text(file.read_text(encoding="utf-8").replace("</body>", f"<script>{broken}</script></body>"))
    with Page(html.as_uri(), tmp_path) as page:
        page.wait(IDLE)
        assert len(page.said) == 1
