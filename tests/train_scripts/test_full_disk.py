"""Test that a full disk loses nothing kept, is named, and stops no later command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "programs" / "full_disk.py"
NAMED = r"could not be written \(No space"
# What the message names.
CASES = {
    "a_checkpoint": r"/saved: the checkpoint could not be written \(no space",
    "a_training": r"/run/checkpoints/6: the checkpoint .* \(no space",
    "a_log": rf"/metrics\.jsonl: the row of step \d+ {NAMED}",
    "a_result": rf"/result\.json: {NAMED}",
    "a_new_run": rf"/config\.json: {NAMED}",
    "a_table": rf"/table\.md: {NAMED}",
    "a_report": rf"/report\.html: {NAMED}",
    "a_plot": rf"/plot\.png: {NAMED}",
    "a_router": rf"/router\.json: {NAMED}",
    "a_tokenizer": rf"/tokenizer/tokenizer\.json: {NAMED}",
    "an_asset": rf"/data\.bin: {NAMED}",
    "adapters_of_lora": rf"/adapters/adapter_model\.safetensors: {NAMED}",
    "a_detector": rf"/detector.*safetensors: {NAMED}",
    "a_merged_model": rf"/merged.* {NAMED}",
    "a_compiled_program": r"Error writing persistent compilation cache entry.*No space",
}
# Earlier checkpoints, and a model without config.json, which nobody takes for whole.
LEFT = {"a_training": ["2", "4"], "a_merged_model": ["merged"]}


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
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


@pytest.fixture(scope="module")
def found(small_disk, tiny_chat_model):
    """In a process of its own: a failed write leaves threads and event loops."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(small_disk), str(tiny_chat_model)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
def test_every_case_is_expected(found):
    assert found.keys() == CASES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_full_disk(found, case):
    """It is named, what was kept stays, and the same call goes on with room."""
    assert re.search(CASES[case], found[case]["message"]), found[case]
    assert found[case]["left"] == LEFT.get(case, []), found[case]
    assert found[case]["goes_on"], found[case]
