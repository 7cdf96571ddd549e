"""Test that a full disk loses nothing kept, is named, and stops no later command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "programs" / "full_disk.py"
# What the message names, and what may be left.
CASES = {
    "a_checkpoint": (r"/saved: the checkpoint could not be written \(no space", []),
    "a_training": (r"/run/checkpoints/4: the checkpoint .* \(no space", ["2"]),
    "a_log": r"/metrics\.jsonl: the row of step \d+ could not be written \(No space",
    "a_result": r"/result\.json: could not be written \(No space",
    "a_new_run": r"/config\.json: could not be written \(No space",
    # Without a config.json, so that nobody takes it for whole.
    "a_merged_model": (r"/merged.*[Nn]o space", ["merged"]),
}


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs"]
    try:
        made = subprocess.run(
            ["mount", *options, folder], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if made.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk(small_disk, tiny_chat_model):
    """In a process of its own: a failed write leaves threads and event loops."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(small_disk), str(tiny_chat_model)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert set(found) == set(CASES)
    for case, expected in CASES.items():
        words, left = expected if isinstance(expected, tuple) else (expected, [])
        assert re.search(words, found[case]["message"]), found[case]
        assert found[case]["left"] == left, found[case]
        assert found[case]["goes_on"], found[case]
