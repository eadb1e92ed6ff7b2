"""The report as a browser shows it: everything drawn, and nothing said on the console."""

import re
import subprocess

import pytest
from headless_browser import BROWSER, MISSING

pytestmark = pytest.mark.skipif(BROWSER is None, reason=MISSING)

# What the page adds to itself here, to tell how wide each picture came out.
PROBE = """<script>window.addEventListener("load", () => {
  const sizes = [...document.images].map(picture => picture.naturalWidth).join(" ");
  document.body.insertAdjacentHTML("beforeend", `<p id="probe">${sizes} ${document.documentElement.scrollWidth}</p>`);
});</script>"""


def opened(page, folder):
    """The page after loading, and what was said on the console."""
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
        "--window-size=900,900", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def report(balanced, data, tmp_path_factory):
    """The page of one evaluation."""
    from typer.testing import CliRunner

    from gconv_ga.cli._app import app

    folder = tmp_path_factory.mktemp("report")
    typed = ["evaluate", "--run", str(balanced["EquivariantUNet"]), *data, "--out", str(folder)]
    assert CliRunner().invoke(app, typed).exit_code == 0
    return folder / "report.html"


def test_the_page_opens_without_a_word_on_the_console(report, tmp_path):
    shown, said = opened(report, tmp_path)
    assert said == []
    assert shown.count("<tr>") > 10
    assert "Worst image" in shown


def probed(page, folder):
    """The widths of the pictures as they came, and of the page."""
    probe = folder / "probed.html"
    probe.write_text(page.replace("</body>", f"{PROBE}</body>"))
    shown, said = opened(probe, folder)
    assert said == []
    *pictures, width = map(int, re.search(r'id="probe">([\d ]+)<', shown)[1].split())
    return pictures, width


def test_every_picture_is_drawn_and_nothing_sticks_out(report, tmp_path):
    pictures, width = probed(report.read_text(), tmp_path)
    assert len(pictures) == 5
    assert min(pictures) > 300
    assert width <= 900


def test_a_picture_that_is_missing_is_caught(report, tmp_path):
    """The browser says nothing of it on the console."""
    page = re.sub(r'src="data:image/png;base64,[^"]+"', 'src="absent.png"', report.read_text(), count=1)
    pictures, _ = probed(page, tmp_path)
    assert min(pictures) == 0


@pytest.mark.parametrize(
    "broken", ["<script>console.error('broken')</script>", "<script>nowhere()</script>"], ids=["error", "exception"]
)
def test_a_broken_page_is_caught(broken, report, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text(report.read_text().replace("</body>", f"{broken}</body>"))
    assert len(opened(page, tmp_path)[1]) == 1


CLICK = """<script>window.addEventListener("load", () => {
  const table = document.querySelectorAll(".sortable")[2], title = table.rows[0].cells[CELL];
  for (let click = 0; click < CLICKS; click++) title.click();
  const column = [...table.rows].slice(1).map(row => row.cells[CELL].textContent).join(" ");
  document.body.insertAdjacentHTML("beforeend", `<p id="column">${column}</p>`);
});</script>"""


@pytest.mark.parametrize("clicks", [1, 2])
@pytest.mark.parametrize("cell", [0, 1])
def test_a_click_on_a_title_sorts(cell, clicks, report, tmp_path):
    script = CLICK.replace("CELL", str(cell)).replace("CLICKS", str(clicks))
    (tmp_path / "sorted.html").write_text(report.read_text().replace("</body>", f"{script}</body>"))
    shown, said = opened(tmp_path / "sorted.html", tmp_path)
    assert said == []
    column = [float(value) for value in re.search(r'id="column">([\d. ]+)<', shown)[1].split()]
    assert len(set(column)) == 4
    assert column == sorted(column, reverse=clicks == 2)
