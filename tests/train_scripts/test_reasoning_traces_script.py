"""Test the analysis of traces: your own file, the shared chains, and made logs."""

import json
import re

import numpy as np
import pytest

from configs.reasoning import Config
from jeff import assets
from jeff.binomial import upper_bound
from jeff_llm.reasoning import rules
from jeff_llm.reasoning.traces import from_jsonl
from jeff_llm.reasoning.votes import Vote
from train_scripts.reasoning import trace_report, traces


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def sampled(questions, samples, *, marked=True):
    """Samples with easy and hard questions; a text mentions its answer half way."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(questions):
        ease = rng.random()
        for _ in range(samples):
            right = bool(rng.random() < 0.4 + 0.6 * ease)
            answer = 7 if right else int(rng.integers(20, 24))
            row = {
                "question": number,
                "answer": f"{answer}.0",
                "tokens": int(rng.integers(50, 150)),
                "text": f"We count to {answer}.0, check and repeat that it is so.",
            }
            rows.append(row | {"correct": right} if marked else row)
    return rows


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """An analysis of 300 questions with 8 samples each."""
    folder = tmp_path_factory.mktemp("traces")
    path = write(folder / "traces.jsonl", sampled(300, 8))
    return traces.analyse(Config(data=str(path), max_disagreement=0.2), folder), folder


def test_numbers_of_a_file(analysed) -> None:
    part, _ = analysed
    assert part.numbers["questions"] == 300 and part.numbers["samples"] == 2400
    assert part.numbers["mean_length"] == pytest.approx(100, abs=3)
    assert part.numbers["accuracy"] == pytest.approx(0.7, abs=0.03)
    # Voting helps, and the cheapest rule saves more than half of the samples.
    assert part.numbers["full_vote_accuracy"] > part.numbers["accuracy"] + 0.1
    assert part.numbers["full_vote_samples"] == 8
    assert part.numbers["rule_tokens"] < part.numbers["full_vote_tokens"] / 2
    assert part.numbers["rule_bound"] <= 0.2
    assert part.numbers["rule_disagreement"] < 0.2
    # The first mention of a right answer ends at 15 of 48 characters.
    assert part.numbers["share_after_first_answer"] == pytest.approx(33 / 48)
    assert all(np.isfinite(value) for value in part.numbers.values())


def test_table_plots_and_rule_of_a_file(analysed) -> None:
    part, folder = analysed
    for words in (
        "300 questions, 2400 samples",
        "| budget, tokens | finished | accuracy |",
        "| adaptive 0.95 |",
        "| all samples | 8.00 | 0% |",
        "Chosen on 150 questions",
        "On the 150 questions held out",
    ):
        assert words in part.table
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "01_lengths.png",
        "02_accuracy_at_budget.png",
        "03_rules.png",
    ]
    rule = json.loads((folder / "rule.json").read_text())
    assert f"`{rule['rule']}`" in part.table
    assert rule["bound"] <= rule["max_disagreement"] == 0.2
    assert (rule["delta"], rule["questions"], rule["held_out_questions"]) == (
        0.1,
        150,
        150,
    )
    (claim,) = part.claims
    assert claim.holds is rule["holds"] is True
    assert f"{rule['bound']:.1%}" in claim.claim


def test_without_marks(tmp_path) -> None:
    path = write(tmp_path / "traces.jsonl", sampled(40, 4, marked=False))
    part = traces.analyse(Config(data=str(path)), tmp_path)
    assert "accuracy" not in part.numbers and "rule_bound" not in part.numbers
    assert "does not say which answers are right" in part.table
    # 20 questions prove next to nothing, and no rule is named.
    assert "No rule is proved to depart" in part.table and part.claims == ()
    # The number named is the least that can prove anything.
    (least,) = map(int, re.findall(r"(\d+) are not held out", part.table))
    count = len(rules.default_rules(4))
    assert upper_bound(0, least, delta=0.1 / count) <= 0.05
    assert upper_bound(0, least - 1, delta=0.1 / count) > 0.05
    assert f"{2 * least} questions are needed" in part.table
    rule = json.loads((tmp_path / "rule.json").read_text())
    assert rule["rule"] is None and rule["reason"] == "no bound is within the limit"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (sampled(30, 1), "Each question has one sample: there is nothing to vote on."),
        (
            [row | {"answer": None} for row in sampled(300, 4)],
            "No sample has an answer: there is nothing to vote on.",
        ),
        (sampled(1, 4), "One question cannot be split: no rule is chosen."),
    ],
)
def test_where_there_is_nothing_to_choose(tmp_path, rows, message) -> None:
    path = write(tmp_path / "traces.jsonl", rows)
    part = traces.analyse(Config(data=str(path)), tmp_path)
    assert message in part.table and part.claims == ()
    rule = json.loads((tmp_path / "rule.json").read_text())
    assert rule == {"rule": None, "reason": message}


def test_samples_with_names(tmp_path) -> None:
    """Half the tokens at the same accuracy: compression and AES are 1/2."""
    rows = []
    for number in range(6):
        runs = {
            name: {"answer": number, "tokens": tokens, "correct": number > 0}
            for name, tokens in (("long", 80), ("half", 40))
        }
        runs["extra"] = {"answer": None, "tokens": 0, "correct": False}
        rows.append({"question": f"q{number}", "runs": runs})
    del rows[0]["runs"]["half"]
    path = write(tmp_path / "traces.jsonl", rows)
    part = traces.analyse(Config(data=str(path), samples="runs"), tmp_path)
    assert "| long | 6 | 83.3% | 80.0 | 1.000 | 0.000 |" in part.table
    # Only five questions have both, and there both are always right.
    assert "| half | 5 | 100.0% | 40.0 | 0.500 | 0.500 |" in part.table
    assert "| extra | 6 | 0.0% | 0.0 | 0.000 | -4.000 |" in part.table
    assert "The samples of a question have names" in part.table


def test_names_do_not_break_the_table(tmp_path) -> None:
    runs = {"a|b\nc": {"answer": 1, "tokens": 2}, "d": {"answer": 1, "tokens": 1}}
    rows = [{"question": number, "runs": runs} for number in range(2)]
    path = write(tmp_path / "traces.jsonl", rows)
    part = traces.analyse(Config(data=str(path), samples="runs"), tmp_path)
    assert "\n| a\\|b c | 2 | - | 2.0 | 1.000 | - |\n" in part.table
    assert "are against a\\|b c." in part.table


def test_the_check_of_a_rule_has_three_states() -> None:
    """Agreement on all of one part and on none of the other, by the permutation."""
    config = Config(max_disagreement=0.1, holdout=0.9)
    order = np.random.default_rng(0).permutation(400)
    full, answer = np.zeros(400, int), np.zeros(400, int)
    cost = np.ones(400, int), np.ones(400)
    found = traces.choose(full, {"a": Vote(answer, *cost)}, config, seed=0)
    assert (found.holds, found.disagreement, found.questions) == (True, 0, 360)
    answer[order[:360]] = 1  # the questions held out
    broken = traces.choose(full, {"a": Vote(answer, *cost)}, config, seed=0)
    assert broken.choice == found.choice and broken.holds is False
    few = Config(max_disagreement=0.1, holdout=0.01)
    answer[:] = 0
    assert traces.choose(full, {"a": Vote(answer, *cost)}, few, seed=0).holds is None
    with pytest.raises(ValueError, match="full: expected at least 2 questions"):
        traces.choose(
            full[:1], {"a": Vote(*(x[:1] for x in (full, *cost)))}, few, seed=0
        )


def test_what_counts_as_a_mention(tmp_path) -> None:
    texts = ["18 or 8.5 or 8x", "so 8. Yes.", "now $8.00", "none"]
    rows = [
        {"question": n, "answer": "$8.00", "tokens": 1, "text": text}
        for n, text in enumerate(texts)
    ]
    found = trace_report.share_after_first_answer(
        from_jsonl(write(tmp_path / "traces.jsonl", rows))
    )
    np.testing.assert_allclose(found, [0.6, 0])


def test_made_logs(tmp_path) -> None:
    part = traces.simulated(Config(draws=200), tmp_path)
    (claim,) = part.claims
    assert claim.holds is True and "200 logs" in claim.claim
    assert part.numbers["guarantee_broken"] <= 0.1
    assert part.numbers["guarantee_chosen"] > 0.9
    few = traces.simulated(Config(draws=5), tmp_path)
    assert few.claims[0].holds is None, "5 logs cannot tell 10% from less"


def test_the_shared_chains(tmp_path) -> None:
    try:
        path = assets.shared_file("compressed_cot/gsm8k_qwen25_7b_tokenskip.jsonl.gz")
    except FileNotFoundError as error:
        pytest.skip(f"compressed_cot is not here: {error}")
    config = Config(
        data=str(path),
        question="id",
        answer="prediction",
        tokens="n_tokens",
        samples="runs",
    )
    part = traces.analyse(config, tmp_path)
    assert "| full | 819 | 92.8% | 281.0 | 1.000 | 0.000 |" in part.table
    # 0.5 is the shortest; below it the model does not shorten any further.
    assert "| ts_0.5 | 819 | 82.9% | 146.3 | 0.521 | -0.054 |" in part.table
    assert part.claims[0].holds is True
    assert part.numbers["rule_tokens"] < part.numbers["full_vote_tokens"] / 2
