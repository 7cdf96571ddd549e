"""Texts of files in the tables of a report."""

__all__ = ["table_cell"]

_LONGEST = 10_000  # characters that are looked at: a text may be a whole book


def table_cell(text: str, *, most: int = 80) -> str:
    r"""Write a text into one cell of a Markdown table.

    Bars and ends of lines are taken out, since they would end the cell. So are
    characters that a terminal would obey, and halves of surrogate pairs, which cannot
    be printed.

    Args:
      text: the text.
      most: maximum number of characters; a longer text is cut.

    Returns:
      The text of the cell.

    >>> table_cell("a | b\nc"), table_cell("x" * 9, most=4)
    ('a / b c', 'xxx…')
    """
    shown = "".join(each if each.isprintable() else " " for each in text[:_LONGEST])
    line = " ".join(shown.replace("|", "/").split())
    return line if len(line) <= most else line[: most - 1] + "…"
