"""Prompts and votes at an OpenAI-compatible endpoint, with tokens counted."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jeff_llm import chat
from jeff_llm.reasoning import asking, prompts
from train_scripts.reasoning.model_local import SAMPLES, THRESHOLD, Branch
from train_scripts.reasoning.problems import Problem

__all__ = ["Spent", "measure"]

# Tokens of a reply to TALE's first turn, which is one number.
_ESTIMATE = 32


class Spent(NamedTuple):
    """What all requests took.

    Attributes:
      requests: requests, those answered from the store included.
      cached: answers from the store.
      prompt_tokens: tokens read.
      completion_tokens: tokens written.
    """

    requests: int
    cached: int
    prompt_tokens: int
    completion_tokens: int


def measure(
    model: chat.ChatModel, problems: Sequence[Problem], *, max_tokens: int
) -> tuple[dict[str, Branch], Spent]:
    """Answer all problems under every prompt, and by vote.

    Args:
      model: the chat model.
      problems: the problems.
      max_tokens: longest answer, in tokens.

    Returns:
      The branches by name, and what they took.

    Raises:
      ExceptionGroup: if a request fails for good, after those beside it were tried;
        the `jeff_llm.chat.AskError` holds the answers that came.
      ValueError: if the endpoint does not report the tokens of its answers.
    """
    questions = [problem.question for problem in problems]
    answers: list[chat.Answer] = []

    def ask(texts: Sequence[str], limit: int) -> list[chat.Answer]:
        requests = [chat.Request(chat.conversation(text), limit) for text in texts]
        given = chat.ask(model, requests, return_errors=False)
        _check_tokens(model, given)
        answers.extend(given)
        return given

    styles: dict[str, Callable[[str], str]] = {
        "plain": prompts.step_by_step,
        "concise": prompts.concise,
        "chain of draft": prompts.chain_of_draft,
    }
    found = {
        name: _branch(ask([style(each) for each in questions], max_tokens))
        for name, style in styles.items()
    }
    estimates = ask([prompts.tale_estimate(each) for each in questions], _ESTIMATE)
    budgets = [prompts.parse_budget(each.text, most=max_tokens) for each in estimates]
    told = [
        prompts.tale_budget(question, budget or max(max_tokens // 2, 1))
        for question, budget in zip(questions, budgets, strict=True)
    ]
    tale = _branch(ask(told, max_tokens))
    estimated = np.array([each.completion_tokens for each in estimates])
    found["TALE"] = tale._replace(tokens=tale.tokens + estimated)
    rules = {
        f"vote of {SAMPLES}": (asking.all_samples_rule(), SAMPLES),
        "adaptive vote": (asking.adaptive_consistency_rule(THRESHOLD), 1),
    }
    for name, (rule, window) in rules.items():
        votes = _votes(model, questions, rule, window, max_tokens)
        answers += [answer for vote in votes for answer in vote.answers]
        found[name] = Branch(
            np.array([vote.tokens for vote in votes], float),
            [None if vote.answer is None else str(vote.answer) for vote in votes],
        )
    _check_tokens(model, answers)
    total = chat.usage(answers)
    return found, Spent(
        requests=total.requests,
        cached=total.cached,
        prompt_tokens=total.prompt_tokens or 0,
        completion_tokens=total.completion_tokens or 0,
    )


def _check_tokens(model: chat.ChatModel, answers: Sequence[chat.Answer]) -> None:
    """Check that answers can be compared by their tokens."""
    total = chat.usage(answers)
    if total.tokens is None:
        raise ValueError(
            f"{model.name}: expected an endpoint that reports the tokens of its "
            "answers ('usage'), since prompts are compared by them, got none"
        )


def _votes(
    model: chat.ChatModel,
    questions: Sequence[str],
    rule: asking.Rule,
    window: int,
    max_tokens: int,
) -> list[asking.Asked]:
    async def vote(question: str) -> asking.Asked:
        return await asking.ask_until(
            model,
            question,
            rule=rule,
            max_samples=SAMPLES,
            window=window,
            max_tokens=max_tokens,
        )

    return chat.run(chat.map_async(vote, questions, concurrency=4, return_errors=False))


def _branch(answers: Sequence[chat.Answer]) -> Branch:
    return Branch(
        np.array([each.completion_tokens for each in answers], float),
        [prompts.parse_answer(each.text) for each in answers],
    )
