"""The list of systems: ``python -m train_scripts list``."""

from rich.console import Console
from rich.table import Table

from train_scripts.systems import SYSTEMS, System

__all__ = ["show"]


def show(console: Console) -> None:
    """Print the ten systems, their state, and what of their data is on this machine.

    Args:
      console: where to print; 80 columns are enough.
    """
    from jeff import assets

    try:
        folder, fault = assets.data_dir(), None
    except NotADirectoryError as error:
        folder, fault = None, str(error)
    table = Table("System", "Method", "State", "Data and weights")
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    missing_assets, missing_shared = False, False
    for system in SYSTEMS.values():
        fetched = {name: assets.status(name) is not None for name in system.assets}
        shared = {
            f"{name}/": bool(folder and (folder / name).is_dir())
            for name in system.shared
        }
        missing_assets |= not all(fetched.values())
        missing_shared |= not all(shared.values())
        table.add_row(*_row(system, fetched | shared))
    console.print(table)
    hints = ["To run one: python -m train_scripts run SYSTEM [PRESET] (the ready ones)"]
    if missing_assets:
        hints += ["To fetch a missing name: python -m jeff.assets NAME"]
    if missing_shared:
        hints += [
            "A name with a slash is a folder of shared data, which is optional: set "
            "JEFF_DATA to the folder that holds it"
        ]
    if fault:
        hints += [fault]
    for hint in hints:
        console.print(hint, markup=False, highlight=False)


def _row(system: System, present: dict[str, bool]) -> tuple[str, str, str, str]:
    """Cells of a system; ``present`` says for each datum whether it is here."""
    here = [name for name, found in present.items() if found]
    missing = [name for name, found in present.items() if not found]
    lines = [
        f"{label}: {', '.join(names)}"
        for label, names in (("here", here), ("missing", missing))
        if names
    ]
    return system.name, system.title, system.state, "\n".join(lines)
