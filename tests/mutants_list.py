"""Single-line breaks of the package, and the chapter that teaches the part and so must notice it.

`test_mutants.py` checks that each break still applies; `python notebooks/mutants.py` runs the
chapters on broken copies. A line is named by a text that stands in its file exactly once.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """What breaks, in words; the chapter, the file in tgdt_mini/, the text and its replacement."""

    name: str
    chapter: str
    file: str
    text: str
    broken: str


MUTANTS = [
    Mutant(*parts)
    for parts in (
        # 01: the game
        ("a tie is won", "01", "evaluation.py", "((scores >= best)", "((scores > best)"),
        ("R@K counts K + 1", "01", "evaluation.py", "(ranks < k).sum()", "(ranks < k + 1).sum()"),
        ("R@K counts K - 1", "01", "evaluation.py", "(ranks < k).sum()", "(ranks < k - 1).sum()"),
        ("median rank from 0", "01", "evaluation.py", "float(floor(middle) + 1)", "floor(middle)"),
        (
            "the two directions exchanged",
            "01",
            "evaluation.py",
            "BothWays(recall_at_k(i2t), recall_at_k(t2i)",
            "BothWays(recall_at_k(t2i), recall_at_k(i2t)",
        ),
        (
            "right answers compete",
            "01",
            "evaluation.py",
            "((scores >= best) & ~positives).sum(1)",
            "(scores >= best).sum(1)",
        ),
        (
            "misses leave the denominator",
            "01",
            "evaluation.py",
            "/ len(ranks) for k in wanted",
            "/ int(ranks.isfinite().sum()) for k in wanted",
        ),
        ("NaN is ranked", "01", "evaluation.py", "if scores.isnan().any():", "if False:"),
        (
            "the oracle takes vague captions first",
            "01",
            "scenes/truth.py",
            "in np.unique(images_of):",
            "in np.unique(images_of)[::-1]:",
        ),
        # 02: tokens
        (
            "special tokens are words",
            "02",
            "text_tokens.py",
            "= True, special == 0",
            "= True, special >= 0",
        ),
        (
            "a cut loses the end token",
            "02",
            "text_tokens.py",
            "part[start] + part[end]",
            "part[: len(part[start] + part[end])]",
        ),
        ("upper case is unknown", "02", "text_tokens.py", "lowercase=True", "lowercase=False"),
        (
            "a patch's box turned",
            "02",
            "image_tokens.py",
            "[column / wide, row / high, (column",
            "[row / wide, column / high, (column",
        ),
        (
            "no grey outside a region",
            "02",
            "image_tokens.py",
            "> 127, shrink(image), 128)",
            "> 127, shrink(image), shrink(image))",
        ),
        ("repeats stay", "02", "image_tokens.py", "< 0.75 for other", "< 7.5 for other"),
        ("the ground is a thing", "02", "image_tokens.py", "> 0.2 or (y1", "> 2 or (y1"),
        ("boxes without a border", "02", "image_tokens.py", "max(0, x0 - 1) / wide", "x0 / wide"),
        ("hardly a main colour", "02", "image_tokens.py", "NEAR = 44 ", "NEAR = 4 "),
        (
            "the whole picture is lost",
            "02",
            "data.py",
            "pooled = [image_tokens.whole(image, patches=kind",
            "pooled = [0 * image_tokens.whole(image, patches=kind",
        ),
        (
            "regions of the next image",
            "02",
            "data.py",
            "first[:, None] + slots,",
            "first[:, None] + slots + 1,",
        ),
        # 03: the branches
        (
            "no mask in the lower layers",
            "03",
            "layers.py",
            "layer(tokens, src_key_padding_mask=~mask)  # torch asks",
            "layer(tokens)  # torch asks",
        ),
        ("no mask in the last layer", "03", "layers.py", "keys, ~mask, need", "keys, None, need"),
        (
            "sine and cosine exchanged",
            "03",
            "layers.py",
            "(torch.sin, torch.cos)",
            "(torch.cos, torch.sin)",
        ),
        (
            "slot 0 is zero",
            "03",
            "model.py",
            "[batch.pooled[:, None], ",
            "[0 * batch.pooled[:, None], ",
        ),
        ("slot 0 has no place", "03", "model.py", "boxes[:, 0, 2:] = 1", "boxes[:, 0, 2:] = 0"),
        ("local tokens off by one", "03", "model.py", "= tokens[:, 1:]  #", "= tokens[:, :-1]  #"),
        (
            "the gradient always stops",
            "03",
            "model.py",
            "tokens.detach() if stop_gradient else tokens",
            "tokens.detach()",
        ),
        (
            "local tokens scaled along the wrong axis",
            "03",
            "model.py",
            "(local_tokens.float(), dim=-1)",
            "(local_tokens.float(), dim=1)",
        ),
        (
            "the window reads padding",
            "03",
            "model.py",
            "real = tokens * batch.mask[..., None]",
            "real = tokens",
        ),
        ("no positions", "03", "model.py", "tokens + self.position_embedding(positions)", "tokens"),
        (
            "no path for boxes",
            "03",
            "model.py",
            "waves(boxes, self.config.box_waves)",
            "0 * waves(boxes, 4)",
        ),
        (
            "stop-gradient is not passed on",
            "03",
            "model.py",
            "self.image_branch(tokens, mask, mask, stop_gradient)",
            "self.image_branch(tokens, mask, mask)",
        ),
        (
            "neighbours hidden number by number",
            "03",
            "layers.py",
            "torch.rand(len(tokens), 1, 1,",
            "torch.rand(*tokens.shape,",
        ),
        ("waves too slow", "03", "layers.py", "(math.pi * 2**k)", "(math.pi * (k + 1))"),
        (
            "joined masks shifted",
            "03",
            "embedding.py",
            "pad(part.mask, (0, r))",
            "pad(part.mask, (r, 0))",
        ),
        ("local mask off by one", "03", "model.py", "local_mask[:, 1:],", "local_mask[:, :-1],"),
        # 04: the scores
        (
            "padding scores 0",
            "04",
            "similarity.py",
            "masked_fill_(pad, -INFINITY).amax(2)",
            "masked_fill_(pad, 0).amax(2)",
        ),
        (
            "mean over regions",
            "04",
            "similarity.py",
            "(pad, -INFINITY).amax(2)",
            "(pad, 0).mean(2)",
        ),
        (
            "padding wins in training",
            "04",
            "similarity.py",
            "masked_fill(pad, -INFINITY)  # (I, R)",
            "masked_fill(pad, INFINITY)  # (I, R)",
        ),
        (
            "the weight is lost",
            "04",
            "similarity.py",
            " + weight * local_similarity(",
            " + local_similarity(",
        ),
        (
            "the sum over words",
            "04",
            "similarity.py",
            "is_word.to(words.dtype) / mask.sum(1, keepdim=True)",
            "is_word.to(words.dtype)",
        ),
        (
            "padded words count",
            "04",
            "similarity.py",
            "/ mask.sum(1, keepdim=True)",
            "/ mask.shape[1]",
        ),
        (
            "the plain form reads padding",
            "04",
            "similarity.py",
            "products.masked_fill(~images.mask, -INFINITY).amax(3)",
            "products.amax(3)",
        ),
        (
            "NaN in padding reaches training",
            "04",
            "similarity.py",
            "regions = regions.masked_fill(pad[..., None], 0)",
            "regions = regions",
        ),
        (
            "images stay sorted",
            "04",
            "similarity.py",
            "torch.cat(scores).T[back]",
            "torch.cat(scores).T",
        ),
        # 05: the loss
        (
            "rows twice, no columns",
            "05",
            "losses.py",
            "_hinge_rows(scores.T, matches, allowed.T",
            "_hinge_rows(scores, matches, allowed",
        ),
        (
            "one picture's captions are negatives",
            "05",
            "losses.py",
            "return negatives & ~positives",
            "return negatives",
        ),
        (
            "the margin is lost",
            "05",
            "losses.py",
            "(margin + hardest - matches)",
            "(hardest - matches)",
        ),
        (
            "no intra term",
            "05",
            "losses.py",
            "consistency_loss(*pair, consistency_margin, reduction) if use_intra else zero",
            "zero",
        ),
        (
            "differences count one way only",
            "05",
            "losses.py",
            "images @ images.T).abs()",
            "images @ images.T)",
        ),
        ("the mean partner, not the worst", "05", "losses.py", "gap.amax(0)", "gap.mean(0)"),
        (
            "a gradient is not stopped",
            "05",
            "losses.py",
            "inter(by_global.detach() + by_local)",
            "inter(by_global + by_local)",
        ),
        (
            "InfoNCE asks rows only",
            "05",
            "losses.py",
            "counted.logsumexp(1) + counted.logsumexp(0)",
            "2 * counted.logsumexp(1)",
        ),
        (
            "true and hard caption exchanged",
            "05",
            "losses.py",
            "(score(hard) - score(captions))",
            "(score(captions) - score(hard))",
        ),
        (
            "a true caption counts in the mean",
            "05",
            "losses.py",
            ".masked_fill(~allowed, 0)  # (B, B)",
            "  # (B, B)",
        ),
        # 06: training
        (
            "no clipping",
            "06",
            "training.py",
            "(self.model.parameters(), self.config.clip)",
            "(self.model.parameters(), 1e9)",
        ),
        (
            "trained in eval mode",
            "06",
            "training.py",
            "self.model.train()",
            "self.model.eval()",
        ),
        (
            "judged in train mode",
            "06",
            "encoding.py",
            "model.eval()  # dropout",
            "model.train()  # dropout",
        ),
        (
            "the rate is one step ahead",
            "06",
            "training.py",
            "rate_at(self.step, self",
            "rate_at(self.step + 1, self",
        ),
        ("warm-up begins at 0", "06", "training_config.py", "(step + 1) / max", "step / max"),
        (
            "training forgets the intra term",
            "06",
            "training_config.py",
            'self.use_intra and stage != "local",',
            "False,",
        ),
        # 07: the search
        (
            "stage two ignores its weight",
            "07",
            "retrieval.py",
            "scores + weight * rerank",
            "scores + rerank",
        ),
        (
            "a shortlist of K + 1",
            "07",
            "retrieval.py",
            "min(shortlist, size)",
            "min(shortlist + 1, size)",
        ),
        (
            "the shortlist holds the worst",
            "07",
            "retrieval.py",
            "global_tokens).topk(count, sorted",
            "global_tokens).topk(count, largest=False, sorted",
        ),
        (
            "the best word instead of the mean",
            "07",
            "retrieval.py",
            "scores.append(best.mean(1))",
            "scores.append(best.amax(1))",
        ),
        (
            "the best word, the other way round",
            "07",
            "retrieval.py",
            '"mean", lengths=counts',
            '"max", lengths=counts',
        ),
        # 08: judging
        (
            "a miss is a hit",
            "08",
            "evaluation.py",
            "best[:, 0] == -INFINITY, INFINITY",
            "best[:, 0] == -INFINITY, 0",
        ),
        # 14: scaling out
        (
            "gradients added, not averaged",
            "14",
            "scaling/distributed.py",
            "(flat / size())",
            "(flat / 1)",
        ),
        (
            "masks do not travel",
            "14",
            "scaling/distributed.py",
            "all_tensors(item.mask.byte())).bool()",
            "all_tensors(item.mask.byte())) >= 0",
        ),
        (
            "everyone starts alone",
            "14",
            "scaling/distributed.py",
            "together(dist.broadcast, tensor, 0)",
            "pass",
        ),
        (
            "dropout is drawn anew",
            "14",
            "scaling/gradient_cache.py",
            "set_random_state(state, device)",
            "pass",
        ),
        (
            "pooling joins the least alike",
            "14",
            "scaling/pooling.py",
            "alike.flatten(1).argmax(1)",
            "alike.nan_to_num(neginf=9).flatten(1).argmin(1)",
        ),
        (
            "rsum of one shortlist",
            "14",
            "scaling/pooling.py",
            "caption_image, t2i_scores=t2i)",
            "caption_image)",
        ),
    )
]
