"""Captions to ids and masks: which tokens are words, what is padding, what is cut, and the same as
other tokenizers.
"""

import random
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import some_scenes, tokenizer

from tgdt_mini.text_tokens import END, PAD, START, UNKNOWN, TextTokenizer

CAPTIONS = [
    "a red star",
    "there is a tiny golden circle to the left of a big blue heart",
    "two moons",
]


@pytest.fixture(scope="module")
def spelled():
    """A vocabulary so small that words fall into pieces."""
    return TextTokenizer.learn(
        [caption for own in some_scenes("train", 200)["captions"] for caption in own], 70, 200
    )


def names(tokens, row, which):
    engine = tokenizer().engine
    return [engine.id_to_token(int(token)) for token in tokens.ids[row, which[row]]]


def test_a_caption_becomes_a_start_token_its_words_and_an_end_token():
    tokens = tokenizer()(["A red star"])
    assert names(tokens, 0, tokens.mask) == [START, "a", "red", "star", END]
    assert names(tokens, 0, tokens.word_mask) == ["a", "red", "star"]


def test_padding_is_masked_and_the_batch_is_as_wide_as_its_longest_caption():
    tokens = tokenizer()(CAPTIONS)
    alone = [tokenizer()([caption]) for caption in CAPTIONS]
    assert (
        tokens.ids.shape
        == tokens.mask.shape
        == tokens.word_mask.shape
        == (3, max(each.ids.shape[1] for each in alone))
    )
    assert (
        tokens.ids.dtype == torch.int64
        and tokens.mask.dtype == tokens.word_mask.dtype == torch.bool
    )
    for row, each in enumerate(alone):
        size = each.ids.shape[1]
        assert each.mask.all() and tokens.mask[row].tolist() == [True] * size + [False] * (
            len(tokens.ids[0]) - size
        )
        assert torch.equal(tokens.ids[row, :size], each.ids[0]) and torch.equal(
            tokens.word_mask[row, :size], each.word_mask[0]
        )
        assert (tokens.ids[row, size:] == tokenizer().pad).all() and not tokens.word_mask[
            row, size:
        ].any()
    assert tokenizer().engine.id_to_token(tokenizer().pad) == PAD


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


def test_ids_can_be_read_back_as_the_caption():
    tokens = tokenizer()(CAPTIONS)
    for caption, ids in zip(CAPTIONS, tokens.ids.tolist()):
        assert tokenizer().engine.decode(ids, skip_special_tokens=True) == caption


def test_capitals_and_spaces_do_not_matter():
    assert torch.equal(tokenizer()(["  A Red  STAR "]).ids, tokenizer()(["a red star"]).ids)


def test_every_id_is_below_the_vocabulary_and_learnt_words_are_single_pieces():
    captions = [caption for own in some_scenes("train", 200)["captions"] for caption in own]
    tokens = tokenizer()(captions)
    assert int(tokens.ids.max()) < tokenizer().vocabulary
    assert not (tokens.ids == tokenizer().engine.token_to_id(UNKNOWN)).any()
    assert [piece for piece, _, _ in tokenizer().pieces("a red star above a blue circle")][
        -1
    ] == "circle"


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


def test_rows_of_a_batch_lose_the_columns_that_are_padding_in_all_of_them():
    tokens = tokenizer()(CAPTIONS)
    some = tokens[torch.tensor([0, 2])]
    alone = tokenizer()([CAPTIONS[0], CAPTIONS[2]])
    assert all(
        torch.equal(getattr(some, name), getattr(alone, name))
        for name in ("ids", "mask", "word_mask")
    )
    assert len(tokens[slice(1, 2)]) == 1 and len(tokens.to("cpu")) == 3


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


@pytest.mark.parametrize("most", [3, 4, 7, 20])
def test_captions_are_cut_as_the_library_cuts_them(most, spelled):
    texts = random_texts()
    engine = type(spelled.engine).from_str(spelled.to_json())
    engine.enable_truncation(most)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokens = TextTokenizer(spelled.engine, most)(texts)
    for row, cut in enumerate(engine.encode_batch(texts)):
        assert tokens.ids[row, tokens.mask[row]].tolist() == cut.ids
        words = [token for token, special in zip(cut.ids, cut.special_tokens_mask) if not special]
        assert tokens.ids[row, tokens.word_mask[row]].tolist() == words


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
