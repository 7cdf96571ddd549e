"""What a model is asked in a maze: at once, or one sentence a turn.

MuddyMaze shows only the last choice in a later round; here each turn shows every
sentence that was chosen so far, since evidence accumulates.
"""

from collections.abc import Sequence

from jeff_llm.clinic.maze import Maze

__all__ = ["ROUNDS", "Message", "next_turn", "one_round", "several_rounds"]

ROUNDS = ("one", "several")

Message = dict[str, str]


def one_round(maze: Maze) -> list[Message]:
    """Ask for all sentences at once.

    Args:
      maze: the task.

    Returns:
      One user message.
    """
    count = len(maze.gold)
    if count == 1:
        wanted = (
            "Write the number of the sentence that is evidence for the answer, and "
            "nothing else."
        )
    else:
        wanted = (
            f"Write the numbers of the {count} sentences that are evidence for the "
            "answer, in the order in which a clinician gathers it, separated by "
            "commas, and nothing else."
        )
    return [{"role": "user", "content": f"{_case(maze)}\n\n{wanted}"}]


def several_rounds(maze: Maze) -> list[Message]:
    """Ask for the first sentence.

    Args:
      maze: the task.

    Returns:
      One user message; `next_turn` asks for the others.
    """
    wanted = (
        "Choose the evidence for the answer, one sentence a turn, in the order in "
        "which a clinician gathers it. Write the number of the first sentence, and "
        "nothing else."
    )
    return [{"role": "user", "content": f"{_case(maze)}\n\n{wanted}"}]


def next_turn(maze: Maze, picks: Sequence[int]) -> Message:
    """Show what was chosen, and ask for the next sentence.

    Args:
      maze: the task.
      picks: places chosen so far, in their order.

    Returns:
      A user message.
    """
    chosen = "\n".join(f"- {maze.listed[place]}" for place in picks)
    asked = "Write the number of the next sentence, and nothing else."
    return {"role": "user", "content": f"Chosen so far:\n{chosen}\n{asked}"}


def _case(maze: Maze) -> str:
    item = maze.item
    listed = "\n".join(f"{place}. {each}" for place, each in enumerate(maze.listed, 1))
    parts = [f"A case begins: {item.background}"]
    if item.question:
        parts.append(f"Question: {item.question}")
    parts += [
        f"Answer: {item.answer}",
        f"Sentences, shuffled; some may be about other patients:\n{listed}",
    ]
    return "\n".join(parts[:-1]) + f"\n\n{parts[-1]}"
