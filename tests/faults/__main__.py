"""`python -m tests.faults`: try all kinds of faults; --page writes docs/reliability.md anew."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with threads cannot be forked
sys.path.insert(0, str(ROOT / "tests"))
PAGE, BEGIN = ROOT / "docs" / "reliability.md", "## The last run\n"


def main() -> int:
    from tests.faults import artefacts, commands, doors, foreign, inputs, kills, options
    from tests.faults.outcomes import Table

    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--tries", type=int, default=200, help="of each kind (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", action="store_true", help="put the table into the page")
    args = parser.parse_args()
    tries, table = args.tries, Table()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        artefacts.run(table, root, tries, args.seed)
        foreign.run(table, root, tries, args.seed)
        kills.run(table, root, max(1, 40 // tries), tries // 5, args.seed)
        kills.two_at_once(table, root, max(1, tries // 20))
        commands.kill_all(table, root / "commands", max(1, tries // 20), args.seed)
        inputs.run(table, root / "inputs", tries, args.seed)
        doors.run(table, root / "doors", tries, args.seed)
        options.parsed(table, tries, args.seed)
        options.run(table, root / "options", max(1, tries // 20), args.seed)
    print(table, *table.failures, sep="\n")
    if args.page:
        write_page(table, args.seed)
    return 1 if table.failures else 0


def write_page(table, seed: int) -> None:
    """Put the summary, and the commit that it is of, at the end of the page."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    words = f"Commit {commit}, seed {seed}, Python {sys.version.split()[0]}, {sys.platform}. "
    tried = sum(row["tried"] for row in table.rows.values())
    words += f"{tried:,} tries, of which {len(table.failures) or 'none'} failed."
    text = f"{before}{BEGIN}\n{words}\n\n{table.summary()}\n"
    PAGE.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main())
