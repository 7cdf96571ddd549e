"""Test the limit on costs: reserved before sending, corrected after, never passed."""

import asyncio
import math

import pytest

from jeff_llm.chat import (
    Budget,
    CostLimitError,
    Message,
    Price,
    Request,
    ask,
    conversation,
)
from jeff_llm.chat.budget import most_cost, most_prompt_tokens


class Endpoint:
    """Sends within a budget, and notes how much was on its way at most."""

    name = "endpoint"

    def __init__(self, budget: Budget, most: float, real: float | None):
        self.budget, self.most, self.real = budget, most, real
        self.sent = self.now = self.peak = 0

    async def answer(self, request: Request):
        async with self.budget.reserve(self.most) as cost:
            self.sent += 1
            self.now += 1
            self.peak = max(self.peak, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            if self.real is None:
                raise TimeoutError("nobody knows whether it was billed")
            cost.append(self.real)
        return request


REQUESTS = [Request(conversation(f"{number}")) for number in range(30)]


def test_the_limit_is_exact_when_all_cost_the_most():
    model = Endpoint(Budget(0.3), 0.1, 0.1)
    found = ask(model, REQUESTS, concurrency=8)
    assert model.sent == 3 and model.budget.spent == pytest.approx(0.3)
    errors = [each for each in found if isinstance(each, CostLimitError)]
    assert len(errors) == 27
    assert str(errors[0]).startswith(
        "max_cost: expected to spend at most 0.3, but 0.3 is spent and this request "
        "may cost 0.1; it was not sent."
    )


def test_what_is_reserved_and_not_spent_is_free_again():
    """Two fit at a time, and all thirty cost less than the limit."""
    model = Endpoint(Budget(1.0), 0.5, 0.01)
    found = ask(model, REQUESTS, concurrency=8)
    assert found == REQUESTS
    assert model.peak == 2
    assert model.budget.spent == pytest.approx(0.3)


def test_an_attempt_of_unknown_cost_counts_in_full():
    model = Endpoint(Budget(1.0), 0.3, None)
    found = ask(model, REQUESTS, concurrency=4)
    assert model.sent == 3 and model.budget.spent == pytest.approx(0.9)
    assert sum(isinstance(each, TimeoutError) for each in found) == 3
    assert sum(isinstance(each, CostLimitError) for each in found) == 27


def test_what_an_earlier_run_spent_counts():
    budget = Budget(1)
    budget.charge(0.95)
    model = Endpoint(budget, 0.1, 0.1)
    assert all(isinstance(each, CostLimitError) for each in ask(model, REQUESTS))
    assert model.sent == 0
    assert repr(budget) == "Budget(1, spent=0.95)"


def test_one_that_gives_up_while_it_waits_leaves_the_others_alone():
    model = Endpoint(Budget(1.0), 0.9, 0.001)

    async def three():
        tasks = [asyncio.create_task(model.answer(each)) for each in REQUESTS[:3]]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(three())
    assert (first, third) == (REQUESTS[0], REQUESTS[2])
    assert isinstance(second, asyncio.CancelledError) and model.sent == 2


def test_the_most_that_a_request_costs():
    request = Request(conversation("Grüße", system="s"), max_tokens=10)
    # Seven bytes and one, sixteen tokens around each message, 128 once.
    read = 8 + 2 * 16 + 128
    assert most_prompt_tokens(request.messages) == read
    assert most_prompt_tokens(request.messages, "{}") == read + 2
    assert most_cost(request, Price(2.0, 10.0)) == (2 * read + 10 * 10) / 1e6
    assert most_prompt_tokens([Message("user", "\ud83d")]) > 0


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf])
def test_a_limit_that_is_none(limit):
    with pytest.raises(ValueError, match="max_cost: expected a positive, finite num"):
        Budget(limit)
