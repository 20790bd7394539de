"""`python -m tgdt_mini`: the command line of `cli.py`."""

import sys

from tgdt_mini.cli import main

if __name__ == "__main__":
    sys.exit(main())
