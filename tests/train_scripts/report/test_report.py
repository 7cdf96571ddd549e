"""Test the report without a browser: choice of runs, escaping, broken files."""

import dataclasses
import html
import json
import os
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from train_scripts import report
from train_scripts.report import page as page_of
from train_scripts.running import results
from train_scripts.running.results import Claim, Result

HOSTILE = "</script></style><img src=x onerror=alert(1)>\"'&{{ 7*7 }}"


@dataclasses.dataclass(frozen=True)
class System:
    """A stand-in for an entry of the registry."""

    name: str
    title: str
    paper: str = "A paper, 2025"
    summary: str = "What it does."
    own: str = "python -m train_scripts.name --data FILE"


SYSTEMS = {
    "yodo": System("yodo", "YODO"),
    "gre": System("gre", "GRE"),
    "selfref": System("selfref", "Self-REF"),
}


def png() -> bytes:
    """A white picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\x00\xff"))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + pixels + chunk(b"IEND", b"")


def explorer_document(text: str = "Text") -> dict[str, Any]:
    """A valid ``explorer.json`` of three levels whose every label is ``text``."""
    spread = {"low": [80.0, 79.0, 78.0], "high": [86.0, 85.0, 84.0]}
    accuracy = {"label": text, "unit": "%", "values": [85.0, 84.0, 82.0], **spread}
    gap = {"label": text, "unit": "", "values": [0.17, 0.1, 0.02]}
    ends = {"low_label": text, "high_label": text}
    return {
        "title": text,
        "slider": {"label": text, "values": [0.0, 0.5, 1.0], **ends},
        "readouts": [accuracy, {**gap, "low": None, "high": None}],
        "curve": {"x": 1, "y": 0, "x_label": text, "y_label": text},
        "references": [{"label": text, "x": 0.16, "y": 85.2}],
    }


def make_run(runs: Path, system: str, run: str, text: str = "A claim") -> Path:
    """Write a whole run whose every text is ``text``."""
    folder = runs / system / run
    claims = (Claim(text, text, text, True), Claim(text, text, text, False))
    result = Result(system, text, 0, text, 2.0, {text: text}, {text: 0.123456}, claims)
    results.write(result, folder)
    config = {"command": text, "config": {text: text}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "explorer.json").write_text(json.dumps(explorer_document(text)))
    (folder / "accuracy_against_level.png").write_bytes(png())
    return folder


def built(runs: Path, systems: dict[str, Any] = SYSTEMS) -> str:
    """The page over a folder of runs."""
    return report.build(runs, systems=systems).read_text(encoding="utf-8")


def test_undecided_claims_and_what_decides_them(tmp_path: Path) -> None:
    """A claim that the run is too small for is neither held nor failed."""
    folder = make_run(tmp_path, "yodo", "20250101-000000-demo", "demo")
    path = folder / results.FILE_NAME
    result = results.read(path)
    claims = (*result.claims, dataclasses.replace(result.claims[0], holds=None))
    results.write(dataclasses.replace(result, claims=claims), folder)
    page = built(tmp_path)
    assert "1 holds, 1 does not hold, 1 too small to tell" in page
    assert 'class="undecided">? too small to tell' in page
    assert "<code>python -m train_scripts run yodo full</code> decides" in page
    full = dataclasses.replace(result, claims=claims, preset="full")
    results.write(full, folder)
    assert "run yodo full</code> decides" not in built(tmp_path)
    # A run on data of one's own is not decided by another run on ours.
    own = dataclasses.replace(result, claims=claims, preset="file")
    results.write(own, make_run(tmp_path, "yodo", "20250103-000000-file", "file"))
    page = built(tmp_path)
    assert "20250103-000000-file" in page and "1 too small to tell" in page
    assert "run yodo full</code> decides" not in page


def test_a_page_while_systems_run(tmp_path: Path) -> None:
    """It is there before the first result, and names what runs and what failed."""
    page = report.build(
        tmp_path, systems=SYSTEMS, running=["yodo"], failed={"gre": "<b>no data</b>"}
    ).read_text()
    assert "<strong>Still running:</strong> yodo" in page
    assert "<strong>gre failed:</strong> &lt;b&gt;no data" in page
    make_run(tmp_path, "yodo", "20250101-000000-demo", "A claim")
    assert "Still running" not in built(tmp_path)


class Tags(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self, page: str) -> None:
        """Parse ``page``."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        self.tags.append((tag, dict(attrs)))


def test_whole_page(tmp_path: Path) -> None:
    """The page shows claims, numbers, command, versions, plot and explorer."""
    make_run(tmp_path, "yodo", "20250101-000000-demo", "A claim")
    page = built(tmp_path)
    assert not list(tmp_path.glob(".*"))
    shown = [
        "1 holds, 1 does not hold",
        "✓ holds",
        "✗ does not hold",
        "0.1235",
        "2.0 s",
        "A paper, 2025",
    ]
    for text in [*shown, 'alt="Accuracy against level"', "<polyline"]:
        assert text in page


def test_out_argument(tmp_path: Path) -> None:
    """The page can be written elsewhere."""
    make_run(tmp_path / "runs", "yodo", "20250101-000000-demo")
    out = tmp_path / "elsewhere" / "page.html"
    assert report.build(tmp_path / "runs", out, systems=SYSTEMS) == out
    assert out.is_file() and not (tmp_path / "runs" / "report.html").exists()


def test_hostile_text_is_escaped_everywhere(tmp_path: Path) -> None:
    """Text from files adds no tag and no attribute to those of a harmless page."""
    safe, bad = tmp_path / "safe", tmp_path / "bad"
    make_run(safe, "yodo", "20250101-000000-demo", "harmless")
    folder = make_run(bad, "yodo", "20250101-000000-demo", HOSTILE)
    (folder / "accuracy_against_level.png").rename(
        folder / "<img src=x onerror=alert(1)>.png"
    )
    system = {"yodo": System("yodo", HOSTILE, HOSTILE, HOSTILE, HOSTILE)}
    page = built(bad, system)
    plain = built(safe, {"yodo": System("yodo", "YODO")})
    shape = [(tag, sorted(attributes)) for tag, attributes in Tags(page).tags]
    assert shape == [(tag, sorted(attributes)) for tag, attributes in Tags(plain).tags]
    assert "<img src=x" not in page and page.count("</script>") == 2
    assert (
        html.escape(HOSTILE, quote=False).replace('"', "&#34;").replace("'", "&#39;")
        in page
    )


def test_hostile_explorer_survives_as_data(tmp_path: Path) -> None:
    """The embedded JSON gives back the labels letter for letter."""
    make_run(tmp_path, "yodo", "20250101-000000-demo", HOSTILE)
    data = re.search(r'<script type="application/json">(.*?)</script>', built(tmp_path))
    assert data and json.loads(data[1])["explorer"] == explorer_document(HOSTILE)


def test_hostile_problems_are_escaped(tmp_path: Path) -> None:
    """Error boxes quote the file's text, also text that UTF-8 cannot hold."""
    folder = make_run(tmp_path, "yodo", "20250101-000000-demo")
    whole = json.loads((folder / "result.json").read_text())
    whole["metrics"] = {HOSTILE + "\ud800": "x"}
    (folder / "result.json").write_text(json.dumps(whole))
    page = built(tmp_path)
    assert "Could not be read" in page and "<img" not in page


def test_self_contained(tmp_path: Path) -> None:
    """Nothing is loaded from anywhere, and the policy forbids that it could be."""
    make_run(tmp_path, "yodo", "20250101-000000-demo")
    page = built(tmp_path)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page.split("<body>")[0])
    for tag, attributes in Tags(page).tags:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value)
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in page


def test_newest_run_is_shown(tmp_path: Path) -> None:
    """Runs sort by name; the newest valid one is shown and others are noted."""
    make_run(tmp_path, "yodo", "20250101-000000-demo", "from January")
    make_run(tmp_path, "yodo", "20250301-000000-demo", "from March")
    make_run(tmp_path, "yodo", "20250201-000000-full", "from February")
    (tmp_path / "yodo" / "20250401-000000-demo").mkdir()
    page = built(tmp_path)
    assert "from March" in page
    assert "from January" not in page and "from February" not in page
    assert "stopped early: 20250401-000000-demo." in page


def test_a_run_dated_in_the_future_does_not_hide_newer_ones(tmp_path: Path) -> None:
    """A run cannot have begun after its result was written."""
    old = make_run(tmp_path, "yodo", "20990101-000000-demo", "wrong clock")
    os.utime(old / "result.json", (1.6e9, 1.6e9))
    make_run(tmp_path, "yodo", "20250301-000000-demo", "from March")
    page = built(tmp_path)
    assert "from March" in page and "wrong clock" not in page


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    "name", ["x.png", "config.json", "explorer.json", "reasons.json", "result.json"]
)
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    make_run(tmp_path, "yodo", "20250101-000000-demo", "older")
    run = make_run(tmp_path, "yodo", "20250301-000000-demo", "from March")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    page = html.unescape(built(tmp_path))
    assert ("older" if name == "result.json" else "from March") in page
    # The others may be absent, and a pipe counts as no file.
    told = f"{run / name}: expected" in page
    assert told == (name in ("x.png", "config.json"))


def test_a_huge_plot_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, "yodo", "20250301-000000-demo", "from March")
    with (run / "x.png").open("wb") as file:
        file.truncate(10**10)
    page = built(tmp_path)
    assert "from March" in page and "x.png: expected a PNG image of at most" in page


def test_broken_newest_run_is_boxed_and_an_older_one_shown(tmp_path: Path) -> None:
    """A broken result hides neither itself nor the run before it."""
    make_run(tmp_path, "yodo", "20250101-000000-demo", "older")
    broken = make_run(tmp_path, "yodo", "20250201-000000-demo") / "result.json"
    broken.write_text('{"system": "yo')
    make_run(tmp_path, "gre", "20250201-000000-demo", "another")
    page = built(tmp_path)
    assert f"{broken}: expected valid JSON" in page
    assert "older" in page and "another" in page


def test_only_a_broken_run(tmp_path: Path) -> None:
    """A system all of whose runs are broken still has its section."""
    folder = make_run(tmp_path, "yodo", "20250101-000000-demo")
    (folder / "result.json").write_text("[]")
    page = built(tmp_path)
    assert "no readable result" in page and "expected an object" in page


def test_result_of_another_system(tmp_path: Path) -> None:
    """A result in the wrong folder is an error, not a result."""
    make_run(tmp_path, "yodo", "20250101-000000-demo")
    (tmp_path / "yodo").rename(tmp_path / "gre")
    page = html.unescape(built(tmp_path))
    assert "system: expected the folder's 'gre', came 'yodo'" in page


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", b"{}", "command: expected this field"),
        ("config.json", None, "came no file"),
        ("accuracy_against_level.png", b"GIF89a", "expected a PNG image"),
        ("explorer.json", b"{", "expected valid JSON"),
        ("explorer.json", b"\xff", "expected valid JSON"),
    ],
)
def test_other_broken_files(
    file: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    """Any other file may be broken; the claims are shown all the same."""
    path = make_run(tmp_path, "yodo", "20250101-000000-demo") / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    page = built(tmp_path)
    assert says in page and str(path) in page and "✓ holds" in page


def test_huge_explorer_numbers_do_not_crash(tmp_path: Path) -> None:
    """A range that overflows is a problem of that explorer alone."""
    folder = make_run(tmp_path, "yodo", "20250101-000000-demo")
    document = explorer_document()
    document["readouts"][1]["values"] = [-1.7e308, 0.0, 1.7e308]
    (folder / "explorer.json").write_text(json.dumps(document))
    page = built(tmp_path)
    assert "Could not be read" in page and "✓ holds" in page


def test_no_runs(tmp_path: Path) -> None:
    """Nothing to report names the folder and the command that helps."""
    for runs in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match="python -m train_scripts demo"):
            report.build(runs, systems=SYSTEMS)
    assert list(tmp_path.iterdir()) == []


def test_systems_without_runs_are_named(tmp_path: Path) -> None:
    """The page says how to run each of them, and names none that has a run."""
    make_run(tmp_path, "yodo", "20250101-000000-demo")
    page = built(tmp_path)
    run = "<code>python -m train_scripts run"
    assert (
        f"Not run yet: GRE ({run} gre</code>), Self-REF ({run} selfref</code>)." in page
    )


def test_unregistered_system_and_stray_files(tmp_path: Path) -> None:
    """A folder that the registry lacks is shown by its name; strays are ignored."""
    make_run(tmp_path, "mine", "20250101-000000-demo")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    page = built(tmp_path)
    assert '<h2 id="mine-title">mine</h2>' in page and "empty" not in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.123456, "0.1235"), (45222.0, "45,220"), (-1.5e-7, "-1.5e-07")],
)
def test_four_figures(value: float, text: str) -> None:
    """Numbers are shown to four significant digits."""
    assert page_of._figures(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.97, "1 min 00 s"), (161, "2 min 41 s"), (7320, "2 h 02 min")],
)
def test_duration(seconds: float, text: str) -> None:
    """A time is shown in seconds, minutes or hours."""
    assert page_of._duration(seconds) == text
