"""A report as text, as `evaluate` prints it: a line for each way of scoring, then the rest.

A report is a dictionary of `report.assess`, fresh or read back from JSON. It may lack parts, such
as the oracle or the hard pairs; then their lines are left out.
"""


def table(report: dict) -> str:
    """The report as lines of text."""
    lines = [
        f"{'':12}{'image -> text':^24}{'text -> image':^24}{'rsum':>7}",
        f"{'':12}" + "".join(f"{name:>8}" for name in ("R@1", "R@5", "R@10") * 2),
        *map(_row, report["rows"], report["rows"].values()),
    ]
    if "zero_shot" in report:
        lines.append(_row("zero-shot", report["zero_shot"]))
    if "oracle" in report:
        lines.append(_row("oracle", report["oracle"]))
    if "mean_of_folds" in report:
        folds = report["mean_of_folds"]
        lines += [
            "",
            f"the mean of {folds['folds']} folds, in order, each searched alone:",
            *map(_row, folds["rows"], folds["rows"].values()),
        ]
    lines += ["", _settings(report["choice"])]
    if "captions_each" in report:
        lines.append(_protocol(report["captions_each"]))
    lines.append(_stage_one(report["shortlist_recall"]["t2i"]))
    if "share_of_oracle" in report:
        lines.append(f"share of the oracle's text -> image R@1: {_each(report['share_of_oracle'])}")
    if "score_correlation" in report:
        correlation = report["score_correlation"]
        lines.append(f"global and local scores of all pairs correlate by {correlation:.2f}")
    if "hard_pairs" in report:
        wins = dict(report["hard_pairs"])
        lines.append(f"hard pairs told apart ({wins.pop('pairs')}): {_each(wins)}")
    if "grounding" in report:
        lines += _grounding(report["grounding"])
    if "pointing" in report:
        lines += _pointing(report["pointing"])
    times = ", ".join(f"{name} {value:.2f}" for name, value in report["milliseconds"].items())
    return "\n".join([*lines, f"milliseconds: {times}"])


def _row(name, row):
    recalls = [*row["i2t"].values(), *row["t2i"].values()]
    figures = [*recalls, row.get("rsum", sum(recalls))]
    return f"{name:12}" + "".join(f"{value:8.1f}" for value in figures)


def _each(percents):
    return ", ".join(f"{name} {value:.1f}%" for name, value in percents.items())


def _settings(choice):
    k = choice["shortlist"]
    return (
        f"shortlists {k['caption']} images for a caption, {k['image']} captions for an image, "
        f"local weight {choice['local_weight']:g}: chosen on validation data"
    )


def _protocol(captions_each):
    """What was counted. captions_each: {captions of an image: how many images have so many}."""
    counts = dict(sorted((int(count), images) for count, images in captions_each.items()))
    images, captions = sum(counts.values()), sum(c * images for c, images in counts.items())
    line = (
        f"{images:,} images and {captions:,} captions, each a query; "
        "an image is found by any of its own"
    )
    if list(counts) == [5]:
        return f"{line}, which are 5"
    each = ", ".join(f"{count} for {images:,}" for count, images in counts.items())
    return f"{line}, which are not 5 for all ({each}): no figure to compare with those over 5"


def _stage_one(recalls):
    each = ", ".join(f"{value:.1f}% at {k}" for k, value in recalls.items())
    return f"text -> image recall of stage one: {each}"


def _grounding(shares):
    names = {"chance": "at random", "oracle": "the oracle", "possible": "at best"}
    bounds = "".join(
        f", {words} {shares[name]:.1f}%" for name, words in names.items() if name in shares
    )
    yield (
        f"words that pick a region of their object ({shares['words']}): {shares['right']:.1f}%"
        + bounds
    )
    if "true" in shares:
        yield (
            f"words that pick an object of which they are true, meant or not: {shares['true']:.1f}%"
        )
    if "settled" in shares:
        yield (
            f"where the caption fits one object alone ({shares['settled']:.1f}% of the words): "
            f"{shares['settled right']:.1f}%"
        )


def _pointing(game):
    for unit, shares in game.items():
        if unit == "content words" and shares == game["words"]:
            continue  # stop words have no local token
        yield (
            f"pointing game, {shares['count']} {unit} with a box: {shares['right']:.1f}% "
            f"(the picture's centre {shares['centre']:.1f}%, at random {shares['random']:.1f}%)"
        )
