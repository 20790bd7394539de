"""The figures of the project: curves, bars, searches, and the regions that words look at.

Each function takes data, draws on a new figure and, given a path, saves it there as PNG. All return
None, so that a notebook shows the picture and nothing else. No figure computes a number that a text
needs.
"""

from tgdt_mini.reports.figure import COLOURS, WIDEST, figure, plain
from tgdt_mini.reports.plots.answers import GREY, IN_A_ROW, hits, marks
from tgdt_mini.reports.plots.curves import comparison, loss_curve, search_times, shortlist_curve
from tgdt_mini.reports.plots.words import WORDS, shaded, word_regions, word_table

__all__ = [
    "COLOURS",
    "GREY",
    "IN_A_ROW",
    "WIDEST",
    "WORDS",
    "comparison",
    "figure",
    "hits",
    "loss_curve",
    "marks",
    "plain",
    "search_times",
    "shaded",
    "shortlist_curve",
    "word_regions",
    "word_table",
]
