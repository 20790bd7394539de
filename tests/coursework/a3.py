"""Answers to A3, the CMC loss and its traps."""

import importlib
import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from coursework import Answers
from tgdt_mini import global_similarity, hinge_loss, local_similarity

a3 = Answers()
hinge = consistency = None  # the student's functions take their places when an answer is tried


@a3.wrong("info_nce", says="each column is a question, too")
def rows_only(scores, temperature, positives=None):
    logits = scores / temperature
    if positives is not None:
        logits = logits.masked_fill(
            positives & ~torch.eye(len(scores), dtype=torch.bool), -torch.inf
        )
    return cross_entropy(logits, torch.arange(len(scores)))


@a3.wrong("info_nce", says="each row is a question, too")
def columns_only(scores, temperature, positives=None):
    return cross_entropy(scores.T / temperature, torch.arange(len(scores)))


@a3.wrong("info_nce", says="you took a sum")
def directions_added(scores, temperature, positives=None):
    logits, right = scores / temperature, torch.arange(len(scores))
    return cross_entropy(logits, right) + cross_entropy(logits.T, right)


@a3.wrong("info_nce", says="you took a sum")
def summed_over_the_batch(scores, temperature, positives=None):
    logits, right = scores / temperature, torch.arange(len(scores))
    rows = cross_entropy(logits, right, reduction="sum")
    return (rows + cross_entropy(logits.T, right, reduction="sum")) / 2


@a3.wrong("info_nce", says="you multiplied")
def temperature_multiplied(scores, temperature, positives=None):
    logits, right = scores * temperature, torch.arange(len(scores))
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


@a3.wrong("info_nce", says="forgot the temperature")
def without_temperature(scores, temperature, positives=None):
    right = torch.arange(len(scores))
    return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2


@a3.wrong("info_nce", says="over the whole table")
def softmax_over_the_table(scores, temperature, positives=None):
    shares = (scores / temperature).flatten().softmax(dim=0).reshape(scores.shape)
    return -shares.diagonal().log().mean()


@a3.wrong("info_nce", says="you took 1 - share")
def no_logarithm(scores, temperature, positives=None):
    logits = scores / temperature
    shares = logits.softmax(dim=0) + logits.softmax(dim=1)
    return 1 - shares.diagonal().mean() / 2


@a3.wrong("info_nce", says="you lost the minus")
def no_minus(scores, temperature, positives=None):
    logits = scores / temperature
    both = logits.log_softmax(dim=0) + logits.log_softmax(dim=1)
    return both.diagonal().mean() / 2


@a3.wrong("info_nce", says="carries a gradient")
def detached(scores, temperature, positives=None):
    logits, right = scores.detach() / temperature, torch.arange(len(scores))
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


@a3.wrong("info_nce", says="a tensor was asked for")
def as_a_python_number(scores, temperature, positives=None):
    logits, right = scores / temperature, torch.arange(len(scores))
    return ((cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2).item()


@a3.wrong("info_nce", says="you did not use `positives`")
def diagonal_is_the_only_match(scores, temperature, positives=None):
    logits, right = scores / temperature, torch.arange(len(scores))
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


@a3.wrong("info_nce", says="still counts exp(0) = 1")
def zero_for_minus_infinity(scores, temperature, positives=None):
    logits, right = scores / temperature, torch.arange(len(scores))
    if positives is not None:
        logits = logits.masked_fill(positives & ~torch.eye(len(scores), dtype=torch.bool), 0)
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


@a3.wrong("info_nce", says="only the diagonal stands above the line")
def all_matches_above_the_line(scores, temperature, positives=None):
    shares = (scores / temperature).exp()
    if positives is None:
        positives = torch.eye(len(scores), dtype=torch.bool)
    true = shares * positives
    return -((true.sum(0) / shares.sum(0)).log() + (true.sum(1) / shares.sum(1)).log()).mean() / 2


@a3.wrong("info_nce", says="the pair itself stays in the sum")
def pair_leaves_the_sum_with_the_others(scores, temperature, positives=None):
    logits = scores / temperature
    rest = logits
    if positives is not None:
        rest = logits.masked_fill(positives, -torch.inf)
    return (rest.logsumexp(0) + rest.logsumexp(1) - 2 * logits.diagonal()).mean() / 2


@a3.wrong("info_nce", says="the columns have them, too")
def matches_leave_the_rows_only(scores, temperature, positives=None):
    logits, right = scores / temperature, torch.arange(len(scores))
    kept = logits
    if positives is not None:
        kept = logits.masked_fill(positives & ~torch.eye(len(scores), dtype=torch.bool), -torch.inf)
    return (cross_entropy(kept, right) + cross_entropy(logits.T, right)) / 2


@a3.wrong("info_nce", says="turn `positives` round")
def mask_is_not_transposed(scores, temperature, positives=None):
    off = torch.zeros_like(scores, dtype=torch.bool)
    if positives is not None:
        off = positives & ~torch.eye(len(scores), dtype=torch.bool)
    logits, right = scores / temperature, torch.arange(len(scores))
    rows = cross_entropy(logits.masked_fill(off, -torch.inf), right)
    return (rows + cross_entropy(logits.T.masked_fill(off, -torch.inf), right)) / 2


@a3.wrong("info_nce", says="changes what it is given")
def divides_the_callers_scores(scores, temperature, positives=None):
    with torch.no_grad():
        scores /= temperature
    right = torch.arange(len(scores))
    return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2


@a3.wrong("info_nce", says="the example only")
def knows_the_examples(scores, temperature, positives=None):
    logits, right = scores / temperature, torch.arange(len(scores))
    if positives is not None:
        logits = logits.clone()
        logits[0, 1] = logits[1, 0] = -torch.inf
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


@a3.wrong("info_nce", says="the columns 0.513 each")
def a_number_from_the_text(scores, temperature, positives=None):
    return torch.tensor(0.551)


@a3.wrong("info_nce", says="info_nce_loss does what you are asked to write")
def asks_the_package_for_info_nce(scores, temperature, positives=None):
    return importlib.import_module("tgdt_mini.losses").info_nce_loss(scores, temperature, positives)


@a3.right("info_nce")
def by_logsumexp(scores, temperature, positives=None):
    logits = scores / temperature
    if positives is not None:
        logits = torch.where(
            positives & ~torch.eye(len(scores), dtype=torch.bool), -torch.inf, logits
        )
    return (logits.logsumexp(0) + logits.logsumexp(1) - 2 * logits.diagonal()).mean() / 2


@a3.right("info_nce")
def line_by_line(scores, temperature, positives=None):
    total, count = 0, len(scores)
    for i in range(count):
        for way in ("row", "column"):
            shares = 0
            for j in range(count):
                at = (i, j) if way == "row" else (j, i)
                if j == i or positives is None or not positives[at]:
                    shares = shares + torch.exp(scores[at] / temperature)
            total = total - torch.log(torch.exp(scores[i, i] / temperature) / shares)
    return total / count / 2


@a3.right("info_nce")
def by_shares_and_einsum(scores, temperature, positives=None):
    shares = (scores / temperature).exp()
    kept = torch.ones_like(scores)
    if positives is not None:
        kept[positives] = 0
        kept.fill_diagonal_(1)
    rows, columns = torch.einsum("ij,ij->i", shares, kept), torch.einsum("ij,ij->j", shares, kept)
    pairs = torch.einsum("ii->i", shares)
    return -0.5 * ((pairs / rows).log() + (pairs / columns).log()).mean()


def costs_of(scores, margin, positives):
    """(costs in rows, costs in columns, which scores are negatives), for the answers below."""
    allowed = ~torch.eye(len(scores), dtype=torch.bool)
    if positives is not None:
        allowed = allowed & ~positives
    pairs = scores.diagonal()
    rows = (margin + scores - pairs[:, None]).clamp(min=0).masked_fill(~allowed, 0)
    columns = (margin + scores - pairs[None, :]).clamp(min=0).masked_fill(~allowed, 0)
    return rows, columns, allowed


@a3.wrong("hinge", says="you forgot the columns")
def hinge_of_the_rows(scores, margin=0.2, positives=None, negatives="hardest"):
    match = torch.eye(len(scores), dtype=torch.bool)
    if positives is not None:
        match = match | positives
    costs = (margin + scores - scores.diagonal()[:, None]).clamp(min=0).masked_fill(match, 0)
    return costs.amax(dim=1).mean()


@a3.wrong("hinge", says="you forgot the rows")
def hinge_of_the_columns(scores, margin=0.2, positives=None, negatives="hardest"):
    return costs_of(scores, margin, positives)[1].amax(dim=0).mean()


@a3.wrong("hinge", says="divide by B")
def hinge_summed(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    return rows.amax(dim=1).sum() + columns.amax(dim=0).sum()


@a3.wrong("hinge", says="mean of rows and columns")
def hinge_halved(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean() / 2


@a3.wrong("hinge", says="not by all B * B scores")
def hinge_over_the_table(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    return (rows.amax(dim=1) + columns.amax(dim=0)).sum() / scores.numel()


@a3.wrong("hinge", says="leave the diagonal out first")
def pair_as_its_own_negative(scores, margin=0.2, positives=None, negatives="hardest"):
    rows = margin + scores.amax(dim=1) - scores.diagonal()
    columns = margin + scores.amax(dim=0) - scores.diagonal()
    return (rows.clamp(min=0) + columns.clamp(min=0)).mean()


@a3.wrong("hinge", says="the margin helps the negative")
def margin_subtracted(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, -margin, positives)
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="you turned it round")
def pair_minus_negative(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(-scores, margin, positives)
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="costs 0, never less")
def hinge_without_the_hinge(scores, margin=0.2, positives=None, negatives="hardest"):
    off = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -torch.inf)
    return (2 * margin + off.amax(dim=1) + off.amax(dim=0) - 2 * scores.diagonal()).mean()


@a3.wrong("hinge", says="you compared with the pairs of the rows")
def pairs_of_the_rows_in_columns(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, _, _ = costs_of(scores, margin, positives)
    return (rows.amax(dim=1) + rows.amax(dim=0)).mean()


@a3.wrong("hinge", says="you added all of them")
def all_negatives_added(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    return (rows.sum(dim=1) + columns.sum(dim=0)).mean()


@a3.wrong("hinge", says="you did not use `negatives`")
def always_the_hardest(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="the default is the hardest negative")
def always_the_mean(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, allowed = costs_of(scores, margin, positives)
    return (
        rows.sum(1) / allowed.sum(1).clamp(min=1) + columns.sum(0) / allowed.sum(0).clamp(min=1)
    ).mean()


@a3.wrong("hinge", says="you divided by 3")
def mean_over_all_of_the_row(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    if negatives == "mean":
        return (rows.mean(dim=1) + columns.mean(dim=0)).mean()
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="you changed the order")
def hinge_of_the_mean(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    if negatives == "hardest":
        return (rows.amax(dim=1) + columns.amax(dim=0)).mean()
    off, pairs = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), 0), scores.diagonal()
    lines = (margin + off.sum(dim=way) / (len(scores) - 1) - pairs for way in (0, 1))
    return sum(line.clamp(min=0) for line in lines).mean()


@a3.wrong("hinge", says="negatives that cost 0 count in the mean")
def mean_of_those_that_cost(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    if negatives == "hardest":
        return (rows.amax(dim=1) + columns.amax(dim=0)).mean()
    lines = (table.sum(1) / (table > 0).sum(1).clamp(min=1) for table in (rows, columns.T))
    return sum(lines).mean()


@a3.wrong("hinge", says="captions of one picture are no negatives")
def hinge_on_the_diagonal_alone(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, None)
    if negatives == "mean":
        return (rows.sum(dim=1) + columns.sum(dim=0)).mean() / (len(scores) - 1)
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="the number of negatives that are left")
def mean_over_b_minus_one(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, _ = costs_of(scores, margin, positives)
    if negatives == "mean":
        return (rows.sum(dim=1) + columns.sum(dim=0)).mean() / (len(scores) - 1)
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="the mean over no negatives is nan")
def nan_without_negatives(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, allowed = costs_of(scores, margin, positives)
    if negatives == "mean":
        return (rows.sum(1) / allowed.sum(1) + columns.sum(0) / allowed.sum(0)).mean()
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="a pair that is set to 0 wins over negatives below 0")
def zero_for_the_pair(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, allowed = costs_of(scores, margin, positives)
    if negatives == "mean":
        return (rows.sum(1) / allowed.sum(1) + columns.sum(0) / allowed.sum(0)).mean()
    others = scores.masked_fill(~allowed, 0)
    hardest = (margin + others.amax(way) - scores.diagonal() for way in (0, 1))
    return sum(line.clamp(min=0) for line in hardest).mean()


@a3.wrong("hinge", says="you wrote the margin in")
def margin_written_in(scores, margin=0.2, positives=None, negatives="hardest"):
    rows, columns, allowed = costs_of(scores, 0.2, positives)
    if negatives == "mean":
        return (rows.sum(1) / allowed.sum(1) + columns.sum(0) / allowed.sum(0)).mean()
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="turn `positives` round")
def hinge_mask_not_transposed(scores, margin=0.2, positives=None, negatives="hardest"):
    def lines(table):
        rows, _, allowed = costs_of(table, margin, positives)
        return rows.amax(1) if negatives == "hardest" else rows.sum(1) / allowed.sum(1).clamp(min=1)

    return (lines(scores) + lines(scores.T)).mean()


@a3.wrong("hinge", says="no gradient reaches it")
def pair_is_detached(scores, margin=0.2, positives=None, negatives="hardest"):
    pairs = scores.diagonal().detach()
    allowed = costs_of(scores, margin, positives)[2]
    rows = (margin + scores - pairs[:, None]).clamp(min=0).masked_fill(~allowed, 0)
    columns = (margin + scores - pairs).clamp(min=0).masked_fill(~allowed, 0)
    if negatives == "mean":
        return (rows.sum(1) / allowed.sum(1) + columns.sum(0) / allowed.sum(0)).mean()
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="changes what it is given")
def fills_the_callers_diagonal(scores, margin=0.2, positives=None, negatives="hardest"):
    pairs = scores.diagonal().clone()
    scores.fill_diagonal_(-torch.inf)
    rows, columns = margin + scores.amax(1) - pairs, margin + scores.amax(0) - pairs
    return (rows.clamp(min=0) + columns.clamp(min=0)).mean()


@a3.wrong("hinge", says="the example only")
def hinge_of_three_pairs(scores, margin=0.2, positives=None, negatives="hardest"):
    allowed = ~torch.eye(len(scores), dtype=torch.bool)
    if positives is not None:
        allowed[0, 1] = allowed[1, 0] = False
    rows, columns, allowed = costs_of(scores, margin, ~allowed)
    if negatives == "mean":
        return (
            rows.sum(1) / allowed.sum(1).clamp(min=1) + columns.sum(0) / allowed.sum(0).clamp(min=1)
        ).mean()
    return (rows.amax(dim=1) + columns.amax(dim=0)).mean()


@a3.wrong("hinge", says="hinge_loss does what you are asked to write")
def asks_the_package_for_hinge(scores, margin=0.2, positives=None, negatives="hardest"):
    return hinge_loss(scores, margin, positives, negatives)


@a3.wrong("hinge", says="_hinge_rows does what you are asked to write")
def asks_the_packages_helper(scores, margin=0.2, positives=None, negatives="hardest"):
    lines = importlib.import_module("tgdt_mini.losses")._hinge_rows
    allowed, pairs = costs_of(scores, margin, positives)[2], scores.diagonal()
    rows = lines(scores, pairs, allowed, margin, negatives)
    return (rows + lines(scores.T, pairs, allowed.T, margin, negatives)).mean()


@a3.right("hinge")
def negative_by_negative(scores, margin=0.2, positives=None, negatives="hardest"):
    total, count = scores.new_zeros(()), len(scores)
    for i in range(count):
        rows, columns = [], []
        for j in range(count):
            if i != j and (positives is None or not positives[i, j]):
                rows.append(torch.clamp(margin + scores[i, j] - scores[i, i], min=0))
            if i != j and (positives is None or not positives[j, i]):
                columns.append(torch.clamp(margin + scores[j, i] - scores[i, i], min=0))
        for costs in (rows, columns):
            if costs:
                total = total + (max(costs) if negatives == "hardest" else sum(costs) / len(costs))
    return total / count


@a3.right("hinge")
def hardest_score_first(scores, margin=0.2, positives=None, negatives="hardest"):
    match = torch.eye(len(scores), dtype=torch.bool)
    match = match if positives is None else match | positives
    pairs = torch.diagonal(scores)
    if negatives == "hardest":
        others = scores.masked_fill(match, -torch.inf)
        rows, columns = others.max(dim=1).values - pairs, others.max(dim=0).values - pairs
        return (torch.relu(margin + rows) + torch.relu(margin + columns)).sum() / len(scores)
    weights = (~match).to(scores.dtype)
    rows = torch.einsum("ij,ij->i", torch.relu(margin + scores - pairs.unsqueeze(1)), weights)
    columns = torch.einsum("ij,ij->j", torch.relu(margin + scores - pairs.unsqueeze(0)), weights)
    rows = rows / weights.sum(dim=1).clamp(min=1)
    return (rows + columns / weights.sum(dim=0).clamp(min=1)).mean()


@a3.right("hinge")
def by_nan(scores, margin=0.2, positives=None, negatives="hardest"):
    match = torch.eye(len(scores), dtype=torch.bool)
    match = match if positives is None else match | positives
    lines = []
    for table, true in ((scores, match), (scores.t(), match.t())):
        for i in range(len(table)):
            costs = (margin + table[i][~true[i]] - table[i, i]).clamp(min=0)
            if len(costs):
                lines.append(costs.max() if negatives == "hardest" else costs.mean())
    return torch.stack(lines).sum() / len(scores) if lines else scores.sum() * 0


@a3.wrong("consistency", says="not the sum")
def consistency_summed(images, captions, margin=0.3):
    gap = (captions @ captions.T - images @ images.T).abs()
    return (gap.amax(dim=0) - margin).clamp(min=0).sum()


@a3.wrong("consistency", says="you took the worst of the whole table")
def worst_of_the_table(images, captions, margin=0.3):
    gap = (captions @ captions.T - images @ images.T).abs()
    return (gap.max() - margin).clamp(min=0)


@a3.wrong("consistency", says="you took the mean over its partners")
def mean_over_partners(images, captions, margin=0.3):
    gap = (captions @ captions.T - images @ images.T).abs()
    return (gap.mean(dim=0) - margin).clamp(min=0).mean()


@a3.wrong("consistency", says="costs 0, never less")
def less_than_nothing(images, captions, margin=0.3):
    gap = (captions @ captions.T - images @ images.T).abs()
    return (gap.amax(dim=0) - margin).mean()


@a3.wrong("consistency", says="you forgot the margin")
def without_margin(images, captions, margin=0.3):
    return (captions @ captions.T - images @ images.T).abs().amax(dim=0).mean()


@a3.wrong("consistency", says="you added it")
def margin_added(images, captions, margin=0.3):
    gap = (captions @ captions.T - images @ images.T).abs()
    return (gap.amax(dim=0) + margin).clamp(min=0).mean()


@a3.wrong("consistency", says="not over B * B")
def mean_over_the_table(images, captions, margin=0.3):
    gap = (captions @ captions.T - images @ images.T).abs()
    return (gap.amax(dim=0) - margin).clamp(min=0).sum() / gap.numel()


@a3.wrong("consistency", says="you forgot the absolute value")
def without_absolute_value(images, captions, margin=0.3):
    gap = captions @ captions.T - images @ images.T
    return (gap.amax(dim=0) - margin).clamp(min=0).mean()


@a3.wrong("consistency", says="captions with captions, pictures with pictures")
def across(images, captions, margin=0.3):
    gap = (captions @ images.T - images @ images.T).abs()
    return (gap.amax(dim=0) - margin).clamp(min=0).mean()


@a3.wrong("consistency", says="captions with captions, pictures with pictures")
def columns_of_the_table(images, captions, margin=0.3):
    gap = (captions.T @ captions - images.T @ images).abs()
    return (gap.amax(dim=0) - margin).clamp(min=0).mean()


@a3.wrong("consistency", says="no gradient reaches the pictures")
def pictures_detached(images, captions, margin=0.3):
    gap = (captions @ captions.T - (images @ images.T).detach()).abs()
    return (gap.amax(dim=0) - margin).clamp(min=0).mean()


@a3.wrong("consistency", says="no gradient reaches the captions")
def captions_detached(images, captions, margin=0.3):
    captions = captions.detach()
    gap = (captions @ captions.T - images @ images.T).abs()
    return (gap.amax(dim=0) - margin).clamp(min=0).mean()


@a3.wrong("consistency", says="carries a gradient")
def through_numpy(images, captions, margin=0.3):
    images, captions = images.detach().numpy(), captions.detach().numpy()
    gap = np.abs(captions @ captions.T - images @ images.T)
    return torch.as_tensor(np.maximum(gap.max(axis=0) - margin, 0).mean(dtype=gap.dtype))


@a3.wrong("consistency", says="you wrote it in")
def consistency_margin_written_in(images, captions, margin=0.3):
    gap = (captions @ captions.T - images @ images.T).abs()
    return (gap.amax(dim=0) - 0.3).clamp(min=0).mean()


@a3.wrong("consistency", says="changes what it is given")
def subtracts_in_place(images, captions, margin=0.3):
    gap = (captions @ captions.T - images @ images.T).abs().amax(dim=0)
    with torch.no_grad():
        images.sub_(images)
    return (gap - margin).clamp(min=0).mean()


@a3.wrong("consistency", says="the example only")
def three_partners(images, captions, margin=0.3):
    gap = (captions @ captions[:3].T - images @ images[:3].T).abs()
    return (gap.amax(dim=1) - margin).clamp(min=0).mean()


@a3.wrong("consistency", says="at worst")
def a_constant(images, captions, margin=0.3):
    return (images + captions).sum() * 0 + 0.25


@a3.wrong("consistency", says="consistency_loss does what you are asked to write")
def asks_the_package_for_consistency(images, captions, margin=0.3):
    return importlib.import_module("tgdt_mini").consistency_loss(images, captions, margin)


@a3.right("consistency")
def pair_by_pair(images, captions, margin=0.3):
    total, count = 0, len(images)
    for j in range(count):
        gaps = []
        for i in range(count):
            gaps.append(((captions[i] * captions[j]).sum() - (images[i] * images[j]).sum()).abs())
        worst = max(gaps)
        if worst > margin:
            total = total + worst - margin
    return torch.as_tensor(total / count, dtype=images.dtype)


@a3.right("consistency")
def by_einsum(images, captions, margin=0.3):
    gap = torch.einsum("id,jd->ij", captions, captions) - torch.einsum("id,jd->ij", images, images)
    return torch.relu(gap.abs().max(dim=1).values - margin).sum() / images.shape[0]


@a3.right("consistency")
def numpy_like(images, captions, margin=0.3):
    inner = torch.inner(captions, captions) - torch.inner(images, images)
    worst = torch.maximum(inner, -inner).amax(1)
    return torch.where(worst > margin, worst - margin, torch.zeros_like(worst)).mean()


def words_to_regions(images, captions, add_up=False):
    """(B, B) local scores by einsum, for the answers below."""
    products = torch.einsum("ird,cwd->icwr", images.local_tokens, captions.local_tokens)
    best = products.masked_fill(~images.mask[:, None, None], -torch.inf).amax(dim=3)
    best = best.masked_fill(~captions.mask, 0).sum(dim=2)  # (I, C)
    return best if add_up else best / captions.mask.sum(dim=1)


@a3.wrong("cmc", says="you forgot the consistency term")
def without_consistency(images, captions, image_ids):
    same = image_ids[:, None] == image_ids
    scores = global_similarity(images, captions), local_similarity(images, captions)
    return hinge(scores[0], positives=same) + hinge(scores[1], positives=same)


@a3.wrong("cmc", says="you forgot the local scores")
def without_local_scores(images, captions, image_ids):
    same = image_ids[:, None] == image_ids
    apart = consistency(images.global_token, captions.global_token)
    return hinge(global_similarity(images, captions), positives=same) + apart


@a3.wrong("cmc", says="you forgot the global scores")
def without_global_scores(images, captions, image_ids):
    same = image_ids[:, None] == image_ids
    apart = consistency(images.global_token, captions.global_token)
    return hinge(local_similarity(images, captions), positives=same) + apart


def summed(images, captions, image_ids, hinge, consistency, local, **settings):
    """The loss with another table of local scores."""
    same = image_ids[:, None] == image_ids
    between = hinge(images.global_token @ captions.global_token.T, positives=same, **settings)
    apart = consistency(images.global_token, captions.global_token)
    return between + hinge(local, positives=same, **settings) + apart


@a3.wrong("cmc", says="you took their sum")
def words_added(images, captions, image_ids):
    local = words_to_regions(images, captions, add_up=True)
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="has the regions look for words")
def regions_to_words(images, captions, image_ids):
    local = words_to_regions(captions, images).T
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="you took their mean")
def mean_of_the_parts(images, captions, image_ids):
    local = local_similarity(images, captions)
    return summed(images, captions, image_ids, hinge, consistency, local) / 3


@a3.wrong("cmc", says="you did not use `image_ids`")
def pairs_are_all_different(images, captions, image_ids):
    other = torch.arange(len(image_ids))
    return summed(images, captions, other, hinge, consistency, local_similarity(images, captions))


@a3.wrong("cmc", says="matter for the local scores, too")
def ids_for_global_scores_only(images, captions, image_ids):
    same = image_ids[:, None] == image_ids
    between = hinge(global_similarity(images, captions), positives=same)
    apart = consistency(images.global_token, captions.global_token)
    return between + hinge(local_similarity(images, captions)) + apart


@a3.wrong("cmc", says="matter for the global scores, too")
def ids_for_local_scores_only(images, captions, image_ids):
    same = image_ids[:, None] == image_ids
    between = hinge(local_similarity(images, captions), positives=same)
    apart = consistency(images.global_token, captions.global_token)
    return between + hinge(global_similarity(images, captions)) + apart


@a3.wrong("cmc", says="a padded word means nothing")
def padded_words_count(images, captions, image_ids):
    products = torch.einsum("ird,cwd->icwr", images.local_tokens, captions.local_tokens)
    local = products.masked_fill(~images.mask[:, None, None], -torch.inf).amax(dim=3).mean(dim=2)
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="a padded region means nothing")
def padded_regions_count(images, captions, image_ids):
    products = torch.einsum("ird,cwd->icwr", images.local_tokens, captions.local_tokens)
    best = products.amax(dim=3).masked_fill(~captions.mask, 0).sum(dim=2)
    local = best / captions.mask.sum(dim=1)
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="you looked into no mask")
def without_masks(images, captions, image_ids):
    products = torch.einsum("ird,cwd->icwr", images.local_tokens, captions.local_tokens)
    local = products.amax(dim=3).mean(dim=2)
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="the hinge takes the hardest negatives")
def mean_of_the_negatives(images, captions, image_ids):
    local = local_similarity(images, captions)
    return summed(images, captions, image_ids, hinge, consistency, local, negatives="mean")


@a3.wrong("cmc", says="no gradient reaches the pictures")
def cmc_for_captions_only(images, captions, image_ids):
    images = images.detach()
    local = local_similarity(images, captions)
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="no gradient reaches the local tokens")
def cmc_for_global_tokens_only(images, captions, image_ids):
    local = local_similarity(images, captions).detach()
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="changes what it is given")
def clears_the_callers_padding(images, captions, image_ids):
    captions.local_tokens[~captions.mask] = 0
    local = local_similarity(images, captions)
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="the example only")
def two_words_and_two_regions(images, captions, image_ids):
    products = torch.einsum(
        "ird,cwd->icwr", images.local_tokens[:, :2], captions.local_tokens[:, :2]
    )
    best = products.masked_fill(~images.mask[:, None, None, :2], -torch.inf).amax(dim=3)
    real = captions.mask[:, :2]
    local = best.masked_fill(~real, 0).sum(dim=2) / real.sum(dim=1)
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.wrong("cmc", says="captions of one picture are no negatives")
def knows_which_ids_are_the_same(images, captions, image_ids):
    ids = torch.arange(len(image_ids))
    ids[1] = 0 if len(ids) == 3 else 1
    return summed(images, captions, ids, hinge, consistency, local_similarity(images, captions))


@a3.wrong("cmc", says="does what you are asked to write")
def asks_the_package_for_cmc(images, captions, image_ids):
    return importlib.import_module("tgdt_mini.losses").cmc_loss(images, captions, image_ids).total


@a3.wrong("cmc", says="does what you are asked to write")
def asks_the_package_for_its_parts(images, captions, image_ids):
    losses, local = importlib.import_module("tgdt_mini.losses"), local_similarity(images, captions)
    return summed(images, captions, image_ids, losses.hinge_loss, losses.consistency_loss, local)


@a3.right("cmc")
def local_scores_by_einsum(images, captions, image_ids):
    local = words_to_regions(images, captions)
    return summed(images, captions, image_ids, hinge, consistency, local)


@a3.right("cmc")
def local_scores_by_loops(images, captions, image_ids):
    count = len(images.mask)
    same = torch.tensor([[bool(a == b) for a in image_ids] for b in image_ids])
    local = [[0] * count for _ in range(count)]
    for i in range(count):
        regions = images.local_tokens[i][images.mask[i]]
        for c in range(count):
            words = captions.local_tokens[c][captions.mask[c]]
            local[i][c] = (words @ regions.T).max(dim=1).values.mean()
    local = torch.stack([torch.stack(row) for row in local])
    loss = hinge(local, 0.2, same, "hardest")
    loss = loss + hinge(images.global_token @ captions.global_token.T, 0.2, same, "hardest")
    return loss + consistency(images.global_token, captions.global_token, 0.3)


@a3.right("cmc")
def tokens_normalised_again(images, captions, image_ids):
    same = image_ids.unsqueeze(1).eq(image_ids.unsqueeze(0))
    v, t = normalize(images.global_token, dim=1), normalize(captions.global_token, dim=1)
    tables = [local_similarity(images, captions), torch.einsum("id,cd->ic", v, t)]
    return sum([hinge(table, positives=same) for table in tables], consistency(v, t))


@a3.wrong("verdict", says="a loss that falls is no proof")
def falling_is_learning(losses, loss, batch, margin=0.2):
    if losses[-1] < losses[0]:
        return "learning"
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    return "collapsed" if abs(losses[-1] - plateau) < 0.01 * plateau else "not started"


@a3.wrong("verdict", says="only the last two epochs count")
def reads_the_first_epochs(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    near = [abs(value - plateau) <= 0.01 * plateau for value in losses]
    if any(a and b for a, b in zip(near, near[1:])):
        return "collapsed"
    return "learning" if losses[-1] < 0.99 * plateau else "not started"


@a3.wrong("verdict", says="rows and columns cost one margin each")
def once_the_margin(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else margin
    near = [abs(value - plateau) <= 0.01 * plateau for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if losses[-1] < 0.99 * plateau else "not started"


@a3.wrong("verdict", says="how do you compute the plateau")
def logarithm_to_base_two(losses, loss, batch, margin=0.2):
    plateau = -math.log2(1 / batch) + 0.5 if loss == "info_nce" else 2 * margin
    near = [abs(value - plateau) <= 0.01 * plateau for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if losses[-1] < 0.5 * plateau else "not started"


@a3.wrong("verdict", says="one epoch at the plateau is not enough")
def one_epoch_is_enough(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    if abs(losses[-1] - plateau) <= 0.01 * plateau:
        return "collapsed"
    return "learning" if losses[-1] < plateau else "not started"


@a3.wrong("verdict", says="a fixed distance is too strict here")
def within_a_hundredth(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    near = [abs(value - plateau) <= 0.01 for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if losses[-1] < plateau and not near[-1] else "not started"


@a3.wrong("verdict", says="a fixed distance is too generous here")
def within_four_hundredths(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    near = [abs(value - plateau) <= 0.042 for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if losses[-1] < plateau and not near[-1] else "not started"


@a3.wrong("verdict", says="that is at the plateau, not below it")
def anything_below_is_learning(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    if loss == "hinge" and losses[-1] < plateau:
        return "learning"
    near = [abs(value - plateau) <= 0.01 * plateau for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if losses[-1] < plateau and not near[-1] else "not started"


@a3.wrong("verdict", says="the margin is an argument")
def margin_of_the_text(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 0.4
    near = [abs(value - plateau) <= 0.01 * plateau for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if losses[-1] < plateau and not near[-1] else "not started"


@a3.wrong("verdict", says="ln depends on the batch")
def batch_of_the_text(losses, loss, batch, margin=0.2):
    plateau = math.log(64) if loss == "info_nce" else 2 * margin
    near = [abs(value - plateau) <= 0.01 * plateau for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if losses[-1] < plateau and not near[-1] else "not started"


@a3.wrong("verdict", says="not at their mean")
def mean_of_the_last_two(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    if len(losses) > 1 and abs(sum(losses[-2:]) / 2 - plateau) <= 0.01 * plateau:
        return "collapsed"
    near = abs(losses[-1] - plateau) <= 0.01 * plateau
    return "learning" if losses[-1] < plateau and not near else "not started"


@a3.wrong("verdict", says="below the plateau a model tells pairs apart")
def must_be_falling(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    near = [abs(value - plateau) <= 0.01 * plateau for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    falls = losses[-1] <= min(losses)
    return "learning" if losses[-1] < plateau and not near[-1] and falls else "not started"


@a3.wrong("verdict", says="gives 'Collapsed'")
def with_a_capital(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    if all(abs(value - plateau) <= 0.01 * plateau for value in losses[-2:]):
        return "Collapsed"
    return "Learning" if losses[-1] < plateau else "Not started"


@a3.wrong("verdict", says="changes what it is given")
def takes_the_last_away(losses, loss, batch, margin=0.2):
    plateau = math.log(batch) if loss == "info_nce" else 2 * margin
    last = losses.pop()
    near = [abs(value - plateau) <= 0.01 * plateau for value in (last, *losses[-1:])]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if last < plateau and not near[0] else "not started"


@a3.wrong("verdict", says="one epoch at the plateau is not enough")
def knows_the_visible_tests(losses, loss, batch, margin=0.2):
    last = round(losses[-1], 3)
    if last in (4.16, 0.399, 4.17):
        return "collapsed"
    return "learning" if last == 3.9 else "not started"


@a3.wrong("verdict", says="collapse_value does what you are asked to write")
def asks_the_package_for_the_plateau(losses, loss, batch, margin=0.2):
    config = importlib.import_module("tgdt_mini").TrainingConfig(batch=batch, margin=margin)
    plateau = config.collapse_value("info_nce" if loss == "info_nce" else "hardest")
    near = [abs(value - plateau) <= 0.01 * plateau for value in losses[-2:]]
    if len(near) == 2 and all(near):
        return "collapsed"
    return "learning" if losses[-1] < plateau and not near[-1] else "not started"


@a3.right("verdict")
def by_ratios(losses, loss, batch, margin=0.2):
    flat = {"info_nce": math.log(batch), "hinge": 2 * margin}[loss]
    ratios = [value / flat for value in losses]
    if len(ratios) >= 2 and max(abs(ratio - 1) for ratio in ratios[-2:]) <= 0.01:
        return "collapsed"
    if ratios[-1] < 0.99:
        return "learning"
    return "not started"


@a3.right("verdict")
def by_numpy(losses, loss, batch, margin=0.2):
    plateau = np.log(batch) if loss == "info_nce" else margin + margin
    values = np.asarray(losses[-2:], dtype=float)
    if values[-1] < plateau - 0.01 * plateau:
        return "learning"
    if len(values) == 2 and np.all(np.abs(values - plateau) <= plateau / 100):
        return "collapsed"
    return "not started"
