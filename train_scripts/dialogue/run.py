"""Dialogue tuning, and a benchmark of clinical evidence.

Run it with ``python -m train_scripts.dialogue [PRESET] [--field value]``. Rules without
a model, heads over sentence embeddings and four arms of a language model choose the
evidence of a case among the sentences of others. With ``--data questions.jsonl`` the
script makes dialogues for fine-tuning, and mazes, from your own questions.
"""

import time
from pathlib import Path

from configs.dialogue import Config
from train_scripts.dialogue import own, parts
from train_scripts.running import machines, results

__all__ = ["run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Turn your own questions into dialogues, or run the parts.

    Args:
      config: settings of the run.
      workdir: output folder; an interrupted run in it is resumed.
      preset: name of the preset in the result.
      progress: print stages and tables.

    Returns:
      The result that was written.

    Raises:
      ValueError: if a field or a file is not as expected.
      FileNotFoundError: if a file or an asset is missing; says how to get it.
      OSError: if the endpoint fails; the same command goes on from there.
    """
    if preset == "file" and not config.data:
        raise ValueError("data: expected a file or folder of questions, got none")
    began = time.perf_counter()
    if config.data:
        machines.first_alone()
        found = [own.analyse(config, workdir, progress=progress)]
    else:
        found = parts.run(config, workdir, progress=progress)
    part = results.join(found)
    if progress:
        print(part.table)
    return results.finish("dialogue", preset, config.seeds[0], began, part, workdir)
