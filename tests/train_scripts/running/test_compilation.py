"""Test how short runs compile: quickly on a CPU, unless told otherwise."""

import os
import subprocess
import sys

import pytest

from train_scripts.running import compilation

FLAG = "--xla_backend_optimization_level=1"


@pytest.fixture
def no_accelerator(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(compilation, "entry_points", lambda group: ())
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda _: None)
    yield
    os.environ.pop("XLA_FLAGS", None)


def test_quickly_without_an_accelerator(no_accelerator):
    assert compilation.compile_quickly()
    assert os.environ["XLA_FLAGS"] == FLAG
    # The next system of a demo finds the flag that stands.
    assert not compilation.compile_quickly()
    assert os.environ["XLA_FLAGS"] == FLAG


def test_what_is_told_stands(no_accelerator, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert not compilation.compile_quickly()
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.parametrize("kind", ["plugin", "libtpu"])
def test_an_accelerator_compiles_in_full(no_accelerator, monkeypatch, kind):
    if kind == "plugin":
        monkeypatch.setattr(compilation, "entry_points", lambda group: (group,))
    else:
        monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: name)
    assert not compilation.compile_quickly()
    assert "XLA_FLAGS" not in os.environ


def test_the_flag_is_known_and_comes_in_time(devices):
    """After JAX is imported; an unknown flag would end the process."""
    program = (
        "import os, jax, jax.numpy as jnp\n"
        "from train_scripts.running import compilation\n"
        "compilation.entry_points = lambda group: ()\n"
        "assert compilation.compile_quickly()\n"
        "compiled = jax.jit(jnp.sin).lower(1.0).compile()\n"
        "print(float(compiled(1.0)))\n"
        "os.environ['XLA_FLAGS'] = '--xla_no_such_flag=1'\n"
        "print(float(jnp.cos(1.0)))\n"
    )
    environment = devices()
    del environment["XLA_FLAGS"]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [f"{float(x):.4f}" for x in done.stdout.split()] == ["0.8415", "0.5403"]
