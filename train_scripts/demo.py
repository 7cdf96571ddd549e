"""All systems in turn, each in a process of its own where several run at once.

Compilation leaves a core idle, and two systems side by side fill it.
"""

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from train_scripts.cli import MENDABLE

__all__ = ["run_all", "side_by_side"]

Tell = Callable[[Sequence[str], dict[str, str]], object]
_PRINTING = threading.Lock()


def side_by_side() -> int:
    """How many systems this machine runs at once.

    Returns:
      2 on a CPU of two cores or more. An accelerator has memory for one process.
    """
    import jax

    return 2 if jax.default_backend() == "cpu" and (os.cpu_count() or 1) > 1 else 1


def run_all(
    here: Sequence[str],
    beside: Sequence[str],
    *,
    execute: Callable[[str], object],
    command: Callable[[str], list[str]],
    tell: Tell,
    at_once: int,
) -> dict[str, str]:
    """Run systems; one that fails stops no other.

    Args:
      here: systems to run in this process, one after the other, before the rest.
      beside: systems to run in processes of their own.
      execute: runs a system here.
      command: the words that run a system in a process.
      tell: is told the systems that are left, and the messages of those that failed, at
        the start and after each.
      at_once: processes at once.

    Returns:
      The message of each system that failed.
    """
    left, failed = [*here, *beside], {}
    tell(left, failed)

    def ended(name: str, fault: str) -> None:
        if fault:
            failed[name] = fault
            print(f"error: {name}: {fault}", file=sys.stderr, flush=True)
        left.remove(name)
        tell(left, failed)

    for name in here:
        ended(name, _run_here(execute, name))
    processes: list[subprocess.Popen[str]] = []
    pool = ThreadPoolExecutor(max(at_once, 1))
    try:
        futures = {pool.submit(_run_beside, command(n), processes): n for n in beside}
        for future in as_completed(futures):
            ended(futures[future], future.result())
    except BaseException:  # an interrupt: nothing goes on unseen
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    finally:
        pool.shutdown()
    return failed


def _run_here(execute: Callable[[str], object], name: str) -> str:
    """Run a system; return the message of its error, empty if it ended well."""
    try:
        execute(name)
    except Exception as error:
        if not isinstance(error, MENDABLE):
            traceback.print_exc()
        return str(error) or type(error).__name__
    return ""


def _run_beside(words: list[str], processes: list[subprocess.Popen[str]]) -> str:
    """The same in a process; its output is printed at its end, in one piece."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        words, stdout=pipe, stderr=pipe, text=True, errors="replace"
    )
    processes.append(process)
    shown, errors = process.communicate()
    code = process.returncode
    # The message that `cli.main` prints last, else what Python does.
    told, marked, message = f"\n{errors}".rpartition("\nerror: ")
    if not code or not marked:
        told, message = errors, (errors.strip().splitlines() or [""])[-1]
    with _PRINTING:
        print(shown, end="", flush=True)
        if told.strip():
            print(told.strip(), file=sys.stderr, flush=True)
    if not code:
        return ""
    if code < 0:
        return (
            f"ended by {signal.Signals(-code).name}; if memory ran out, "
            "`demo --at-once 1` needs less"
        )
    return message.strip() or f"ended with status {code}"
