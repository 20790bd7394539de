"""What a search gives back: printed as a table, shown with pictures in a notebook, or JSON.

Q queries, k items for each of them.
"""

import base64
import html
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tgdt_mini.files.check import shown


@dataclass(frozen=True)
class Hits:
    """The k best items for each of Q queries, best first; `print` shows them as a table.

    hits[0] are those of the first query, a list of {"rank", "item", "score"}.
    """

    indices: torch.Tensor  # (Q, k) rows of the gallery
    scores: torch.Tensor  # (Q, k)
    items: list[list]  # Q lists of k items
    seconds: dict[str, float]  # {"shortlist": ..., "rerank": ...}, for all queries together
    # from an item to its PIL picture, or to a str, for notebooks; `Retriever.search` sets it
    picture_of: Callable | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        for name in ("indices", "scores"):
            if not isinstance(value := getattr(self, name), torch.Tensor):
                raise TypeError(f"{name} is {shown(value)}; it must be a Tensor")
        if self.picture_of is not None and not callable(self.picture_of):
            raise TypeError(f"picture_of is {shown(self.picture_of)}; it must be a function")

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(self.rows())

    def __getitem__(self, query: int) -> list[dict]:
        """The hits of one query, as `rows` has them."""
        return self.rows()[query]

    def to_json(self) -> str:
        """All hits as JSON: for each query a list of {"rank", "item", "score"}."""
        return json.dumps(self.rows())

    def __str__(self):
        lines = []
        for number, rows in enumerate(self.rows(), start=1):
            lines += [f"query {number}"] if len(self.items) > 1 else []
            lines += ["rank   score  item"]
            lines += [
                f"{row['rank']:4}  {row['score']:6.3f}  {in_one_line(row['item'])}" for row in rows
            ]
        return "\n".join(lines)

    def _repr_html_(self):
        """The hits as a table with small pictures, for a notebook."""
        tables = []
        for rows in self.rows():
            cells = (
                f"<td style='text-align: center'>{_thumbnail(row['item'], self.picture_of)}<br>"
                f"{row['rank']}: {row['score']:.3f}<br>{html.escape(str(row['item']))}</td>"
                for row in rows
            )
            tables.append(f"<table><tr>{''.join(cells)}</tr></table>")
        return "".join(tables)

    def rows(self) -> list[list[dict]]:
        """For each query a list of {"rank", "item", "score"}, best first."""
        return [
            [
                {"rank": rank, "item": item, "score": round(score, 6)}
                for rank, (item, score) in enumerate(zip(items, scores), start=1)
            ]
            for items, scores in zip(self.items, self.scores.tolist())
        ]


def in_one_line(item) -> str:
    """An item as it is printed: a line break or a control sign in it as its number."""
    signs = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(item))
    return "".join(signs)


def _thumbnail(item, picture_of):
    """An HTML picture of at most 112 pixels, "" where there is none."""
    picture = picture_of(item) if picture_of else None
    if picture is None or isinstance(picture, str):
        return ""
    picture.thumbnail((112, 112))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'>"
