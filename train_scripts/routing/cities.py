"""Routing from a real small model to a gazetteer, with one data set per continent."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs.routing import Config
from jeff_llm.confidence import probes, reading, routing
from jeff_llm.models import weights
from train_scripts.questions import answering, cities, city_questions
from train_scripts.routing import logs
from train_scripts.routing.transfers import RATES, Answered, transfers
from train_scripts.running import machines, plots
from train_scripts.running.claims import above
from train_scripts.running.results import Claim, Part

__all__ = ["continents"]


def continents(config: Config, workdir: Path) -> Part:
    """Route a real small model on city questions, with one data set per continent.

    Args:
      config: settings of the run.
      workdir: the run's folder.

    Returns:
      Numbers, claims and table.
    """
    sets = _ask_continents(config)
    by_set, aligned = {}, {}
    for measure in next(iter(sets.values())).confidence:
        found = [_curve(each, measure) for each in sets.values()]
        by_set[measure] = np.array([float(each.area) for each in found])
        aligned[measure] = float(np.nanmean([float(each.alignment) for each in found]))
    means = {name: float(np.nanmean(areas)) for name, areas in by_set.items()}
    _plot(workdir / "cities_areas.png", means)
    numbers = {f"cities_{name}_area": mean for name, mean in means.items()}
    numbers |= {f"cities_{name}_alignment": value for name, value in aligned.items()}
    lines = [
        "SmolLM2 to a gazetteer, a data set a continent: normalised area.",
        "",
        "| measure | " + " | ".join(sets) + " | mean | AUROC |",
        "|---|" + "---|" * (len(sets) + 2),
    ]
    for name, areas in by_set.items():
        cells = [f"{area:.3f}" for area in [*areas, means[name], aligned[name]]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    best = max(means, key=means.__getitem__)
    all_sets = list(sets.values())
    logs.write_slider(
        workdir,
        np.concatenate([each.confidence[best] for each in all_sets]),
        np.concatenate([each.small_correct for each in all_sets]),
        np.concatenate([each.large_correct for each in all_sets]),
        measure=best,
    )
    tables, claims = ["\n".join(lines) + "\n"], [_claim(by_set, means)]
    for measure in ("perplexity", "trained probe"):
        carried = transfers(config, sets, measure, f"cities_{measure}")
        numbers |= carried.numbers
        tables.append(carried.table)
        claims += carried.claims
    return Part(numbers, tuple(claims), "\n".join(tables))


def _curve(answered: Answered, measure: str) -> routing.RoutingCurve:
    return routing.curve(
        jnp.asarray(answered.confidence[measure], jnp.float32),
        jnp.asarray(answered.small_correct),
        jnp.asarray(answered.large_correct),
        jnp.asarray(RATES),
    )


def _claim(by_set: dict[str, np.ndarray], means: dict[str, float]) -> Claim:
    spoken = [name for name in means if name.startswith("verbalised")]
    return Claim(
        "A trained probe and perplexity route better than a spoken confidence.",
        "probe and perplexity are aligned, verbalised confidence is not",
        f"probe {means['trained probe']:.3f}, perplexity {means['perplexity']:.3f}, "
        f"spoken {max(means[name] for name in spoken):.3f}",
        above(
            np.minimum(by_set["trained probe"], by_set["perplexity"]),
            np.max([by_set[name] for name in spoken], axis=0),
        ),
    )


def _plot(path: Path, means: dict[str, float]) -> None:
    with plots.figure(path) as axes:
        order = sorted(means, key=means.__getitem__)
        lengths = [means[name] for name in order]
        axes.barh(order, lengths, color=plots.COLOURS["line"], height=0.6)
        axes.set_xlabel("normalised area, mean of the data sets")
        axes.tick_params(axis="y", labelsize=8)


def _ask_continents(config: Config) -> dict[str, Answered]:
    """Answers and confidences, with the same number of questions on each continent."""
    model = weights.load(config.model, mesh=machines.mesh())
    stops = answering.newlines(model)
    pool = cities.load()
    needed = config.train + config.test
    rng = np.random.default_rng(config.seed)
    shots = city_questions.draw(len(pool), 0, 0, 4, config.seed).shots
    chosen: dict[str, list[cities.City]] = {}
    for name in sorted({city.continent for city in pool} - {""}):
        mine = [c for c in pool if c.continent == name and c not in shots]
        # Only large cities: the model knows the country of few small ones.
        mine = mine[: max(2000, needed)]
        if len(mine) >= needed:
            order = rng.permutation(len(mine))[:needed]
            chosen[name] = [mine[place] for place in order]
    asked = [city for each in chosen.values() for city in each]
    prompts = [cities.question(city) for city in asked]
    answers = city_questions.ask(model, asked, prompts, stop_ids=stops)
    found = reading.read(model, prompts, answers.tokens)
    # The first questions of each data set train the probes; the others are measured.
    place = np.arange(len(asked)).reshape(len(chosen), needed)[:, config.train :]
    test = place.reshape(-1)
    some = answers.part(test)
    measured = answering.token_measures(reading.Reading(*(x[test] for x in found)))
    asked, prompts = [asked[i] for i in test], [prompts[i] for i in test]
    spoken, _ = city_questions.prompted(model, asked, shots, some)
    measured |= spoken
    if config.samples:
        measured |= city_questions.sampled(
            model,
            prompts,
            some,
            count=config.samples,
            stop_ids=stops,
            key=jax.random.key(config.seed),
        )
    measured |= _probe(config, found.hidden, answers.correct, len(chosen))
    result = {}
    for number, name in enumerate(chosen):
        mine = slice(number * config.test, (number + 1) * config.test)
        small = some.correct[mine]
        # With only right or only wrong answers there is nothing to route.
        if small.any() and not small.all():
            sure = {m: np.clip(values[mine], 0, 1) for m, values in measured.items()}
            result[name] = Answered(sure, small, np.ones(config.test, bool))
    return result


def _probe(
    config: Config, hidden: np.ndarray, correct: np.ndarray, sets: int
) -> dict[str, np.ndarray]:
    """Confidences of the test questions, from probes of the same or of other sets."""
    states = jnp.asarray(hidden.reshape(sets, -1, hidden.shape[-1]))
    right = jnp.asarray(correct.reshape(sets, -1))
    known = states[:, : config.train], right[:, : config.train]
    key = jax.random.key(config.seed)
    return {
        name: np.asarray(probe(*known, states[:, config.train :], key=key)).reshape(-1)
        for name, probe in (
            ("trained probe", probes.trained_probe),
            ("probe of other sets", probes.ood_probe),
        )
    }
