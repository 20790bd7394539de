"""CSV and TSV files of captions, as people have them: every cell is text.

`datasets` reads them too, but makes numbers of the file names 0012 and 12, and nothing of the
caption "none". Here only an empty cell is nothing.
"""

import csv
from pathlib import Path

from tgdt_mini.files.check import one_line

DELIMITERS = {".csv": ",;|\t", ".tsv": "\t"}  # what may stand between the cells; .csv takes any


def read_delimited(path: Path):
    """The Dataset of a .csv or .tsv file with a header line; all columns are text.

    Raises ValueError for a file without a header, with two columns of one name, or not in UTF-8.
    """
    import pyarrow
    from datasets import Dataset
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
