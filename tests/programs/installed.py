"""Install the wheel in an empty environment, and run the tests from outside the tree.

``python tests/programs/installed.py --python python3.13 --packages newest`` builds the
wheel, makes an environment with that Python, installs the wheel and what the tests need
at their newest versions, or at the least that pyproject.toml allows (``floors``),
copies tests, scripts and configurations into another folder, and runs pytest there: the
three packages can then only come from the wheel. Words after ``--`` go to pytest. Needs
uv.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What the tests read beside the packages.
BESIDE = (
    "tests",
    "train_scripts",
    "configs",
    "benchmarks",
    "notebooks",
    "docs",
    "requirements",
    "Makefile",
    "ARCHITECTURE.md",
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "pyproject.toml",
)
# What reads the sources of the three packages, which lie elsewhere here.
OF_THE_TREE = (
    "tests/test_architecture.py",
    "tests/test_dependencies.py",
    "tests/test_security.py",
    "tests/test_vocabulary.py",
    "tests/test_docs.py::test_no_page_needs_a_script_from_elsewhere",
)
EXTRAS = ("graph", "scripts", "llm", "serve", "anomaly", "bio", "dev")
SHOWN = ("jax", "flax", "optax", "orbax-checkpoint", "jraph", "chex", "numpy", "scipy")


def main() -> int:
    """Build, install, run.

    Returns:
      The exit status of pytest.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--packages", choices=("newest", "floors"), default="newest")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("words", nargs="*", help="for pytest")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="jeff-installed-"))
    folder.mkdir(parents=True, exist_ok=True)
    environment = folder / "environment"
    python = environment / "bin" / "python"
    # What an earlier build left there would be packed too.
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    run("uv", "build", "--wheel", "--out-dir", folder / "wheel", ROOT)
    (wheel,) = (folder / "wheel").glob("*.whl")
    run(
        "uv",
        "venv",
        "--quiet",
        "--clear",
        "--seed",
        "--python",
        given.python,
        environment,
    )
    # The least of what jeff itself names; their own dependencies may be newer.
    resolution = "lowest-direct" if given.packages == "floors" else "highest"
    install = ("uv", "pip", "install", "--quiet", "--python", python)
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    run(*install, "--resolution", resolution, "-r", ROOT / "pyproject.toml", *extras)
    run(*install, "--no-deps", wheel)
    run("uv", "pip", "freeze", "--python", python, into=folder / "versions.txt")
    for line in (folder / "versions.txt").read_text().splitlines():
        if line.partition("==")[0] in SHOWN:
            print(line)
    outside = folder / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    for name in BESIDE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, outside / name)
    words = given.words or ["tests"]
    left = [f"--deselect={each}" for each in OF_THE_TREE]
    command = [str(python.absolute()), "-m", "pytest", *left, *words]
    print(*command, flush=True)
    return subprocess.run(command, cwd=outside, check=False).returncode


def run(*words: object, into: Path | None = None) -> None:
    """Run a command, which must succeed.

    Args:
      *words: the command.
      into: file that takes what it prints.
    """
    done = subprocess.run(
        list(map(str, words)), check=True, capture_output=into is not None
    )
    if into is not None:
        into.write_bytes(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
