"""Tables become text: columns of equal width for a terminal, or Markdown."""

from collections.abc import Iterable, Sequence


def text_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, align: str = "l", indent: int = 0
) -> list[str]:
    """Return lines whose columns are two spaces apart, under the headings `columns` (none: no line of headings).

    `align` has "l" (left) or "r" (right) for each column; its last letter holds for all that follow.
    """
    lines = [*([columns] if columns else []), *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    sides = align.ljust(len(widths), align[-1])
    return [
        " " * indent
        + "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, sides, strict=False)
        ).rstrip()
        for line in lines
    ]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown; a bar in a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
