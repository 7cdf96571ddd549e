"""Gene prioritisation: rank the gene that causes a rare disease, and say why.

Run it with ``python -m train_scripts.genes [PRESET] [--field value]``. The parts rank
public cases by every measure of the ontology, by stored rankings of GPT-4o and by
models, and test what divide and conquer mends. With ``--data FILE or FOLDER``, or
``--terms HP:0001250,HP:0001263``, the script ranks genes for your own patients.

For research; it is not a medical device.
"""

import time
from pathlib import Path

from configs.genes import Config
from train_scripts.genes import own, parts
from train_scripts.running import machines, results

__all__ = ["run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Rank genes for your own patients, or run the parts.

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
    """
    if preset == "file" and not (config.data or config.terms):
        raise ValueError("data, terms: expected one of them, got neither")
    began = time.perf_counter()
    if config.data or config.terms:
        found = [own.analyse(config, workdir, progress=progress)]
    elif not machines.first():
        found = parts.share(config, workdir, progress=progress)
    else:
        found = parts.run(config, workdir, progress=progress)
    part = results.join(found)
    if progress:
        print(part.table)
    return results.finish("genes", preset, config.seeds[0], began, part, workdir)
