"""Write tables in Markdown: results, benchmark and documentation use this one format."""


def table(heads, rows) -> str:
    """A Markdown table: one line of heads, one line for each row of cells, which may be any values.

    Example: table(("word", "ids"), [("star", 7)]) -> "| word | ids |\\n|---|---|\\n| star | 7 |"
    """
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (heads, *rows)]
    lines.insert(1, "|---" * len(heads) + "|")
    return "\n".join(lines)
