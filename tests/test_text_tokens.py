"""Captions to ids and masks: which tokens are words, what is padding, what is cut, and the same as
other tokenizers.
"""

import random
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from examples import few
from helpers import some_scenes, tokenizer
from hypothesis import given
from hypothesis import strategies as st

from tgdt_mini.scenes.words import known_words
from tgdt_mini.text_tokens import END, START, UNKNOWN, TextTokenizer

CAPTIONS = [
    "a red star",
    "there is a tiny golden circle to the left of a big blue heart",
    "two moons",
]


@cache
def spelling():
    """A tokenizer with so small a vocabulary that words fall into pieces."""
    return TextTokenizer.learn(
        [caption for own in some_scenes("train", 200)["captions"] for caption in own], 70, 200
    )


@pytest.fixture
def spelled():
    return spelling()


def names(tokens, row, which):
    engine = tokenizer().engine
    return [engine.id_to_token(int(token)) for token in tokens.ids[row, which[row]]]


def test_a_caption_becomes_a_start_token_its_words_and_an_end_token():
    tokens = tokenizer()(["A red star"])
    assert names(tokens, 0, tokens.mask) == [START, "a", "red", "star", END]
    assert names(tokens, 0, tokens.word_mask) == ["a", "red", "star"]


def test_words_leave_out_special_tokens_only_so_the_last_piece_is_kept(spelled):
    tokens = spelled(["a rosy valentine"])
    real = int(tokens.mask[0].sum())
    assert tokens.word_mask[0].tolist() == [False] + [True] * (real - 2) + [False]
    assert len(spelled.pieces("a rosy valentine")) == real - 2 > 3


def test_a_caption_of_one_piece_keeps_it():
    tokens = tokenizer()(["star"])
    assert names(tokens, 0, tokens.word_mask) == ["star"]


def test_unknown_words_are_words_too():
    tokens = tokenizer()(["a \N{GREEK SMALL LETTER OMEGA} star"])
    assert names(tokens, 0, tokens.word_mask) == ["a", UNKNOWN, "star"]


def test_capitals_and_spaces_do_not_matter():
    assert torch.equal(tokenizer()(["  A Red  STAR "]).ids, tokenizer()(["a red star"]).ids)


# any text: what is readable and what is not, words that are known among it
words = st.sampled_from(["a", "red", "star", "above", "it's", "[SEP]", "[PAD]", "##s", "STAR"])
anything = st.lists(words | st.text(st.characters(), max_size=12), min_size=1, max_size=20).map(
    " ".join
)


def encoded(tokenizer, captions):
    """The TextTokens of captions, or None if one of them is refused; no word of a cut."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tokenizer(captions)
        except ValueError as error:
            assert re.match(r"caption \d+ is ", str(error)) and "\n" not in str(error)


@few
@given(captions=st.lists(anything, min_size=1, max_size=4), most=st.integers(3, 30))
def test_any_text_becomes_ids_as_the_library_cuts_them_or_is_refused_by_its_number(captions, most):
    tokenizer = TextTokenizer(spelling().engine, most)
    tokens, alone = encoded(tokenizer, captions), [encoded(tokenizer, [text]) for text in captions]
    assert (tokens is None) == (None in alone)
    if tokens is None:
        return
    engine = type(spelling().engine).from_str(spelling().to_json())
    engine.enable_truncation(most)
    assert tokens.ids.dtype == torch.int64 and tokens.mask.dtype == torch.bool
    assert tokens.ids.shape == tokens.mask.shape == tokens.word_mask.shape
    assert tokens.ids.shape == (len(captions), max(each.ids.shape[1] for each in alone))
    for row, (text, cut) in enumerate(zip(captions, engine.encode_batch(captions))):
        size, real = len(cut.ids), tokens.mask[row]
        assert 3 <= size <= most and real.tolist() == [True] * size + [False] * (len(real) - size)
        assert tokens.ids[row, real].tolist() == cut.ids == alone[row].ids[0].tolist()
        assert max(cut.ids) < spelling().vocabulary
        assert (tokens.ids[row, ~real] == tokenizer.pad).all()
        is_word = [not special for special in cut.special_tokens_mask]
        assert tokens.word_mask[row, real].tolist() == is_word and any(is_word)
        assert not tokens.word_mask[row, ~real].any()
        pieces = tokenizer.pieces(text)
        assert [piece for piece, _, _ in pieces] == [
            token for token, word in zip(cut.tokens, is_word) if word
        ]
        assert all(0 <= start <= end <= len(text) for _, start, end in pieces)
    last = tokens[[len(captions) - 1]]
    assert all(
        torch.equal(getattr(last, name), getattr(alone[-1], name))
        for name in ("ids", "mask", "word_mask")
    )


@few
@given(words=st.lists(st.sampled_from(sorted(known_words())), min_size=1, max_size=30))
def test_ids_of_the_words_of_the_scenes_are_read_back_as_these_words(words):
    for each in (tokenizer(), spelling()):
        ids = TextTokenizer(each.engine, 400)([" ".join(words)]).ids[0].tolist()
        assert each.engine.decode(ids, skip_special_tokens=True) == " ".join(words)


def test_words_of_training_captions_are_single_pieces():
    assert tokenizer().pieces("a red star above a blue circle")[-1][0] == "circle"


@pytest.mark.parametrize("empty", ["", "   ", "\n\t", None, 7])
def test_an_empty_caption_is_an_error_that_says_which(empty):
    with pytest.raises(
        ValueError, match=r"^caption 2 is .*; a caption must hold at least one word$"
    ):
        tokenizer()(["a star", "a moon", empty])


def test_a_caption_of_which_nothing_is_left_is_an_error():
    with pytest.raises(ValueError, match="caption 1 is .*; no word is left of it"):
        tokenizer()(["a star", "\x00\x01"])


@pytest.mark.parametrize("captions", [[], "a red star"])
def test_no_captions_or_one_bare_string_is_an_error(captions):
    with pytest.raises(ValueError, match="it must be a list of at least one caption"):
        tokenizer()(captions)


def test_no_training_captions_is_an_error():
    with pytest.raises(ValueError, match="captions is .*a list of at least one caption"):
        TextTokenizer.learn([])


def test_a_long_caption_is_cut_with_one_warning_and_keeps_its_end_token():
    short = TextTokenizer(tokenizer().engine, most_tokens=6)
    with pytest.warns(
        UserWarning, match="1 of 3 captions are cut to 6 tokens, the first of them: 'there is"
    ) as caught:
        tokens = short(CAPTIONS)
    assert len(caught) == 1 and tokens.ids.shape == (3, 6)
    assert names(tokens, 1, tokens.mask) == [START, "there", "is", "a", "tiny", END]
    assert names(tokens, 1, tokens.word_mask) == ["there", "is", "a", "tiny"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = tokenizer()(CAPTIONS)  # the limit of one tokenizer does not stick to the engine
    assert again.ids.shape[1] > 6


def test_a_caption_at_the_limit_is_not_cut():
    size = tokenizer()(["a red star"]).ids.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TextTokenizer(tokenizer().engine, size)(["a red star"]).ids.shape == (1, size)


def test_a_limit_without_room_for_a_word_is_an_error():
    with pytest.raises(ValueError, match="most_tokens is 2"):
        TextTokenizer(tokenizer().engine, 2)


def test_pieces_line_up_with_the_words_mask_and_point_into_the_caption(spelled):
    for own in some_scenes()["captions"]:
        tokens = spelled(own)
        for caption, ids, words in zip(own, tokens.ids, tokens.word_mask):
            pieces = spelled.pieces(caption)
            assert [piece for piece, _, _ in pieces] == [
                spelled.engine.id_to_token(int(i)) for i in ids[words]
            ]
            assert all(
                caption[start:end].lower() == piece.removeprefix("##")
                for piece, start, end in pieces
            )
            assert "".join(caption[start:end] for _, start, end in pieces) == caption.replace(
                " ", ""
            )


def test_pieces_of_a_long_caption_are_cut_as_the_ids_are():
    short = TextTokenizer(tokenizer().engine, most_tokens=6)
    with pytest.warns(UserWarning):
        words = int(short([CAPTIONS[1]]).word_mask.sum())
    assert len(short.pieces(CAPTIONS[1])) == words == 4


def test_learning_gives_the_same_vocabulary_every_time_and_in_any_order():
    captions = [caption for own in some_scenes("train", 200)["captions"] for caption in own]
    known = tokenizer().to_json()
    for _ in range(4):
        captions.append(captions.pop(0))
        assert TextTokenizer.learn(captions).to_json() == known


def test_a_tokenizer_written_as_json_and_read_again_gives_the_same_tokens():
    again = TextTokenizer.from_json(tokenizer().to_json(), tokenizer().most_tokens)
    ours, theirs = tokenizer()(CAPTIONS), again(CAPTIONS)
    assert again.vocabulary == tokenizer().vocabulary and again.to_json() == tokenizer().to_json()
    assert all(
        torch.equal(getattr(ours, name), getattr(theirs, name))
        for name in ("ids", "mask", "word_mask")
    )


@pytest.fixture(scope="module", params=["[PAD]", "<pad>"])
def saved_by_transformers(request, tmp_path_factory):
    """A folder as `save_pretrained` writes it, with special tokens at other ids than ours."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[CLS]", "[SEP]", "a", "red", "star", "##s", "[UNK]", "blue", "moon", request.param]
    engine = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    engine.normalizer, engine.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    engine.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=engine,
        unk_token="[UNK]",
        pad_token=request.param,
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    folder = tmp_path_factory.mktemp("hugging face")
    theirs.save_pretrained(str(folder))
    return folder, theirs


def test_a_hugging_face_tokenizer_gives_the_ids_that_transformers_gives(
    saved_by_transformers, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder, theirs = saved_by_transformers
    captions = ["A red star", "two blue moons and stars", "moon"]
    tokens, known = (
        TextTokenizer.from_pretrained(folder)(captions),
        theirs(captions, padding=True, return_tensors="pt"),
    )
    assert torch.equal(tokens.ids, known["input_ids"])
    assert torch.equal(tokens.mask, known["attention_mask"].bool())
    special = torch.tensor(
        [
            theirs.get_special_tokens_mask(row, already_has_special_tokens=True)
            for row in known["input_ids"].tolist()
        ]
    ).bool()
    unknown = (
        tokens.ids == theirs.unk_token_id
    )  # transformers calls it special, but it stands for a word
    assert torch.equal(tokens.word_mask, (~special | unknown) & tokens.mask)


def test_a_hugging_face_tokenizer_cuts_as_transformers_does(saved_by_transformers):
    folder, theirs = saved_by_transformers
    with pytest.warns(UserWarning, match="cut to 4 tokens"):
        tokens = TextTokenizer.from_pretrained(folder, most_tokens=4)(["a red red star"])
    assert (
        tokens.ids.tolist()
        == theirs(["a red red star"], truncation=True, max_length=4)["input_ids"]
    )


def test_a_tokenizer_that_puts_nothing_before_a_caption_is_refused():
    from tokenizers import Tokenizer, models

    with pytest.raises(ValueError, match="no special token before a caption"):
        TextTokenizer(Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")))


def random_texts(count=300):
    """Texts of all kinds of signs, words that are known among them."""
    draw = random.Random(0)
    signs = [
        "a red star ",
        "above ",
        "x",
        "é",
        "雪",
        "\U0001f436",
        " ",
        ".",
        "[SEP]",
        "\u200b",
        "ß",
    ]
    found = ["".join(draw.choices(signs, k=draw.randint(1, 40))) for _ in range(count)]
    return [f"a {text}" for text in found]


def test_many_threads_encode_what_one_does():
    """Tokenizers of two lengths share an engine, which must not change while another encodes."""
    texts = random_texts()
    tokenizers = [TextTokenizer(tokenizer().engine, most) for most in (6, 200)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = [each(texts).ids for each in tokenizers]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda number: tokenizers[number % 2](texts).ids, range(64)))
    assert all(torch.equal(ids, alone[number % 2]) for number, ids in enumerate(found))
    assert tokenizer().engine.truncation is None
