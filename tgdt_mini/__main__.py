"""`python -m tgdt_mini`: the command line of `cli.py`."""

import sys

if __name__ == "__main__":
    try:
        from tgdt_mini.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main())
