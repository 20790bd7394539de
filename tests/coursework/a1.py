"""Answers to A1, tokens and masks."""

import importlib
import inspect

import numpy as np
import torch

from coursework import Answers
from tgdt_mini import TextTokenizer, image_tokens

a1 = Answers()
LEARNT = TextTokenizer.learn(["a star and a fish"])


@a1.wrong("word_pieces", says="take the longest")
def shortest_first(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        for end in range(start + 1, len(word) + 1):
            if prefix + word[start:end] in vocabulary:
                break
        else:
            return [unknown]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


@a1.wrong("word_pieces", says="begin at the front")
def longest_from_the_end(word, vocabulary, unknown="[UNK]"):
    pieces, end = [], len(word)
    while end:
        for start in range(end):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return [unknown]
        pieces.insert(0, piece)
        end = start
    return pieces


@a1.wrong("word_pieces", says="lost the mark")
def without_the_mark(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = [e for e in range(len(word), start, -1) if prefix + word[start:e] in vocabulary]
        if not ends:
            return [unknown]
        pieces.append(word[start : ends[0]])
        start = ends[0]
    return pieces


@a1.wrong("word_pieces", says="look for ##fish")
def mark_only_in_the_answer(word, vocabulary, unknown="[UNK]"):
    plain = {piece.removeprefix("##") for piece in vocabulary}
    pieces, start = [], 0
    while start < len(word):
        ends = [e for e in range(len(word), start, -1) if word[start:e] in plain]
        if not ends:
            return [unknown]
        pieces.append(("##" if start else "") + word[start : ends[0]])
        start = ends[0]
    return pieces


@a1.wrong("word_pieces", says="the whole word is")
def only_the_rest_is_unknown(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = [e for e in range(len(word), start, -1) if prefix + word[start:e] in vocabulary]
        if not ends:
            return [*pieces, unknown]
        pieces.append(prefix + word[start : ends[0]])
        start = ends[0]
    return pieces


@a1.wrong("word_pieces", says="left out the part")
def leaves_out_what_does_not_match(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = [e for e in range(len(word), start, -1) if prefix + word[start:e] in vocabulary]
        if not ends:
            break
        pieces.append(prefix + word[start : ends[0]])
        start = ends[0]
    return pieces or [unknown]


@a1.wrong("word_pieces", says="a list with one string")
def unknown_as_a_string(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = [e for e in range(len(word), start, -1) if prefix + word[start:e] in vocabulary]
        if not ends:
            return unknown
        pieces.append(prefix + word[start : ends[0]])
        start = ends[0]
    return pieces


@a1.wrong("word_pieces", says="you went back to a shorter piece")
def goes_back(word, vocabulary, unknown="[UNK]"):
    def cut(start):
        if start == len(word):
            return []
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                rest = cut(end)
                if rest is not None:
                    return [piece, *rest]
        return None

    return cut(0) or [unknown]


@a1.wrong("word_pieces", says="`unknown` says what stands for an unknown word")
def unknown_written_in(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = [e for e in range(len(word), start, -1) if prefix + word[start:e] in vocabulary]
        if not ends:
            return ["[UNK]"]
        pieces.append(prefix + word[start : ends[0]])
        start = ends[0]
    return pieces


@a1.wrong("word_pieces", says="changes what it is given")
def uses_the_vocabulary_up(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = [e for e in range(len(word), start, -1) if prefix + word[start:e] in vocabulary]
        if not ends:
            return [unknown]
        pieces.append(prefix + word[start : ends[0]])
        vocabulary.remove(pieces[-1])
        start = ends[0]
    return pieces


@a1.wrong("word_pieces", says="the example only")
def knows_the_example(word, vocabulary, unknown="[UNK]"):
    return ["starf", "##ish"] if "starf" in vocabulary and word == "starfish" else [unknown]


@a1.wrong("word_pieces", says="what you are asked to write")
def asks_the_library(word, vocabulary, unknown="[UNK]"):
    from tokenizers import models

    ids = {piece: number for number, piece in enumerate([unknown, *sorted(vocabulary)])}
    return [token.value for token in models.WordPiece(ids, unk_token=unknown).tokenize(word)]


@a1.wrong("word_pieces", says="TextTokenizer.pieces does what you are asked to write")
def asks_the_package(word, vocabulary, unknown="[UNK]"):
    return [piece for piece, _, _ in LEARNT.pieces(word)]


@a1.right("word_pieces")
def by_recursion(word, vocabulary, unknown="[UNK]"):
    def cut(rest, prefix):
        if not rest:
            return []
        for length in range(len(rest), 0, -1):
            if prefix + rest[:length] in vocabulary:
                after = cut(rest[length:], "##")
                return None if after is None else [prefix + rest[:length], *after]
        return None

    pieces = cut(word, "")
    return [unknown] if pieces is None else pieces


@a1.right("word_pieces")
def by_marked_letters(word, vocabulary, unknown="[UNK]"):
    rest, pieces = word, []
    while rest not in ("", "##"):
        piece = max((p for p in vocabulary if rest.startswith(p)), key=len, default="")
        if len(piece) <= 2 and rest.startswith("##"):
            return [unknown]
        if not piece:
            return [unknown]
        pieces.append(piece)
        rest = "##" + rest[len(piece) :]
    return pieces


@a1.wrong("pad", says="the wrong way round")
def mask_of_the_padding(sequences, pad_id=0):
    longest = max(len(row) for row in sequences)
    ids = torch.tensor([list(row) + [pad_id] * (longest - len(row)) for row in sequences])
    return ids, torch.tensor([[i >= len(row) for i in range(longest)] for row in sequences])


@a1.wrong("pad", says="padding goes to the end")
def fills_up_in_front(sequences, pad_id=0):
    longest = max(len(row) for row in sequences)
    ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in sequences])
    return ids, torch.tensor(
        [[i >= longest - len(row) for i in range(longest)] for row in sequences]
    )


@a1.wrong("pad", says="nothing may get lost")
def cuts_to_the_shortest(sequences, pad_id=0):
    shortest = min(len(row) for row in sequences)
    ids = torch.tensor([row[:shortest] for row in sequences])
    return ids, torch.ones_like(ids, dtype=torch.bool)


@a1.wrong("pad", says="the mask comes from lengths, not from ids")
def mask_from_the_ids(sequences, pad_id=0):
    longest = max(len(row) for row in sequences)
    ids = torch.tensor([list(row) + [pad_id] * (longest - len(row)) for row in sequences])
    return ids, ids != pad_id


@a1.wrong("pad", says="fill up with `pad_id`")
def always_pads_with_zero(sequences, pad_id=0):
    longest = max(len(row) for row in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
    mask = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for i, row in enumerate(sequences):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = True
    return ids, mask


@a1.wrong("pad", says="changes what it is given")
def fills_up_the_callers_lists(sequences, pad_id=0):
    lengths = [len(row) for row in sequences]
    for row in sequences:
        row.extend([pad_id] * (max(lengths) - len(row)))
    return torch.tensor(sequences), torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@a1.wrong("pad", says="of type torch.float32, not torch.int64")
def ids_as_floats(sequences, pad_id=0):
    rows = [torch.tensor(row, dtype=torch.float32) for row in sequences]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(row) for row in sequences])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


@a1.wrong("pad", says="of type torch.int64, not torch.bool")
def mask_of_numbers(sequences, pad_id=0):
    longest = max(len(row) for row in sequences)
    ids = torch.tensor([list(row) + [pad_id] * (longest - len(row)) for row in sequences])
    return ids, torch.tensor([[int(i < len(row)) for i in range(longest)] for row in sequences])


@a1.wrong("pad", says="three empty lists make")
def nothing_becomes_floats(sequences, pad_id=0):
    longest = max(len(row) for row in sequences)
    ids = torch.tensor([list(row) + [pad_id] * (longest - len(row)) for row in sequences])
    return ids, torch.arange(longest) < torch.tensor([len(row) for row in sequences])[:, None]


@a1.wrong("pad", says="ids are int64")
def small_numbers(sequences, pad_id=0):
    lengths = np.array([len(row) for row in sequences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int32)
    ids[mask] = np.array([number for row in sequences for number in row], dtype=np.int64).astype(
        np.int32
    )
    return torch.from_numpy(ids).long(), torch.from_numpy(mask)


@a1.wrong("pad", says="the example only")
def at_most_four(sequences, pad_id=0):
    longest = min(4, max(len(row) for row in sequences))
    ids = torch.full((len(sequences), longest), pad_id)
    mask = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for i, row in enumerate(sequences):
        for j, number in enumerate(row[:4]):
            ids[i, j], mask[i, j] = number, True
    return ids, mask


@a1.wrong("pad", says="ImageTokens.pad does what you are asked to write")
def asks_the_package_for_pictures(sequences, pad_id=0):
    data = importlib.import_module("tgdt_mini.data")
    rows = [torch.tensor(row, dtype=torch.float64)[:, None] for row in sequences]
    batch = data.ImageTokens.pad(rows, [torch.zeros(len(row), 4) for row in rows])
    return batch.features[..., 0].long(), batch.mask


@a1.right("pad")
def row_by_row(sequences, pad_id=0):
    longest = max(len(row) for row in sequences)
    ids = torch.full((len(sequences), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for i, row in enumerate(sequences):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = True
    return ids, mask


@a1.right("pad")
def by_torch(sequences, pad_id=0):
    rows = [torch.tensor(row, dtype=torch.int64) for row in sequences]
    pad_sequence = torch.nn.utils.rnn.pad_sequence
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_id)
    return ids, pad_sequence(
        [torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True
    )


@a1.right("pad")
def as_arrays(sequences, pad_id=0):
    lengths = np.array([len(row) for row in sequences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([np.array(row, dtype=np.int64) for row in sequences])
    return torch.from_numpy(ids), torch.from_numpy(mask)


@a1.wrong("masked_mean", says="you divided by the padded length: 3 real words, not 5")
def divides_by_the_padded_length(tokens, mask):
    return tokens.masked_fill(~mask[..., None], 0).mean(dim=1)


@a1.wrong("masked_mean", says="padding took part in your mean")
def forgets_the_mask_unless_padding_is_zero(tokens, mask):
    zeros = (tokens.masked_fill(mask[..., None], 0) == 0).all()
    return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True) if zeros else tokens.mean(dim=1)


@a1.wrong("masked_mean", says="you divided by the padded length: 3 real words, not 5")
def forgets_the_mask(tokens, mask):
    return tokens.mean(dim=1)


@a1.wrong("masked_mean", says="padding took part in your sum")
def counts_but_does_not_choose(tokens, mask):
    return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)


@a1.wrong("masked_mean", says="you summed")
def sums(tokens, mask):
    return tokens.masked_fill(~mask[..., None], 0).sum(dim=1)


@a1.wrong("masked_mean", says="True marks real words")
def mask_the_wrong_way_round(tokens, mask):
    chosen = tokens.masked_fill(mask[..., None], 0)
    return chosen.sum(dim=1) / (~mask).sum(dim=1, keepdim=True).clamp(min=1)


@a1.wrong("masked_mean", says="nan times 0 is nan")
def multiplies_by_the_mask(tokens, mask):
    return (tokens * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


@a1.wrong("masked_mean", says="0 divided by 0 is nan")
def divides_by_nothing(tokens, mask):
    return tokens.masked_fill(~mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


@a1.wrong("masked_mean", says="gives the shape (1, 5), not (1, 2)")
def over_the_wrong_axis(tokens, mask):
    return tokens.masked_fill(~mask[..., None], 0).mean(dim=2)


@a1.wrong("masked_mean", says="not by that of the batch")
def one_count_for_the_batch(tokens, mask):
    total = tokens.masked_fill(~mask[..., None], 0).sum(dim=1)
    return total / max(1, int(mask.sum()))


@a1.wrong("masked_mean", says="not by the largest")
def the_largest_count(tokens, mask):
    return tokens.masked_fill(~mask[..., None], 0).sum(dim=1) / max(1, int(mask.sum(dim=1).max()))


@a1.wrong("masked_mean", says="you took the first 2 tokens")
def the_first_tokens(tokens, mask):
    means = torch.zeros(len(tokens), tokens.shape[2], dtype=tokens.dtype)
    for item, count in enumerate(mask.sum(dim=1).tolist()):
        if count:
            means[item] = tokens[item, :count].mean(dim=0)
    return means


@a1.wrong("masked_mean", says="you took all tokens up to the last real one")
def up_to_the_last_real_token(tokens, mask):
    means = torch.zeros(len(tokens), tokens.shape[2], dtype=tokens.dtype)
    for item in range(len(tokens)):
        if mask[item].any():
            means[item] = tokens[item, : int(mask[item].nonzero().max()) + 1].mean(dim=0)
    return means


@a1.wrong("masked_mean", says="changes what it is given")
def clears_the_callers_padding(tokens, mask):
    tokens.masked_fill_(~mask[..., None], 0)
    return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


@a1.wrong("masked_mean", says="infinity times 0 is nan")
def only_nan_is_cleared(tokens, mask):
    chosen = torch.nan_to_num(tokens, posinf=float("inf"), neginf=float("-inf")) * mask[..., None]
    return chosen.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


@a1.wrong(
    "masked_mean", says="torch.float64: does yours know the example only, or change the type?"
)
def always_in_float32(tokens, mask):
    chosen = tokens.float().masked_fill(~mask[..., None], 0)
    return chosen.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


@a1.wrong("masked_mean", says="two items, with 3 and with 1 real token")
def always_three_five(tokens, mask):
    return torch.tensor([[3.0, 5.0], [0.0, 0.0]])[: len(tokens)]


@a1.wrong("masked_mean", says="ImageTokens.pad does what you are asked to write")
def asks_the_package_for_means(tokens, mask):
    from tgdt_mini import ImageTokens

    rows = [item[real] if real.any() else item[:1] * 0 for item, real in zip(tokens, mask)]
    return ImageTokens.pad(rows, [torch.zeros(len(row), 4) for row in rows]).pooled


@a1.right("masked_mean")
def item_by_item(tokens, mask):
    means = torch.zeros(len(tokens), tokens.shape[2], dtype=tokens.dtype)
    for item in range(len(tokens)):
        real = [tokens[item, place] for place in range(tokens.shape[1]) if mask[item, place]]
        if real:
            means[item] = sum(real) / len(real)
    return means


@a1.right("masked_mean")
def by_einsum(tokens, mask):
    clean = torch.where(mask[..., None], tokens, torch.zeros_like(tokens))
    shares = mask.to(tokens.dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bl,bld->bd", shares, clean)


@a1.right("masked_mean")
def as_masked_arrays(tokens, mask):
    padding = np.repeat(~mask.numpy()[..., None], tokens.shape[2], axis=2)
    return np.ma.array(tokens.numpy(), mask=padding).mean(axis=1).filled(0)


@a1.wrong("box_geometry", says="x belongs to the width")
def width_and_height_swapped(boxes, width, height):
    edges = boxes / torch.tensor([height, width, height, width], dtype=boxes.dtype)
    return torch.cat([edges, (edges[:, 2:] - edges[:, :2]).prod(dim=1, keepdim=True)], dim=1)


@a1.wrong("box_geometry", says="you divided all by the width")
def all_by_the_width(boxes, width, height):
    edges = boxes / width
    return torch.cat([edges, (edges[:, 2:] - edges[:, :2]).prod(dim=1, keepdim=True)], dim=1)


@a1.wrong("box_geometry", says="not a number of pixels")
def area_in_pixels(boxes, width, height):
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1, keepdim=True)
    return torch.cat([boxes / torch.tensor([width, height] * 2, dtype=boxes.dtype), area], dim=1)


@a1.wrong("box_geometry", says="not the width and height of the box")
def corner_and_size(boxes, width, height):
    edges = boxes / torch.tensor([width, height] * 2, dtype=boxes.dtype)
    sides = edges[:, 2:] - edges[:, :2]
    return torch.cat([edges[:, :2], sides, sides.prod(dim=1, keepdim=True)], dim=1)


@a1.wrong("box_geometry", says="not of its lower right corner")
def area_of_the_corner(boxes, width, height):
    edges = boxes / torch.tensor([width, height] * 2, dtype=boxes.dtype)
    return torch.cat([edges, edges[:, 2:].prod(dim=1, keepdim=True)], dim=1)


@a1.wrong("box_geometry", says="40 wide, not 41")
def counts_the_last_pixel(boxes, width, height):
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1) / (width * height)
    edges = boxes / torch.tensor([width, height] * 2, dtype=boxes.dtype)
    return torch.cat([edges, area[:, None]], dim=1)


@a1.wrong("box_geometry", says="you treated only the first box")
def only_the_first_box(boxes, width, height):
    x0, y0, x1, y1 = (boxes[0] / torch.tensor([width, height] * 2, dtype=boxes.dtype)).tolist()
    return torch.tensor([[x0, y0, x1, y1, (x1 - x0) * (y1 - y0)]], dtype=boxes.dtype)


@a1.wrong("box_geometry", says="changes what it is given")
def divides_in_place(boxes, width, height):
    boxes[:, 0::2] /= width
    boxes[:, 1::2] /= height
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return torch.cat([boxes, area[:, None]], dim=1)


@a1.wrong("box_geometry", says="take its size from the arguments")
def always_112(boxes, width, height):
    side = torch.tensor([200, 100] * 2 if width == 200 else [112] * 4, dtype=boxes.dtype)
    edges = boxes / side
    return torch.cat([edges, (edges[:, 2:] - edges[:, :2]).prod(dim=1, keepdim=True)], dim=1)


@a1.wrong("box_geometry", says="the numbers keep their type")
def places_in_float32(boxes, width, height):
    edges = (boxes / torch.tensor([width, height] * 2, dtype=boxes.dtype)).float()
    return torch.cat([edges, (edges[:, 2:] - edges[:, :2]).prod(dim=1, keepdim=True)], dim=1)


@a1.wrong("box_geometry", says="does yours know the example only?")
def the_box_of_the_example(boxes, width, height):
    return torch.tensor([[0.1, 0.1, 0.3, 0.6, 0.1]]).repeat(len(boxes), 1)


@a1.wrong("box_geometry", says="tgdt_mini.image_tokens.geometry does what you are asked to write")
def asks_the_package_for_places(boxes, width, height):
    from tgdt_mini.image_tokens import geometry

    return geometry(boxes / torch.tensor([width, height] * 2, dtype=boxes.dtype))


@a1.wrong("box_geometry", says="copy of tgdt_mini.image_tokens.geometry")
def copies_the_package(boxes, width, height):
    names = {"torch": torch}
    exec(inspect.getsource(importlib.import_module("tgdt_mini.image_tokens").geometry), names)
    return names["geometry"](boxes / torch.tensor([width, height] * 2, dtype=boxes.dtype))


@a1.right("box_geometry")
def box_by_box(boxes, width, height):
    rows = torch.zeros(len(boxes), 5, dtype=boxes.dtype)
    for row, (x0, y0, x1, y1) in zip(rows, boxes.tolist()):
        area = (x1 - x0) * (y1 - y0) / (width * height)
        for place, number in enumerate((x0 / width, y0 / height, x1 / width, y1 / height, area)):
            row[place] = number
    return rows


@a1.right("box_geometry")
def by_stack(boxes, width, height):
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    x0, x1, y0, y1 = x0 / width, x1 / width, y0 / height, y1 / height
    return torch.stack([x0, y0, x1, y1, (x1 - x0) * (y1 - y0)], dim=1)


@a1.right("box_geometry")
def places_as_arrays(boxes, width, height):
    edges = boxes.numpy() / np.array([width, height, width, height], dtype=boxes.numpy().dtype)
    sides = edges[:, 2:] - edges[:, :2]
    return np.concatenate([edges, sides.prod(axis=1, keepdims=True)], axis=1)


@a1.wrong("patches", says="strips of pixels, not into squares")
def reshape_alone(image, size):
    high, wide, colours = image.shape
    if high % size or wide % size:
        raise ValueError(size)
    return image.reshape(-1, size * size * colours)


@a1.wrong("patches", says="patches go row by row")
def column_by_column(image, size):
    high, wide, colours = image.shape
    if high % size or wide % size:
        raise ValueError(size)
    cut = image.reshape(high // size, size, wide // size, size, colours)
    return cut.permute(2, 0, 1, 3, 4).reshape(-1, size * size * colours)


@a1.wrong("patches", says="inside a patch pixels go row by row")
def pixels_column_by_column(image, size):
    high, wide, colours = image.shape
    if high % size or wide % size:
        raise ValueError(size)
    cut = image.reshape(high // size, size, wide // size, size, colours)
    return cut.permute(0, 2, 3, 1, 4).reshape(-1, size * size * colours)


@a1.wrong("patches", says="the three colours of a pixel stay side by side")
def colours_first(image, size):
    high, wide, colours = image.shape
    if high % size or wide % size:
        raise ValueError(size)
    cut = image.reshape(high // size, size, wide // size, size, colours)
    return cut.permute(0, 2, 4, 1, 3).reshape(-1, size * size * colours)


@a1.wrong("patches", says="flatten it")
def not_flattened(image, size):
    high, wide, colours = image.shape
    if high % size or wide % size:
        raise ValueError(size)
    cut = image.reshape(high // size, size, wide // size, size, colours)
    return cut.transpose(1, 2).reshape(-1, size, size, colours)


@a1.wrong("patches", says="nothing may be left out")
def cuts_off_the_rest(image, size):
    high, wide, colours = image.shape
    image = image[: high - high % size, : wide - wide % size]
    cut = image.reshape(high // size, size, wide // size, size, colours)
    return cut.transpose(1, 2).reshape(-1, size * size * colours)


@a1.wrong("patches", says="nothing may be left out or filled up. patches(")
def another_exception(image, size):
    high, wide, colours = image.shape
    assert high % size == wide % size == 0
    cut = image.reshape(high // size, size, wide // size, size, colours)
    return cut.transpose(1, 2).reshape(-1, size * size * colours)


@a1.wrong("patches", says="both sides must be looked at")
def looks_at_the_width_only(image, size):
    high, wide, colours = image.shape
    if wide % size:
        raise ValueError(size)
    return torch.stack(
        [
            image[y : y + size, x : x + size].reshape(-1)
            for y in range(0, high - size + 1, size)
            for x in range(0, wide, size)
        ]
    )


@a1.wrong("patches", says="does yours know the example only?")
def always_of_two(image, size):
    high, wide, colours = image.shape
    if high % size or wide % size:
        raise ValueError(size)
    squares = [image[y : y + 2, x : x + 2] for y in range(0, high, 2) for x in range(0, wide, 2)]
    return torch.stack([square.reshape(-1) for square in squares])


@a1.wrong("patches", says="of type torch.uint8")
def always_in_floats(image, size):
    high, wide, colours = image.shape
    if high % size or wide % size:
        raise ValueError(size)
    whole = image.long() if high == 4 else image.float()
    cut = whole.reshape(high // size, size, wide // size, size, colours)
    return cut.transpose(1, 2).reshape(-1, size * size * colours)


@a1.wrong("patches", says="tgdt_mini.image_tokens.patches does what you are asked to write")
def asks_the_package_for_patches(image, size):
    from PIL import Image

    picture = Image.fromarray(image.to(torch.uint8).numpy())
    return torch.from_numpy(image_tokens.patches(picture, size)[0]).to(image.dtype)


@a1.right("patches")
def square_by_square(image, size):
    high, wide, _ = image.shape
    if high % size != 0 or wide % size != 0:
        raise ValueError(f"{size} does not divide {high} x {wide}")
    return torch.stack(
        [
            image[y : y + size, x : x + size].flatten()
            for y in range(0, high, size)
            for x in range(0, wide, size)
        ]
    )


@a1.right("patches")
def by_unfold(image, size):
    if image.shape[0] % size or image.shape[1] % size:
        raise ValueError("size")
    cut = image.unfold(0, size, size).unfold(1, size, size)  # (rows, columns, 3, size, size)
    return cut.permute(0, 1, 3, 4, 2).flatten(2).flatten(0, 1)


@a1.right("patches")
def squares_as_arrays(image, size):
    pixels = np.asarray(image)
    high, wide = pixels.shape[0] // size, pixels.shape[1] // size
    if (high * size, wide * size) != pixels.shape[:2]:
        raise ValueError(f"size {size}")
    return pixels.reshape(high, size, wide, size, 3).swapaxes(1, 2).reshape(high * wide, -1)
