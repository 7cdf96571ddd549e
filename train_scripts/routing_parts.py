"""The parts of a routing run: recorded answers, a real small model, a grid."""

import csv
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.routing import Config
from jeff import assets, bootstrap
from jeff_llm import cities
from jeff_llm.confidence import calibration, probes, reading, router, routing
from jeff_llm.models import weights
from train_scripts import city_questions, plots
from train_scripts.results import Claim
from train_scripts.routing_logs import Part

__all__ = ["Answered", "continents", "load_mirage", "mirage", "simulated"]

_RATES = np.linspace(0, 1, 21)
_COLOURS = ("line", "fixed", "second", "third", "plain")


class Answered(NamedTuple):
    """Queries of one data set.

    Attributes:
      confidence: of the small model's answers, in [0, 1], by measure.
      small_correct: whether its answer is right.
      large_correct: whether the large model's is.
    """

    confidence: dict[str, np.ndarray]
    small_correct: np.ndarray
    large_correct: np.ndarray


def load_mirage() -> dict[str, Answered]:
    """GPT-3.5's and GPT-4's recorded answers to medical questions, of $JEFF_DATA.

    Confidence is whether GPT-3.5's two answers agree; and that, with the overlap of the
    words of their two rationales to break ties. An answer without a letter is wrong and
    agrees with nothing.

    Returns:
      Queries by data set.

    Raises:
      FileNotFoundError: if the data are not there; says where they were looked for.
      ValueError: if a file lacks a column.
    """
    folder = assets.shared_file("routing_mirage/answers.csv").parent
    with (folder / "no_answer.csv").open(newline="") as file:
        silent = {(r["dataset"], r["id"], r["column"]) for r in csv.DictReader(file)}
    with (folder / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def answer(row: dict[str, str], column: str) -> str:
        gone = (row["dataset"], row["id"], column) in silent
        return "" if gone else row[column]

    found = {}
    for name in sorted({row["dataset"] for row in rows}):
        mine = [row for row in rows if row["dataset"] == name]
        said = [
            [answer(row, c) for c in ("weak_cot", "weak_rag", "strong_cot")]
            for row in mine
        ]
        first, second, strong = np.array(said).T
        gold = np.array([row["gold"] for row in mine])
        agree = ((first == second) & (first != "")).astype(float)
        words = np.array([float(row["weak_rationale_jaccard"] or 0) for row in mine])
        found[name] = Answered(
            {"agreement": agree, "agreement, words": (agree + words) / 2},
            first == gold,
            strong == gold,
        )
    return found


def mirage(config: Config, workdir: Path) -> Part:
    """Routing from GPT-3.5 to GPT-4 by GPT-3.5's agreement with itself.

    Args:
      config: the run.
      workdir: the run's folder.

    Returns:
      What was found.
    """
    sets = load_mirage()
    numbers, lines = (
        {},
        [
            "GPT-3.5 to GPT-4, five medical data sets.",
            "",
            "| data set | queries | GPT-3.5 | GPT-4 | AUROC | area, 95% | with words | rate to match |",
            "|---|---|---|---|---|---|---|---|",
        ],
    )
    lows = []
    with plots.figure(workdir / "mirage_routing.png") as axes:
        for (name, each), colour in zip(sets.items(), _COLOURS, strict=False):
            small, large = (
                jnp.asarray(each.small_correct),
                jnp.asarray(each.large_correct),
            )
            curves = [
                routing.curve(
                    jnp.asarray(c, jnp.float32), small, large, jnp.asarray(_RATES)
                )
                for c in each.confidence.values()
            ]
            plain, fine = curves
            drawn = bootstrap.bootstrap_samples(
                lambda c, s, g: routing.normalised_area(c, s, g),
                (jnp.asarray(each.confidence["agreement"], jnp.float32), small, large),
                key=jax.random.key(config.seed),
                num_samples=config.bootstrap,
            )
            low, high = np.quantile(np.asarray(drawn), [0.025, 0.975])
            lows.append(low)
            numbers |= {
                f"mirage_{name}_area": float(plain.area),
                f"mirage_{name}_area_low": float(low),
                f"mirage_{name}_area_high": float(high),
                f"mirage_{name}_area_words": float(fine.area),
                f"mirage_{name}_alignment": float(plain.alignment),
                f"mirage_{name}_match": float(plain.rate_to_match),
            }
            lines.append(
                f"| {name} | {len(small)} | {small.mean():.1%} | {large.mean():.1%} | "
                f"{plain.alignment:.3f} | {plain.area:.3f} ({low:.3f} to {high:.3f}) | "
                f"{fine.area:.3f} | {plain.rate_to_match:.0%} |"
            )
            axes.plot(_RATES, fine.accuracy, label=name, color=plots.COLOURS[colour])
            ends = np.asarray(fine.accuracy)[[0, -1]]
            axes.plot([0, 1], ends, ":", color=plots.COLOURS[colour], linewidth=1)
        axes.set_xlabel("share of the queries sent to GPT-4")
        axes.set_ylabel("accuracy")
    areas = [numbers[f"mirage_{name}_area"] for name in sets]
    claim = Claim(
        "GPT-3.5's agreement with itself routes to GPT-4 better than chance on all five "
        "data sets, with 95% intervals above it.",
        "uncertainty routes better than random",
        ", ".join(f"{n} {a:.2f}" for n, a in zip(sets, areas, strict=True)),
        bool(min(lows) > 0),
    )
    carried = _transfers(config, sets, "agreement, words", "mirage")
    return Part(
        numbers | carried.numbers,
        (claim, *carried.claims),
        "\n".join(lines) + "\n\n" + carried.table,
    )


def continents(config: Config, workdir: Path) -> Part:
    """A real small model on city questions, a data set a continent, a gazetteer beside it.

    Args:
      config: the run.
      workdir: the run's folder.

    Returns:
      What was found.
    """
    sets = _ask_continents(config)
    measures = list(next(iter(sets.values())).confidence)
    numbers, lines = (
        {},
        [
            "SmolLM2 to a gazetteer, a data set a continent: normalised area.",
            "",
            "| measure | " + " | ".join(sets) + " | mean | AUROC |",
            "|---|" + "---|" * (len(sets) + 2),
        ],
    )
    means = {}
    for measure in measures:
        found = [
            routing.curve(
                jnp.asarray(each.confidence[measure], jnp.float32),
                jnp.asarray(each.small_correct),
                jnp.asarray(each.large_correct),
                jnp.asarray(_RATES),
            )
            for each in sets.values()
        ]
        areas = [float(each.area) for each in found]
        means[measure] = float(np.nanmean(areas))
        aligned = float(np.nanmean([float(each.alignment) for each in found]))
        numbers[f"cities_{measure}_area"] = means[measure]
        numbers[f"cities_{measure}_alignment"] = aligned
        cells = [f"{area:.3f}" for area in [*areas, means[measure], aligned]]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    with plots.figure(workdir / "cities_areas.png") as axes:
        order = sorted(means, key=lambda name: means[name])
        axes.barh(
            order,
            [means[name] for name in order],
            color=plots.COLOURS["line"],
            height=0.6,
        )
        axes.set_xlabel("normalised area, mean of the data sets")
        axes.tick_params(axis="y", labelsize=8)
    spoken = [means[name] for name in means if name.startswith("verbalised")]
    claim = Claim(
        "A trained probe and perplexity route better than a spoken confidence.",
        "probe and perplexity are aligned, verbalised confidence is not",
        f"probe {means['trained probe']:.3f}, perplexity {means['perplexity']:.3f}, "
        f"spoken {max(spoken):.3f}",
        bool(min(means["trained probe"], means["perplexity"]) > max(spoken)),
    )
    tables, claims = ["\n".join(lines) + "\n"], [claim]
    for measure in ("perplexity", "trained probe"):
        carried = _transfers(config, sets, measure, f"cities_{measure}")
        numbers |= carried.numbers
        tables.append(carried.table)
        claims += carried.claims
    return Part(numbers, tuple(claims), "\n".join(tables))


def _ask_continents(config: Config) -> dict[str, Answered]:
    """Answers and confidences, as many questions of each continent that has them."""
    model = weights.load(config.model)
    stops = city_questions.newlines(model)
    pool = cities.load()
    needed = config.train + config.test
    rng = np.random.default_rng(config.seed)
    shots = city_questions.draw(len(pool), 0, 0, 4, config.seed).shots
    chosen: dict[str, list[cities.City]] = {}
    for name in sorted({city.continent for city in pool} - {""}):
        mine = [c for c in pool if c.continent == name and c not in shots]
        mine = mine[: max(2000, needed)]
        if len(mine) >= needed:
            order = rng.permutation(len(mine))[:needed]
            chosen[name] = [mine[place] for place in order]
    asked = [city for each in chosen.values() for city in each]
    prompts = [cities.question(city) for city in asked]
    answers = city_questions.ask(model, asked, prompts, stop_ids=stops)
    found = reading.read(model, prompts, answers.tokens)
    measured = city_questions.token_measures(found)
    spoken, _ = city_questions.prompted(model, asked, shots, answers)
    measured |= spoken
    if config.samples:
        measured |= city_questions.sampled(
            model,
            prompts,
            answers,
            count=config.samples,
            stop_ids=stops,
            key=jax.random.key(config.seed),
        )
    sets = len(chosen)
    hidden = found.hidden.reshape(sets, needed, -1)
    right = answers.correct.reshape(sets, needed)
    judged = {}
    for name, probe in (
        ("trained probe", probes.trained_probe),
        ("probe of other sets", probes.ood_probe),
    ):
        judged[name] = np.asarray(
            probe(
                jnp.asarray(hidden[:, : config.train]),
                jnp.asarray(right[:, : config.train]),
                jnp.asarray(hidden[:, config.train :]),
                key=jax.random.key(config.seed),
            )
        )
    result = {}
    for place, name in enumerate(chosen):
        some = slice(place * needed + config.train, (place + 1) * needed)
        sure = {m: np.clip(v[some], 0, 1) for m, v in measured.items()}
        sure |= {m: v[place] for m, v in judged.items()}
        small = answers.correct[some]
        if small.any() and not small.all():
            result[name] = Answered(sure, small, np.ones(config.test, bool))
    return result


def _transfers(
    config: Config, sets: dict[str, Answered], measure: str, prefix: str
) -> Part:
    """Thresholds from all data sets but one, used on that one."""
    lines = [
        f"Thresholds by {measure} from the other data sets.",
        "",
        "| left out | rate error | accuracy error | drift |",
        "|---|---|---|---|",
    ]
    numbers, errors = {}, []
    for name, each in sets.items():
        others = [other for key, other in sets.items() if key != name]
        kept = calibration.calibrate(
            jnp.asarray(np.concatenate([o.confidence[measure] for o in others])),
            jnp.asarray(np.concatenate([o.small_correct for o in others])),
            jnp.asarray(np.concatenate([o.large_correct for o in others])),
            key=jax.random.key(config.seed),
            share=config.share,
            num_bins=config.bins,
        )
        found = calibration.transfer(
            kept,
            jnp.asarray(each.confidence[measure]),
            jnp.asarray(each.small_correct),
            jnp.asarray(each.large_correct),
            jnp.asarray(_RATES),
        )
        errors.append((found.rate_error, found.accuracy_error, found.drift))
        lines.append(f"| {name} | " + " | ".join(f"{x:.3f}" for x in errors[-1]) + " |")
        for label, value in zip(("rate", "accuracy", "drift"), errors[-1], strict=True):
            numbers[f"{prefix}_transfer_{name}_{label}"] = value
    mean = np.mean(errors, axis=0)
    lines.append("| mean | " + " | ".join(f"{x:.3f}" for x in mean) + " |")
    claim = Claim(
        f"Thresholds by {measure} carry over to a data set left out: the mean error of "
        f"rate and of accuracy is at most .05 ({prefix.partition('_')[0]}).",
        "calibration data carry over to unseen data sets",
        f"rate {mean[0]:.3f}, accuracy {mean[1]:.3f}",
        bool(max(mean[0], mean[1]) <= 0.05),
    )
    return Part(numbers, (claim,), "\n".join(lines) + "\n")


def simulated(config: Config, workdir: Path) -> Part:
    """A grid of settings in one call, and the guarantee over many draws.

    Args:
      config: the run.
      workdir: the run's folder.

    Returns:
      What was found.
    """
    key = jax.random.key(config.seed)
    settings = int(np.prod(config.grid))
    keys = jax.random.split(key, 4)
    shape = (settings, config.queries)
    # How able the small model is, and how well the measure sees it, differ by setting.
    sharp = jax.random.uniform(keys[0], (settings, 1), minval=0.0, maxval=3.0)
    ease = jax.random.normal(keys[1], shape)
    small = jax.random.uniform(keys[2], shape) < jax.nn.sigmoid(ease)
    noise = jax.random.normal(keys[3], shape)
    sure = jax.nn.sigmoid(sharp * ease + noise)
    large = jax.random.uniform(jax.random.fold_in(key, 1), shape) < 0.85
    rates = jnp.asarray(_RATES, jnp.float32)
    jax.block_until_ready(routing.sweep(sure, small, large, rates))
    began = time.perf_counter()
    found = jax.block_until_ready(routing.sweep(sure, small, large, rates))
    seconds = time.perf_counter() - began
    broken, kept = _guarantee(config)
    with plots.figure(workdir / "simulated_alignment.png") as axes:
        axes.plot(
            found.alignment, found.area, ".", markersize=3, color=plots.COLOURS["line"]
        )
        axes.set_xlabel("alignment (AUROC)")
        axes.set_ylabel("normalised area")
    numbers = {
        "sweep_settings": float(settings),
        "sweep_seconds": seconds,
        "guarantee_broken": broken,
        "guarantee_kept": kept,
    }
    claim = Claim(
        f"The guarantee (errors at most {config.max_error:.0%}) fails in at most "
        f"{config.delta:.0%} of {config.draws} draws of the log.",
        "not in the papers",
        f"{broken:.1%}; {kept:.1%} of the queries are kept",
        bool(broken <= config.delta),
    )
    table = (
        f"{settings} settings of {config.queries} queries in one call: {seconds:.2f} s. "
        f"The guarantee fails in {broken:.1%} of {config.draws} draws.\n"
    )
    return Part(numbers, (claim,), table)


def _guarantee(config: Config) -> tuple[float, float]:
    """Confidence is even on [0, 1] and right with that probability: the truth is known.

    Above a threshold t the error rate is ``(1 - t) / 2``.
    """
    rng = np.random.default_rng(config.seed)
    broken, kept = [], []
    for _ in range(config.draws):
        sure = rng.random(400)
        right = rng.random(400) < sure
        found = router.with_guarantee(
            jnp.asarray(sure),
            jnp.asarray(right),
            max_error=config.max_error,
            delta=config.delta,
        )
        threshold = min(found.threshold, 1.0)
        broken.append((1 - threshold) / 2 > config.max_error)
        kept.append(1 - threshold)
    return float(np.mean(broken)), float(np.mean(kept))
