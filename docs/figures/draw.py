"""Draw the picture of the report: ``python docs/figures/draw.py [runs/report.html]``.

Needs Chromium, its driver and the extra ``dev``. Run ``make demo`` first.
"""

import sys
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions

SIZE = (1200, 900)


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
    browser = Chrome(options=options)
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
