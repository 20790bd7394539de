"""Captions to token ids: a WordPiece vocabulary learnt here, or a Hugging Face model's tokenizer.

Both are a `tokenizers.Tokenizer` inside, so one class serves. Learn the vocabulary on training
captions only: words that only test captions hold must stay unknown (earlier repositories of this
field leaked them). Notebook 02 builds WordPiece by hand; this module has no merge loop of its own.

C captions, T tokens of the longest one, F features of a token.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tgdt_mini.files.check import shown, texts, whole_number

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIALS = [PAD, UNKNOWN, START, END]
PARTS = ("ids", "tokens", "offsets", "special_tokens_mask")  # of the library's encoding


@dataclass(frozen=True)
class TextTokens:
    """A batch of C tokenized captions.

    ids (C, T) int64. mask (C, T) bool, True where a token is real. word_mask (C, T) bool, True
    where it is a piece of a word, not a special token. Slot 0 is the start token: the global token
    grows there. features (C, T, F): what a pretrained encoder makes of each token, if there is one.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    word_mask: torch.Tensor
    features: torch.Tensor | None = None

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, rows) -> "TextTokens":
        """The captions of `rows`, without the columns that are padding in all of them."""
        return self.take(rows)

    def take(self, rows, longest: int | None = None) -> "TextTokens":
        """The captions of `rows`, cut to `longest` tokens, by default those of the longest."""
        ids, mask, word_mask = self.ids[rows], self.mask[rows], self.word_mask[rows]  # (c, T)
        if longest is None:
            longest = int(mask.sum(dim=1).max()) if len(mask) else 0
        features = None if self.features is None else self.features[rows][:, :longest]
        return TextTokens(ids[:, :longest], mask[:, :longest], word_mask[:, :longest], features)

    def part(self, rows) -> "TextTokens":
        """The captions of `rows` as a separate object; features on the disk stay there."""
        return self[rows]

    def to(self, device: torch.device | str) -> "TextTokens":
        ids, mask, words = (part.to(device) for part in (self.ids, self.mask, self.word_mask))
        features = None if self.features is None else self.features.to(device)
        return TextTokens(ids, mask, words, features)


class TextTokenizer:
    """Captions to TextTokens. Make one with `learn`, `from_pretrained` or `from_json`."""

    def __init__(self, engine: Any, most_tokens: int = 40, pad: int = 0):
        self.engine, self._pad = engine, pad
        self.most_tokens = whole_number("most_tokens", most_tokens, 3)  # start, a word, end
        engine.no_padding()  # both are done here, so that threads may share the engine
        engine.no_truncation()
        first = self.engine.encode("a").special_tokens_mask
        if not first or first[0] != 1:
            raise ValueError(
                "this tokenizer puts no special token before a caption; the global token needs one"
            )

    @classmethod
    def learn(
        cls, captions: list[str], vocabulary: int = 400, most_tokens: int = 40
    ) -> "TextTokenizer":
        """A WordPiece tokenizer of about `vocabulary` pieces (lower case), learnt from captions."""
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
        from tokenizers.processors import TemplateProcessing
        from tokenizers.trainers import WordPieceTrainer

        captions = texts("caption", captions)
        vocabulary = whole_number("vocabulary", vocabulary, len(SPECIALS) + 1, 2**20)

        def engine_of(model):
            engine = Tokenizer(model)  # as BERT's: lower case, cut at spaces and signs
            engine.normalizer = normalizers.BertNormalizer(lowercase=True)
            engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            engine.decoder = decoders.WordPiece()
            return engine

        engine = engine_of(models.WordPiece(unk_token=UNKNOWN))
        # the library numbers "##a", "##b" ... in an order that changes from run to run, and breaks
        # ties by number; named first, and in order, they make the vocabulary the same every time
        named = [*SPECIALS, *_inner_letters(engine, captions)]
        trainer = WordPieceTrainer(vocab_size=vocabulary, special_tokens=named, show_progress=False)
        engine.train_from_iterator(captions, trainer)
        # a new engine of the same pieces, in which "##a" is no special token
        engine = engine_of(models.WordPiece(engine.get_vocab(), unk_token=UNKNOWN))
        engine.add_special_tokens(SPECIALS)
        marks = [(token, engine.token_to_id(token)) for token in (START, END)]
        engine.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=marks)
        return cls(engine, most_tokens)

    @classmethod
    def from_pretrained(cls, name: str | Path, most_tokens: int = 40) -> "TextTokenizer":
        """The tokenizer of a Hugging Face model, by hub name or folder."""
        from transformers import AutoTokenizer

        pretrained = AutoTokenizer.from_pretrained(str(name))
        engine = getattr(pretrained, "backend_tokenizer", None)
        if engine is None:
            raise ValueError(f"the tokenizer of {name} has no fast (Rust) version; choose another")
        return cls(engine, most_tokens, pretrained.pad_token_id or 0)

    @property
    def vocabulary(self) -> int:
        """How many ids there are: every id is smaller."""
        return self.engine.get_vocab_size()

    @property
    def pad(self) -> int:
        """The id that captions are padded with."""
        known = self.engine.token_to_id(PAD)
        return known if known is not None else self._pad

    @property
    def unknown(self) -> str | None:
        """The unknown token, such as [UNK]; None if there are pieces for everything."""
        return getattr(self.engine.model, "unk_token", None)

    def pieces(self, caption: str) -> list[tuple[str, int, int]]:
        """(piece, start, end) of each word piece, in characters, cut as in `__call__`."""
        encoding = self._encode([caption], warn=False)[0]
        rows = zip(encoding.tokens, encoding.offsets, encoding.special_tokens_mask)
        return [(piece, start, end) for piece, (start, end), special in rows if not special]

    def __call__(self, captions: Iterable[str], first: int = 0) -> TextTokens:
        """TextTokens of captions, padded to the longest; many threads may call it.

        TypeError for what is no list of text. ValueError for no captions, and for one that is empty
        or wordless, by its number; first: the number of the first. Captions longer than
        `most_tokens` are cut, the end token kept, with one warning.
        """
        encodings = self._encode(captions, first)
        sizes = torch.tensor([len(encoding.ids) for encoding in encodings])
        mask = torch.arange(int(sizes.max())) < sizes[:, None]  # (C, T)
        ids = torch.full(mask.shape, self.pad, dtype=torch.int64)
        word_mask = torch.zeros_like(mask)  # False for padding, and for what marks start and end
        ids[mask] = torch.tensor([i for encoding in encodings for i in encoding.ids])
        specials = [mark for encoding in encodings for mark in encoding.special_tokens_mask]
        word_mask[mask] = torch.tensor(specials) == 0
        return TextTokens(ids, mask, word_mask)

    def _encode(self, captions, first=0, warn=True):
        """The library's encoding of each caption, cut to most_tokens."""
        captions = texts("caption", captions, first)
        encodings = self.engine.encode_batch(captions)
        for row, encoding in enumerate(encodings):
            if all(encoding.special_tokens_mask):
                raise ValueError(
                    f"caption {first + row} is {shown(captions[row])}; no word is left of it"
                )
        long = [row for row, e in enumerate(encodings) if len(e.ids) > self.most_tokens]  # to cut
        if long and warn:
            words = f"{len(long)} of {len(captions)} captions are cut to {self.most_tokens} tokens"
            warnings.warn(f"{words}, the first of them: {captions[long[0]][:60]!r}", stacklevel=3)
        for row in long:
            encodings[row] = _cut(encodings[row], self.most_tokens)
        return encodings

    def to_json(self) -> str:
        """All of the tokenizer but most_tokens; `from_json` reads it back."""
        return self.engine.to_str(pretty=True)

    @classmethod
    def from_json(cls, text: str, most_tokens: int = 40) -> "TextTokenizer":
        """The tokenizer of what `to_json` gave. ValueError for another text."""
        from tokenizers import Tokenizer

        try:
            engine = Tokenizer.from_str(text)
        except Exception as error:  # the library has no kind of its own
            raise ValueError(f"text is {shown(text)}, not what to_json gives: {error}") from None
        return cls(engine, most_tokens)


def _cut(encoding, most):
    """An encoding cut as the library would cut it; its engine, which others use, stays as it is."""
    special = encoding.special_tokens_mask
    after = special[::-1].index(0)  # how many special ones stand after the last word
    start, end = slice(most - after), slice(len(special) - after, None)  # words, then the end
    parts = {name: getattr(encoding, name) for name in PARTS}
    return SimpleNamespace(**{name: part[start] + part[end] for name, part in parts.items()})


def _inner_letters(engine, captions):
    """["##a", "##b" ...]: the letters that stand inside words, sorted."""
    words = {word for caption in captions for word in caption.split()}
    words = {engine.normalizer.normalize_str(word) for word in words}
    pieces = {piece for word in words for piece, _ in engine.pre_tokenizer.pre_tokenize_str(word)}
    return sorted({f"##{letter}" for piece in pieces for letter in piece[1:]})
