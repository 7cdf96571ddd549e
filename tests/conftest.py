"""Shared fixtures and defaults of the test suite."""
# ruff: noqa: E402  (what JAX reads from the environment is set before its import)

import ctypes
import gc
import os
import socket
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

# Three quarters of the suite's time is the compiler's. Without the newer emitters of
# fusions, several threads a program and LLVM's optimiser it takes half as long, and
# means the same. An unknown flag ends the process, so only a version that knows them
# gets them.
_KNOWN = version("jaxlib").startswith("0.10.")
_PLAIN = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
_PLAIN = _PLAIN if _KNOWN else ""
_QUICK = f"{_PLAIN} --xla_backend_optimization_level=0" if _KNOWN else ""

# One platform and quiet logs, so that warnings-as-errors means our own warnings.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if os.environ["JAX_PLATFORMS"] != "cpu":
    # GPUs would take float32 products in TF32, three digits short of the tolerances.
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
elif _PLAIN and os.environ.get("XLA_FLAGS") is None:
    os.environ["XLA_FLAGS"] = _PLAIN

import hypothesis
import jax
import pytest

from jeff import assets

# Parsers are fuzzed at 50 examples, and at 300 by ``make test-long``.
hypothesis.settings.register_profile("short", max_examples=50)
hypothesis.settings.register_profile("long", max_examples=300)
hypothesis.settings.load_profile(os.environ.get("JEFF_EXAMPLES", "short"))


def pytest_configure(config: pytest.Config) -> None:
    """One cache of compiled programs for all workers, and what they start.

    It lies beside pytest's own cache, so that a second run compiles next to nothing.
    """
    os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", str(config.rootpath / ".pytest_cache" / "jax")
    )
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    for name, kind in (
        ("jax_compilation_cache_dir", str),
        ("jax_persistent_cache_min_compile_time_secs", float),
        ("jax_persistent_cache_min_entry_size_bytes", int),
    ):
        jax.config.update(name, kind(os.environ[name.upper()]))


# Files whose tests compute more than they compile: real models, and long examples.
_COMPUTING = ("test_docs", "test_kv_smollm2", "test_scaling", "test_smollm2")

# How what this process holds was compiled: "quick" or not.
_compiled: dict[str, bool] = {}

# Programs are run by tests, some with peers that may be missing; they hold no tests.
collect_ignore = ["programs"]


def pytest_sessionstart() -> None:
    """Start the backend."""
    jax.devices()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left alone with one at the end."""
    long = ("test_notebooks", "test_docs", "test_kv_smollm2", "test_smollm2")
    items.sort(
        key=lambda item: (
            not (item.path.stem in long or item.path.parent.name == "train_scripts")
        )
    )


def pytest_collection_finish() -> None:
    """Search for cycles seldom, and not in what was collected: it takes long."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@pytest.fixture(scope="module", autouse=True)
def forget_programs(request: pytest.FixtureRequest):
    """Drop compiled programs when they are many, or of the other kind."""
    quick = _KNOWN and request.path.stem not in _COMPUTING
    if _compiled.get("quick") != quick:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", quick)
        _compiled["quick"] = quick
    yield
    if sys.platform != "linux" or _is_full():
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _is_full() -> bool:
    """Whether this process maps too many pieces, or too much for a small machine.

    Linux allows 65,530 pieces, and each compiled program takes some.
    """
    pieces = Path("/proc/self/maps").read_bytes().count(b"\n")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pieces > 25_000 or pages * os.sysconf("SC_PAGE_SIZE") > 3 * 2**30


@pytest.fixture(scope="session")
def devices():
    """``devices(8)``: environment of a process with eight CPU devices, or one.

    It is for programs that compile more than they compute.
    """

    def environment(count: int = 1) -> dict[str, str]:
        flags = f"--xla_force_host_platform_device_count={count} {_QUICK}"
        return os.environ | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "XLA_FLAGS": flags.strip(),
        }

    return environment


@pytest.fixture(scope="session")
def two_processes(devices):
    """``two_processes(program, ...)``: outputs of two that join over loopback.

    Each is run as ``program NUMBER PORT ...`` with two CPU devices, and must end well;
    none is left behind.
    """

    def run(program: str | Path, *words: str | Path) -> list[str]:
        path = Path(__file__).parent / "programs" / program
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        both = [
            subprocess.Popen(
                [sys.executable, "-W", "error", path, str(number), port, *words],
                env=devices(2),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        try:
            ends = [process.communicate(timeout=240) for process in both]
        finally:
            for process in both:
                process.kill()
        for process, (_, errors) in zip(both, ends, strict=True):
            assert process.returncode == 0, errors[-3000:]
        return [output for output, _ in ends]

    return run


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def adult_path():
    try:
        return assets.find("adult")
    except FileNotFoundError as error:
        pytest.skip(f"Adult is not here: {error}")


@pytest.fixture
def serve(monkeypatch):
    """``serve(handler)``: a server over loopback; handlers append to ``seen``."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = False
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()
