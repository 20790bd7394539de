"""Answers to A1, tokens and masks."""

import importlib
import inspect

import numpy as np
import torch

from coursework import Answers
from tgdt_mini import TextTokenizer

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
    return ids, torch.tensor([[i >= longest - len(row) for i in range(longest)] for row in sequences])


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
    ids[mask] = np.array([number for row in sequences for number in row], dtype=np.int64).astype(np.int32)
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
    return ids, pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)


@a1.right("pad")
def as_arrays(sequences, pad_id=0):
    lengths = np.array([len(row) for row in sequences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([np.array(row, dtype=np.int64) for row in sequences])
    return torch.from_numpy(ids), torch.from_numpy(mask)
