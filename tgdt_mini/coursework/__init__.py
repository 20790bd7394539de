"""What the tests of the assignments call: comparison with messages that teach, and only own code.

The assignments lie in `notebooks/assignments`. Their test cells import from here, so that a
notebook alone, opened anywhere beside an installed package, can be worked through and graded.
"""

from tgdt_mini.coursework.checks import check, when_written
from tgdt_mini.coursework.guard import NotOwnCode, only_own_code

__all__ = ["NotOwnCode", "check", "only_own_code", "when_written"]
