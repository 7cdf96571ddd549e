"""Run checks that need eight devices one after another in this process.

usage: eight_devices_server.py   with
``XLA_FLAGS=--xla_force_host_platform_device_count=8``. Reads a line of JSON a job,
``[program, arguments...]``, the program beside this file with a `main`; answers each
with a line: an empty string where it held, else its traceback.
"""

import importlib.util
import json
import sys
import traceback
import warnings
from pathlib import Path

import jax


def run(program: str, *arguments: str) -> None:
    """Load a program and call its `main`."""
    path = Path(__file__).with_name(program)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*arguments)


if __name__ == "__main__":
    assert jax.device_count() == 8
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a check prints is no answer
    for line in sys.stdin:
        fault = ""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                run(*json.loads(line))
            except BaseException:
                fault = traceback.format_exc()
        print(json.dumps(fault), file=answers, flush=True)
