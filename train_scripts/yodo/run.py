"""YODO on real data: compare one line with plain training and with separate models.

Run it with ``python -m train_scripts run yodo [PRESET] [--field value]``.
"""

import time
from pathlib import Path

import jax
import optax

from configs.yodo import Config
from jeff import checkpoint, files, hub_rows, training
from jeff.fairness import evaluation, images, tabular, yodo
from train_scripts.running import machines, results, trees
from train_scripts.running.seeds import seed_key
from train_scripts.yodo import claims, measure, summary

__all__ = ["run"]


def run(
    config: Config, workdir: Path, *, preset: str = "custom", progress: bool = True
) -> results.Result:
    """Train and measure every seed; write plots, explorer and result.

    Args:
      config: settings of the run.
      workdir: output folder; an interrupted run in it is resumed.
      preset: name of the preset in the result.
      progress: show progress bars.

    Returns:
      The result that was written.

    Raises:
      ValueError: if the data or a field are not as expected.
      FileNotFoundError: if data are missing; says how to get them.
    """
    began = time.perf_counter()
    # Load all data first, so that a missing file fails before any training.
    splits = [_load(config, seed) for seed in config.seeds]
    steps = config.num_epochs * _batches_of(splits[0][0].train, config)
    optimizer = optax.adam(_schedule(config, steps))
    apply_fn, start = measure.network(config, splits[0][0].train, jax.random.key(0))
    line_step = yodo.train_step(
        apply_fn,
        optimizer,
        strength=config.strength,
        ramp=config.ramp,
        gap=config.gap,
        end_mass=config.end_mass,
    )
    # Mapped over the models only: all of them see the same batches.
    fixed_step = jax.vmap(
        evaluation.fixed_step(apply_fn, optimizer, gap=config.gap), in_axes=(0, None)
    )

    parts_of = {
        seed: each for seed, (each, _) in zip(config.seeds, splits, strict=True)
    }

    def train(seed: int) -> measure.Trained:
        path = workdir / f"seed{seed}" / "trained.npz"
        if path.is_file():  # by another process
            return trees.read_tree(path, measure.Trained(start, start.start, 0.0, 0.0))
        steps = line_step, fixed_step
        trained = measure.train(
            config, seed, parts_of[seed], optimizer, steps, workdir, progress
        )
        if machines.several():
            trees.write_tree(path, trained)
        return trained

    machines.deal(config.seeds, train)
    seeds = []
    for seed, parts in parts_of.items():
        trained = train(seed)
        seeds.append(measure.measure(config, seed, parts, apply_fn, trained))
        width = parts.train.inputs.shape[-1]
        _save_line(config, trained.line, width, workdir / f"seed{seed}" / "line")
    groups = splits[0][1]
    summary.plot(seeds, groups, workdir)
    explorer = summary.explorer(config, seeds, groups)
    files.write_json(workdir / "explorer.json", explorer, indent=None)
    part = results.Part(
        summary.numbers(seeds),
        claims.claims(config, seeds),
        summary.unknown_note(seeds),
    )
    return results.finish("yodo", preset, config.seeds[0], began, part, workdir)


def _load(config: Config, seed: int) -> tuple[tabular.Splits, tuple[str, str]]:
    key = seed_key(seed, measure.DATA)
    path = config.data or None
    if config.dataset in {"utkface", "csv"} and not path:
        raise ValueError(
            f"data: expected the {config.dataset} file or folder, got none; name it "
            "with --data"
        )
    if config.dataset == "digits":
        return images.coloured_digits(key=key), ("first colour", "second colour")
    if config.dataset == "adult":
        data = tabular.adult(config.sensitive, path=path)
    elif config.dataset == "german":
        data = tabular.german(config.sensitive, path=path)
    elif config.dataset == "acs":
        root = path or "data/acs"
        data = tabular.acs(config.outcome or "employment", config.sensitive, root=root)
    elif config.dataset == "celeba":
        source = path or "flwrlabs/celeba"
        data = images.celeba(config.outcome, config.sensitive, source=source)
    elif config.dataset == "utkface":
        data = images.utkface(config.data)
    else:
        saved = hub_rows.is_saved(config.data)
        read = tabular.read_saved if saved else tabular.read_csv
        data = read(
            config.data,
            label=config.outcome,
            group=config.sensitive,
            weight=config.weight or None,
            favourable=config.favourable or 1,
        )
    return tabular.split(data, key=key, standardize=bool(data.features)), data.groups


def _batches_of(train: yodo.Examples, config: Config) -> int:
    order = training.Shuffled(train, config.batch_size, jax.random.key(0))
    return order.steps_per_epoch


def _schedule(config: Config, steps: int) -> optax.ScalarOrSchedule:
    if config.schedule == "constant":
        return config.learning_rate
    return optax.cosine_decay_schedule(config.learning_rate, steps)


def _save_line(
    config: Config, trained: yodo.Line, num_features: int, path: Path
) -> None:
    if not path.exists():
        network = {
            "dataset": config.dataset,
            "num_features": num_features,
            "hidden": list(config.hidden),
        }
        checkpoint.save(path, trained, metadata=network)
