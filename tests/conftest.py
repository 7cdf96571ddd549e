"""Fixtures and defaults of the whole suite."""

import os

# One platform and quiet logs, so that warnings-as-errors means our own warnings.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if os.environ["JAX_PLATFORMS"] != "cpu":
    # GPUs would take float32 products in TF32, three digits short of the tolerances.
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

import jax
import pytest

from jeff import assets

# Programs are run by tests, some with peers that may be missing; they hold no tests.
collect_ignore = ["programs"]


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Drop compiled programs: Linux lets a process map no more than 65,530 pieces."""
    yield
    jax.clear_caches()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def adult_path():
    try:
        return assets.find("adult")
    except FileNotFoundError as error:
        pytest.skip(f"Adult is not here: {error}")
