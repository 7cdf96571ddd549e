"""Analyse your own traces: lengths, budgets, and which stopping rule would have saved.

The rule is chosen on one part of the questions and checked on the other. Nothing here
needs a model.
"""

import json
from pathlib import Path

import jax
import numpy as np
from scipy import stats

from configs.reasoning import Config
from jeff import files
from jeff_llm.reasoning import guarantee, guarantee_simulation, metrics, rules, voting
from jeff_llm.reasoning.traces import Traces, from_jsonl
from jeff_llm.reasoning.votes import Folded, Vote, fold
from train_scripts.reasoning import trace_plots, trace_report
from train_scripts.reasoning.trace_report import Chosen, RuleRow
from train_scripts.running.claims import at_most
from train_scripts.running.results import Claim, Part

__all__ = ["analyse", "choose", "simulated"]


def analyse(config: Config, workdir: Path) -> Part:
    """Read traces; write table, plots and ``rule.json``.

    Args:
      config: settings of the run, with ``data``.
      workdir: the run's folder.

    Returns:
      Numbers, the claim that the bound holds on held-out questions, and table.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line is not as expected; names the line and the field.
    """
    fields = ("question", "answer", "correct", "tokens", "text", "order", "samples")
    traces = from_jsonl(config.data, **{name: getattr(config, name) for name in fields})
    numbers = _describe(traces)
    after = trace_report.share_after_first_answer(traces)
    if after.size:
        numbers["share_after_first_answer"] = float(after.mean())
    parts = [
        trace_report.lengths(traces, numbers, after.size),
        trace_report.budgets(traces),
        trace_report.by_name(traces),
    ]
    trace_plots.plot_lengths(workdir / "01_lengths.png", traces)
    trace_plots.plot_budgets(workdir / "02_accuracy_at_budget.png", traces)
    claim = _votes(traces, config, workdir, numbers, parts)
    table = "\n".join(part for part in parts if part)
    return Part(numbers, () if claim is None else (claim,), table)


def simulated(config: Config, workdir: Path) -> Part:
    """Test the guarantee on logs drawn from a population whose truth is known.

    Args:
      config: settings of the run.
      workdir: the run's folder; nothing but what `Part` holds is written.

    Returns:
      Numbers, claim and table.
    """
    found = guarantee_simulation.simulate(
        key=jax.random.key(config.seeds[0]),
        draws=config.draws,
        max_disagreement=config.max_disagreement,
        delta=config.delta,
    )
    broken = int(found.broken.sum())
    # Clopper and Pearson's exact interval for the share of failed logs.
    ends = stats.binomtest(broken, config.draws).proportion_ci()
    share, chosen = broken / config.draws, float(np.mean(found.chosen >= 0))
    claim = Claim(
        f"The bounds on the disagreement of {len(found.names)} stopping rules with the "
        f"full vote are broken in at most {config.delta:.0%} of {config.draws} logs.",
        "not in the papers",
        f"{share:.1%}; a rule is chosen in {chosen:.0%} of the logs",
        at_most(share, config.delta, ends=(ends.low, ends.high)),
    )
    numbers = {
        "guarantee_broken": share,
        "guarantee_exceeded": float(found.exceeded.mean()),
        "guarantee_chosen": chosen,
        "guarantee_saved": found.saved,
    }
    table = (
        f"{config.draws} made logs: any bound is broken in {share:.1%} (allowed "
        f"{config.delta:.0%}), the chosen rule's limit in "
        f"{numbers['guarantee_exceeded']:.1%}; the chosen rules save {found.saved:.0%} "
        "of the samples.\n"
    )
    return Part(numbers, (claim,), table)


def choose(
    full: np.ndarray, votes: dict[str, Vote], config: Config, *, seed: int
) -> Chosen:
    """Choose a rule on a part of the questions, and check it on the held-out part.

    Args:
      full: answers of the vote of all samples, [questions].
      votes: of each rule, by name.
      config: limit, delta and the share held out.
      seed: of the permutation of the questions.

    Returns:
      The rule, and its disagreement on the questions held out.

    Raises:
      ValueError: if there are fewer than 2 questions.
    """
    count = len(full)
    if count < 2:
        raise ValueError(f"full: expected at least 2 questions to split, got {count}")
    order = np.random.default_rng(seed).permutation(count)
    held = min(max(round(config.holdout * count), 1), count - 1)
    kept, out = order[held:], order[:held]
    agreement = guarantee.agreement_guarantee(
        full[kept],
        {n: Vote(*(np.asarray(x)[kept] for x in vote)) for n, vote in votes.items()},
        delta=config.delta,
    )
    choice = guarantee.choose_rule(
        agreement, max_disagreement=config.max_disagreement, by="tokens"
    )
    if choice is None:
        return Chosen(None, float("nan"), held, None)
    apart = np.asarray(votes[choice.name].answer)[out] != full[out]
    ends = stats.binomtest(int(apart.sum()), held).proportion_ci()
    holds = at_most(apart.mean(), choice.bound, ends=(ends.low, ends.high))
    return Chosen(choice, float(apart.mean()), held, holds)


def _describe(traces: Traces) -> dict[str, float]:
    length = traces.length
    numbers = {
        "questions": float(len(traces.questions)),
        "samples": float(len(length)),
        "mean_length": float(length.mean()),
        "median_length": float(np.median(length)),
        "length_95": float(np.quantile(length, 0.95)),
        "no_answer": float(np.mean(traces.answer < 0)),
    }
    if traces.correct is not None:
        numbers["accuracy"] = float(traces.correct.mean())
        cost = float(metrics.tokens_per_correct(traces.correct, length))
        if np.isfinite(cost):
            numbers["tokens_per_correct"] = cost
        if length.max() > 0:
            area = metrics.area_under_budget(
                traces.correct, length, max_budget=float(length.max())
            )
            numbers["area_under_budget"] = float(area)
    return numbers


def _votes(
    traces: Traces,
    config: Config,
    workdir: Path,
    numbers: dict[str, float],
    parts: list[str],
) -> Claim | None:
    """Run the rules, choose one, and add to numbers and table."""
    folded = fold(
        traces.question,
        traces.answer,
        traces.length,
        *(() if traces.order is None else (traces.order,)),
    )
    if folded.where.shape[1] < 2:
        text = "Each question has one sample: there is nothing to vote on.\n"
        return _without_rule(workdir, parts, text)
    answer, length = folded.arrays[:2]
    if (traces.answer < 0).all():
        # All rules would agree with the full vote, and a bound would be proved.
        text = "No sample has an answer: there is nothing to vote on.\n"
        return _without_rule(workdir, parts, text)
    given = {
        "length": length,
        "order": folded.arrays[2] if traces.order is not None else None,
        "where": folded.where,
    }
    candidates = rules.default_rules(answer.shape[1])
    votes = rules.votes_by_rule(answer, candidates, **given)
    full = voting.majority_vote(answer, length=length, where=folded.where)
    right = _right(traces, folded)
    rows = [
        _row(name, vote, full, answer, right)
        for name, vote in {**votes, "all samples": full}.items()
    ]
    numbers |= {
        "full_vote_samples": rows[-1].samples,
        "full_vote_tokens": rows[-1].tokens,
    }
    if right is not None:
        numbers["full_vote_accuracy"] = rows[-1].accuracy
    trace_plots.plot_rules(workdir / "03_rules.png", rows)
    parts.append(trace_report.rules(rows, traces))
    if len(answer) < 2:
        text = "One question cannot be split: no rule is chosen.\n"
        return _without_rule(workdir, parts, text)
    chosen = choose(np.asarray(full.answer), votes, config, seed=config.seeds[0])
    parts.append(trace_report.chosen(chosen, config, rows, traces.unit))
    _write_rule(workdir, chosen, config, traces.unit)
    if chosen.choice is None:
        return None
    numbers |= {
        "rule_bound": chosen.choice.bound,
        "rule_samples": chosen.choice.samples,
        "rule_tokens": chosen.choice.tokens,
        "rule_disagreement": chosen.disagreement,
    }
    return Claim(
        f"The rule chosen on {chosen.choice.questions} questions departs from the full "
        f"vote on at most {chosen.choice.bound:.1%} of {chosen.questions} others.",
        "not in the papers",
        f"{chosen.disagreement:.1%}",
        chosen.holds,
    )


def _right(traces: Traces, folded: Folded) -> np.ndarray | None:
    """Correctness of each sample by question, [questions, samples]."""
    if traces.correct is None:
        return None
    return fold(traces.question, traces.correct.astype(np.float32)).arrays[0]


def _row(
    name: str,
    vote: Vote,
    full: Vote,
    answer: np.ndarray,
    right: np.ndarray | None,
) -> RuleRow:
    code = np.asarray(vote.answer)
    accuracy = float("nan")
    if right is not None:
        # Samples with the same answer share its mark; a file may mark them apart.
        same = (answer == code[:, None]) & (code >= 0)[:, None]
        accuracy = float(np.mean((same * right).sum(1) / np.maximum(same.sum(1), 1)))
    return RuleRow(
        name,
        float(np.mean(np.asarray(vote.samples))),
        float(np.mean(np.asarray(vote.tokens))),
        float(np.mean(code == np.asarray(full.answer))),
        accuracy,
    )


def _without_rule(workdir: Path, parts: list[str], text: str) -> None:
    parts.append(text)
    value = {"rule": None, "reason": text.strip()}
    files.write_text(workdir / "rule.json", json.dumps(value, indent=2) + "\n")


def _write_rule(workdir: Path, chosen: Chosen, config: Config, unit: str) -> None:
    value: dict[str, object] = {
        "rule": None,
        "max_disagreement": config.max_disagreement,
        "delta": config.delta,
        "held_out_questions": chosen.questions,
        "unit": unit,
    }
    if chosen.choice is None:
        value["reason"] = "no bound is within the limit"
    else:
        value |= chosen.choice._asdict()
        value["rule"] = value.pop("name")
        value["held_out_disagreement"] = chosen.disagreement
        value["holds"] = chosen.holds
    files.write_json(workdir / "rule.json", value)
