"""Draw the picture of the report: ``python docs/figures/draw.py [runs/report.html]``.

Needs Chromium, its driver and the extra ``dev``. Run ``make demo`` first.
"""

import shutil
import sys
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

SIZE = (1200, 1500)


def main(page: str = "runs/report.html") -> None:
    """Open a page and keep what its first screen shows.

    Args:
      page: the report.
    """
    path = Path(page).resolve()
    if not path.is_file():
        raise SystemExit(f"{path}: expected the report; `make demo` writes it")
    options = ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    # Without a driver selenium looks for one on the network.
    browser = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.set_window_size(*SIZE)
        browser.get(path.as_uri())
        target = Path(__file__).with_name("report.png")
        if not browser.save_screenshot(str(target)):
            raise SystemExit(f"{target}: could not be written")
    finally:
        browser.quit()
    print(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
