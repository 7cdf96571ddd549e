"""Which sentences were picked, by their kind and by their relation to the patient.

Nobody reports it: it tells what sort of noise does the harm.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from jeff_llm.clinic.kinds import KINDS
from jeff_llm.clinic.maze import SOURCES, Maze

__all__ = ["KindShares", "Picks", "Share", "by_kind", "by_source", "check_picks"]

# Of one maze: places in its list, or None for a reply that could not be read.
Picks: TypeAlias = Sequence[int] | None


class Share(NamedTuple):
    """A share and the counts behind it.

    Attributes:
      share: ``picked / listed``; NaN if nothing was listed.
      picked: sentences that were picked.
      listed: sentences that could be picked.
    """

    share: float
    picked: int
    listed: int


class KindShares(NamedTuple):
    """What was picked of one kind of sentence.

    Attributes:
      evidence: share of the evidence of the kind.
      distractors: share of the distractors of the kind.
    """

    evidence: Share
    distractors: Share


def check_picks(mazes: Sequence[Maze], picks: Sequence[Picks]) -> None:
    """Check that picks fit their mazes.

    Args:
      mazes: the tasks.
      picks: of each, different places in its list, at most as many as there is
        evidence; None where the reply could not be read.

    Raises:
      ValueError: if there is no maze, the lengths differ, or a place is out of range,
        occurs twice, or is one too many.
    """
    if not mazes:
        raise ValueError("mazes: expected at least one maze, got none")
    if len(picks) != len(mazes):
        raise ValueError(f"picks: expected {len(mazes)}, one a maze, got {len(picks)}")
    for number, (maze, chosen) in enumerate(zip(mazes, picks, strict=True)):
        if chosen is None:
            continue
        in_range = all(0 <= each < len(maze.listed) for each in chosen)
        different = len(set(chosen)) == len(chosen)
        if not in_range or not different or len(chosen) > len(maze.gold):
            raise ValueError(
                f"picks: expected at most {len(maze.gold)} different places from 0 to "
                f"{len(maze.listed) - 1}, got {tuple(chosen)} for maze {number} "
                f"({maze.item.id!r})"
            )


def by_source(mazes: Sequence[Maze], picks: Sequence[Picks]) -> dict[str, Share]:
    """Share of the distractors that were picked, by relation to the patient.

    Args:
      mazes: the tasks.
      picks: as in `check_picks`; mazes with None are left out, since a reply that could
        not be read says nothing about distractors.

    Returns:
      A share for each source but "evidence".

    Raises:
      ValueError: as `check_picks`.
    """
    check_picks(mazes, picks)
    return {
        source: _share(
            mazes, picks, lambda maze, at, source=source: maze.sources[at] == source
        )
        for source in SOURCES
        if source != "evidence"
    }


def by_kind(mazes: Sequence[Maze], picks: Sequence[Picks]) -> dict[str, KindShares]:
    """Shares of evidence and of distractors that were picked, by kind of sentence.

    Args:
      mazes: the tasks.
      picks: as in `by_source`.

    Returns:
      Two shares for each of `jeff_llm.clinic.kinds.KINDS`.

    Raises:
      ValueError: as `check_picks`.
    """
    check_picks(mazes, picks)

    def share(kind: str, evidence: bool) -> Share:
        return _share(
            mazes,
            picks,
            lambda maze, at: (
                maze.kinds[at] == kind and (maze.sources[at] == "evidence") == evidence
            ),
        )

    return {kind: KindShares(share(kind, True), share(kind, False)) for kind in KINDS}


def _share(
    mazes: Sequence[Maze],
    picks: Sequence[Picks],
    counts: Callable[[Maze, int], bool],
) -> Share:
    picked = listed = 0
    for maze, chosen in zip(mazes, picks, strict=True):
        if chosen is not None:
            listed += sum(counts(maze, at) for at in range(len(maze.listed)))
            picked += sum(counts(maze, at) for at in chosen)
    return Share(picked / listed if listed else float("nan"), picked, listed)
