"""Write the notebooks from their sources, and run them.

``write`` makes each ``notebooks/NAME.ipynb`` from ``notebooks/NAME.py``, a program in
jupytext's percent format, which linters and reviews can read. ``time`` runs notebooks
at their own settings, one after the other, each in a kernel of its own::

    python tests/programs/notebooks.py write
    python tests/programs/notebooks.py time [NAME ...]
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

FOLDER = Path(__file__).parents[2] / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# A cell's warning is an error; what the kernel itself warns of is not the notebook's.
STRICT = """
import warnings

for event, action in {"pre_run_cell": "error", "post_run_cell": "ignore"}.items():
    get_ipython().events.register(
        event, lambda _, action=action: warnings.simplefilter(action)
    )
"""
COLOURS = re.compile(r"\x1b\[[\d;]*m")
# A cell that takes longer hangs.
SECONDS = 600


def from_source(path):
    """The notebook of a source: cells named by their places, no outputs."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"{number:02d}", {}
    return notebook


def as_text(notebook):
    """The file of a notebook."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def with_settings(notebook, settings):
    """The notebook with other values of settings, each a line of its own in it."""
    changed = nbformat.from_dict(notebook)
    for name, value in settings.items():
        count = 0
        for cell in changed.cells:
            cell.source, found = re.subn(
                rf"^{name} = .*$", f"{name} = {value!r}", cell.source, flags=re.M
            )
            count += found
        assert count == 1, f"{name}: expected one line that sets it, got {count}"
    return changed


def run(notebook, name, folder, **environment):
    """Execute a notebook in a new kernel; a warning is an error.

    Args:
      notebook: the notebook.
      name: names it in errors.
      folder: where it runs, and where Jupyter keeps its own files.
      environment: variables of the kernel beside those of this process.

    Returns:
      The notebook with outputs.

    Raises:
      RuntimeError: if a cell fails; names the notebook and the cell.
    """
    done = nbformat.from_dict(notebook)
    work, own = folder / "work", folder / "jupyter"
    work.mkdir()
    environment = os.environ | {
        "IPYTHONDIR": str(own),
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **environment,
    }
    client = NotebookClient(
        done,
        kernel_name="python3",
        timeout=SECONDS,
        resources={"metadata": {"path": str(work)}},
    )
    strict = nbformat.v4.new_code_cell(STRICT, id="strict")
    done.cells.insert(0, strict)
    # Its connection file and history would go into the home of who runs this.
    files = mock.patch.dict(os.environ, JUPYTER_RUNTIME_DIR=str(own))
    with files, client.setup_kernel(env=environment):
        for number, cell in enumerate(done.cells):
            try:
                client.execute_cell(cell, number)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                text = COLOURS.sub("", str(error))
                raise RuntimeError(f"{name}, cell {cell.id}: {text}") from None
    done.cells.pop(0)
    left = [path.name for path in work.iterdir()]
    assert not left, f"{name} leaves files behind: {left}"
    return done


def printed(notebook):
    """What all cells of an executed notebook print."""
    return "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def main():
    """Write all notebooks, or time some."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("write", "time"))
    parser.add_argument("names", metavar="NAME", nargs="*")
    given = parser.parse_args()
    sources = sorted(FOLDER.glob("*.py"))
    names = given.names or [path.stem for path in sources]
    if unknown := set(names) - {path.stem for path in sources}:
        parser.error(f"NAME: expected notebooks, got {sorted(unknown)}")
    for name in names:
        notebook = from_source(FOLDER / f"{name}.py")
        if given.command == "write":
            (FOLDER / f"{name}.ipynb").write_text(as_text(notebook))
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            run(notebook, name, Path(folder))
        sys.stdout.write(f"| {name} | {time.perf_counter() - began:.0f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
