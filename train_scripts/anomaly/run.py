"""Anomalies in texts: detectors, language models, and false alarms under control.

Run it with ``python -m train_scripts.anomaly [PRESET] [--field value]``. The parts
compare trained detectors with zero-shot scorers, try the thresholds, add synthetic
texts, and let a model choose the detector. With ``--data normal.jsonl --score
new.jsonl`` the script finds the anomalies among your own texts.
"""

import time
from pathlib import Path

from configs.anomaly import Config
from train_scripts.anomaly import own, parts
from train_scripts.running import results

__all__ = ["run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Find anomalies among your own texts, or run the parts.

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
    if preset == "file" and not (config.data or config.detector):
        raise ValueError("data, detector: expected one of them, got neither")
    began = time.perf_counter()
    if config.data or config.detector:
        found = [own.analyse(config, workdir, progress=progress)]
    else:
        found = parts.run(config, workdir, progress=progress)
    part = results.join(found)
    if progress:
        print(part.table)
    return results.finish("anomaly", preset, config.seeds[0], began, part, workdir)
