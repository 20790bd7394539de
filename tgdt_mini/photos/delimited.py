"""CSV and TSV files of captions, as people have them: every cell is text.

`datasets` reads them too, but makes numbers of the file names 0012 and 12, and nothing of the
caption "none". Here only an empty cell is nothing.

A cell in quotes may hold line breaks. So a lone " at the start of a cell takes the next rows for
its text, and that is refused.
"""

import csv
import re
from pathlib import Path

from tgdt_mini.files.check import one_line

DELIMITERS = {".csv": ",;|\t", ".tsv": "\t"}  # what may stand between the cells; .csv takes any
BREAK = re.compile(r"\r\n|\r|\n")


def read_delimited(path: Path):
    """The Dataset of a .csv or .tsv file with a header line; all columns are text.

    Raises ValueError for a file without a header, with two columns of one name, or not in UTF-8,
    and for a cell that takes in other rows.
    """
    import pyarrow
    from datasets import Dataset
    from pyarrow import compute
    from pyarrow import csv as reader

    try:
        header, delimiter = _header(path)
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter))]
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"its first line must name each column once, it is {header!r:.80}")
        table = reader.read_csv(
            path,
            reader.ReadOptions(column_names=names, skip_rows=1),
            reader.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            reader.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        # to look at every cell takes seconds per million, so only where a cell has several lines
        if any(compute.any(compute.match_substring_regex(c, r"[\r\n]")).as_py() for c in table):
            _refuse_swallowed_rows(path, delimiter, len(names))
    except (OSError, ValueError, StopIteration, csv.Error, pyarrow.ArrowException) as error:
        why = one_line(error)
        raise ValueError(f"{path} cannot be read as a table: {why}") from None
    return Dataset(table)


def _header(path):
    """(the first line of a table, what stands between its cells)"""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline().rstrip("\r\n")
    if not header:
        raise ValueError("its first line is empty; it must name the columns")
    return header, max(DELIMITERS[path.suffix.lower()], key=header.count)


def _refuse_swallowed_rows(path, delimiter, width):
    """ValueError for a cell that begins with a quote and holds rows of a table of `width` cells."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        file.readline()
        text = file.read()
    between = re.escape(delimiter)
    # "text" with "" for a quote, or "text up to the end of the file; what follows; what ends it
    one = rf'(?:"([^"]*(?:""[^"]*)*)("|\Z))?([^{between}\r\n]*)({between}|\r\n|\r|\n|\Z)'
    place = 0  # of the cell in its row
    for cell in re.finditer(one, text):
        inside, closed, after, end = cell.groups()
        # blank lines at the end of the file are no rows
        lines = BREAK.split((inside if closed else inside.rstrip()) if inside else "")
        if len(lines) > 1 and (after or not closed or _are_rows(lines, place, delimiter, width)):
            line = len(BREAK.findall(text, 0, cell.start())) + 2
            raise ValueError(
                f'the " of line {line}, before {lines[0]!r:.40}, takes the rows up to line '
                f"{line + len(lines) - 1} for one cell; double the quotes, or take them out"
            )
        place = place + 1 if end == delimiter else 0


def _are_rows(lines, place, delimiter, width):
    """Whether the lines of one cell are the rest of a row, whole rows, and the start of one."""
    # a comma with a space behind it is one of a sentence
    counts = [len(re.findall(rf"{re.escape(delimiter)}(?! )", line)) for line in lines]
    whole = all(count == width - 1 for count, line in zip(counts[1:-1], lines[1:-1]) if line)
    return width > 1 and whole and counts[0] == width - 1 - place and counts[-1] == place
