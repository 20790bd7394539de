"""The figure to beat: `python notebooks/assignments/project/baseline.py PHOTOGRAPHS --out FOLDER`.

PHOTOGRAPHS is a folder of pictures with metadata.jsonl, as README.md beside this file says. Three
commands of the package do the work: `extract` with the default encoders, then `train` and
`evaluate` for each of three seeds. Each is printed as it runs; the last lines are means over the
seeds, on the validation split, or with --split test on the test split. A seed that is trained is
not trained again. With --extract and --train your own options are tried in the same way. Needs
`pip install -e ".[photos]"` and no model hub.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

SEEDS = (0, 1, 2)
MOST = 512  # pictures in a step, of the default recipe


def run(*words) -> None:
    """Run one command of the package; if it fails, its own message has said why: stop."""
    words = [str(word) for word in words]
    print("$ python -m tgdt_mini", shlex.join(words), flush=True)
    if code := subprocess.run([sys.executable, "-m", "tgdt_mini", *words]).returncode:
        sys.exit(code)


def train_pictures(photographs: Path) -> int:
    """How many pictures of metadata.jsonl have the part `train`."""
    lines = (photographs / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line).get("part") == "train" for line in lines if line.strip())


def table(reports: list[dict]) -> str:
    """Mean ± spread over the seeds of R@1, both ways, and of rsum, for each way to score."""
    lines = [f"{'':<12}{'image -> text R@1':>20}{'text -> image R@1':>20}{'rsum':>16}"]
    for name in ("global", "local", "two-stage"):
        rows = [report["rows"][name] for report in reports]
        columns = ([r["i2t"]["1"] for r in rows], [r["t2i"]["1"] for r in rows])
        cells = [f"{mean(c):.1f} ± {stdev(c):.1f}" for c in (*columns, [r["rsum"] for r in rows])]
        lines.append(f"{name:<12}{cells[0]:>20}{cells[1]:>20}{cells[2]:>16}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path, help="pictures and metadata.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/project"), help="where to write")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--extract", default="", help='such as --extract="--side 288 --mirrored"')
    parser.add_argument("--train", default="", help='such as --train="--epochs 40"')
    args = parser.parse_args()
    if not (args.photographs / "metadata.jsonl").is_file():
        parser.error(f"{args.photographs} has no metadata.jsonl: README.md says what it holds")
    if (count := train_pictures(args.photographs)) < 20:
        parser.error(f"{count} pictures have the part train; 20 are the least, 100 a beginning")
    data = ("--data", args.photographs, "--columns", "split=part")
    features, reports = args.out / "features", []
    run("extract", *data, *shlex.split(args.extract), "--out", features)
    options = ("--batch", min(MOST, count // 2), *shlex.split(args.train))
    for seed in SEEDS:
        out = args.out / str(seed)
        judged = ("--split", args.split, "--out", out / args.split)
        if not (out / "model").is_dir():
            run("train", "--features", features, *options, "--seed", seed, "--out", out)
        run("evaluate", "--features", features, "--model", out / "model", *judged)
        report = out / args.split / "results.json"
        reports.append(json.loads(report.read_text(encoding="utf-8")))
    pictures = reports[0]["images"]
    print(f"\n{args.split}: {pictures} pictures; mean ± spread over {len(SEEDS)} seeds")
    print(table(reports))


if __name__ == "__main__":
    main()
