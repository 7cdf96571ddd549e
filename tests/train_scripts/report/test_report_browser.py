"""Test the report offline in headless Chromium, at desktop and phone width."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from train_scripts import report
from train_scripts.running import results
from train_scripts.running.results import Claim, Result

pytest.importorskip("selenium", reason="selenium is not installed (extra: dev)")

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no chromium with chromedriver (apt-get install chromium-driver)",
    ),
]
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
HOSTILE = "</script><script>window.ran=1</script><img src=x onerror='window.ran=1'>"
WIDTHS = (1280, 390)
ACCURACY, GAP = [85.04, 84.26, 82.5], [0.17, 0.0912, 0.02]
WOMEN = [10.0, 15.5, 20.0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser with a fresh profile, whose console is kept."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def explorer_document(text: str) -> dict[str, Any]:
    """Three levels, four readouts: two axes, a group's rate as a bar, a plain one."""

    def readout(unit: str, values: list[float], spread: float | None) -> dict[str, Any]:
        low = None if spread is None else [value - spread for value in values]
        high = None if spread is None else [value + spread for value in values]
        label = f"Readout {text}"
        return {
            "label": label,
            "unit": unit,
            "values": values,
            "low": low,
            "high": high,
        }

    ends = {"low_label": "accurate", "high_label": "fair"}
    plain = readout("", [1e-4, 5.0, 123456.0], None)
    axes = [readout("%", ACCURACY, 0.5), readout("", GAP, 0.01)]
    return {
        "title": f"Choose {text}",
        "slider": {"label": text, "values": [0.0, 0.35, 1.0], **ends},
        "readouts": [*axes, readout("%", WOMEN, 1.0), plain],
        "curve": {"x": 1, "y": 0, "x_label": text, "y_label": text},
        "references": [{"label": text, "x": 0.16, "y": 85.2}],
    }


def make_page(runs: Path, text: str) -> Path:
    """A report over one run whose texts are all ``text``, and over a broken one."""
    run = runs / "yodo" / "20250101-000000-demo"
    metrics = {f"{text}/a_metric_with_quite_a_long_name_of_its_own": 0.5}
    claims = (Claim(text, text, text, True), Claim("w" * 90, text, text, False))
    versions = {text: text}
    results.write(Result("yodo", text, 0, text, 2.0, versions, metrics, claims), run)
    command = f"python -m train_scripts run yodo demo {text} " + "--field value " * 9
    config = {"command": command, "config": {"field": text}}
    (run / "config.json").write_text(json.dumps(config))
    (run / "explorer.json").write_text(json.dumps(explorer_document(text)))
    broken = runs / "gre" / "20250101-000000-demo"
    broken.mkdir(parents=True)
    (broken / "result.json").write_text(json.dumps({text: 1}))
    system = SimpleNamespace(
        name="yodo", title=text, paper=text, summary=text, own=text
    )
    return report.build(runs, systems={"yodo": system})


def opened(browser: Chrome, page: Path, width: int, scheme: str = "light") -> None:
    """Open a page at a width; a phone's is set through the devtools protocol."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1}
    size["mobile"] = width < 500
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser")
    browser.get(page.as_uri())


def texts(browser: Chrome, selector: str) -> list[str]:
    """The text of every element that a selector finds."""
    return [found.text for found in browser.find_elements(By.CSS_SELECTOR, selector)]


def marker(browser: Chrome) -> list[float]:
    """Position of the chart's marker in the units of the view box."""
    moved = browser.find_element(By.CSS_SELECTOR, ".chart > svg .marker")
    place = str(moved.get_attribute("transform"))
    return [float(part) for part in place[len("translate(") : -1].split()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("text", ["Demographic parity", HOSTILE], ids=["plain", "bad"])
def test_layout_and_console(
    browser: Chrome, tmp_path: Path, width: int, text: str
) -> None:
    """No message in the console, no sideways scroll, and no text that runs."""
    opened(browser, make_page(tmp_path, text), width)
    for details in browser.find_elements(By.TAG_NAME, "summary"):
        details.click()
    script = "return document.documentElement.scrollWidth - window.innerWidth"
    assert browser.execute_script(script) <= 0
    assert browser.execute_script("return window.ran") is None
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert text in texts(browser, ".claims td")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_slider_by_keyboard(browser: Chrome, tmp_path: Path, width: int) -> None:
    """Keys move the slider through its levels; every number and the marker follow."""
    page = make_page(tmp_path, "Level")
    opened(browser, page, width)
    slider = browser.find_element(By.CSS_SELECTOR, "input[type=range]")
    expected = {
        Keys.HOME: ("0", ["85.0%", "0.17", "10.0%", "0.0001"]),
        Keys.ARROW_RIGHT: ("0.35", ["84.3%", "0.0912", "15.5%", "5"]),
        Keys.END: ("1", ["82.5%", "0.02", "20.0%", "123500"]),
    }
    places = []
    for key, (level, values) in expected.items():
        slider.send_keys(key)
        assert texts(browser, ".slider output") == [level]
        assert texts(browser, ".readout .value") == values
        assert str(slider.get_attribute("aria-valuetext")).startswith(f"{level}: ")
        places.append(marker(browser))
    spreads = ["82.0% to 83.0%", "0.01 to 0.03", "19.0% to 21.0%"]
    assert texts(browser, ".spread") == spreads
    assert places[0][0] > places[1][0] > places[2][0]
    assert places[0][1] < places[1][1] < places[2][1]
    points = browser.find_element(By.CSS_SELECTOR, "polyline").get_attribute("points")
    line = [[float(n) for n in point.split(",")] for point in str(points).split()]
    assert places == line
    assert browser.get_log("browser") == []


def test_slider_by_input_event(browser: Chrome, tmp_path: Path) -> None:
    """Dragging, which sends input events, shows the level and the bar's length."""
    opened(browser, make_page(tmp_path, "Level"), 1280)
    browser.execute_script(
        "const slider = document.querySelector('input'); slider.value = 2;"
        "slider.dispatchEvent(new Event('input'))"
    )
    assert texts(browser, ".readout .value")[0] == "82.5%"
    share = browser.execute_script(
        "const box = (name) => document.querySelector(name).getBoundingClientRect();"
        "return box('.fill').width / box('.track').width"
    )
    assert share == pytest.approx(WOMEN[2] / 100, abs=0.01)


def test_dark_scheme(browser: Chrome, tmp_path: Path) -> None:
    """The page follows the reader's colour scheme."""
    page = make_page(tmp_path, "Level")
    script = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for scheme in ("light", "dark"):
        opened(browser, page, 1280, scheme)
        red = str(browser.execute_script(script)).strip("rgb()").split(",")[0]
        seen.append(int(red))
    assert seen[0] > 200 and seen[1] < 60


def test_reads_without_script(browser: Chrome, tmp_path: Path) -> None:
    """Without JavaScript the tables and the chart are there, the slider is not."""
    page = make_page(tmp_path, "Level")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, page, 390)
        assert "✗ does not hold" in texts(browser, ".claims td")
        assert browser.find_element(By.TAG_NAME, "polyline").is_displayed()
        assert not browser.find_element(By.TAG_NAME, "input").is_displayed()
        assert "needs JavaScript" in texts(browser, "noscript")[0]
    finally:
        browser.execute_cdp_cmd(
            "Emulation.setScriptExecutionDisabled", {"value": False}
        )
