"""Stop words: known to a tokenizer by their ids, and without a local token in a model."""

import pytest
import torch

from tgdt_mini.data import ImageTokens
from tgdt_mini.model import TGDT
from tgdt_mini.photos.reader import photo_config
from tgdt_mini.photos.stop_words import STOP_WORDS, is_stop_word, stop_ids
from tgdt_mini.text_tokens import TextTokenizer, TextTokens

CAPTIONS = ["a dog runs on the grass .", "the dog and the man", "on it"]


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.learn(CAPTIONS * 3, vocabulary=80)


def test_ids_are_those_of_stop_words_that_are_one_piece(tokenizer):
    ids = stop_ids(tokenizer)
    assert ids == sorted(set(ids))
    pieces = {tokenizer.engine.id_to_token(number) for number in ids}
    assert {"a", "on", "the", "and", "it", "."} <= pieces <= set(STOP_WORDS)
    assert not pieces & {"dog", "man", "grass"}


@pytest.mark.parametrize("form", ["bytes", "sentence piece"])
def test_words_inside_a_sentence_are_known_though_they_are_written_in_another_way(form):
    """Such as "Ġthe" of byte-level BPE and "▁the" of SentencePiece."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine = Tokenizer(models.BPE(unk_token=None if form == "bytes" else "<unk>"))
    engine.pre_tokenizer = byte_level if form == "bytes" else pre_tokenizers.Metaspace()
    engine.decoder = decoders.ByteLevel() if form == "bytes" else decoders.Metaspace()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if form == "bytes" else []
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=alphabet,
        special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False,
    )
    engine.train_from_iterator(["the dog on the grass and the cat on a mat ."] * 50, trainer)
    ends = [(name, engine.token_to_id(name)) for name in ("<s>", "</s>")]
    engine.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    learnt = TextTokenizer(engine)
    sentence = "a dog on the mat ."
    tokens, known = learnt([sentence]), set(stop_ids(learnt))
    ids = tokens.ids[0][tokens.word_mask[0]].tolist()
    words = [
        (sentence[a:b].strip(), i in known) for (_, a, b), i in zip(learnt.pieces(sentence), ids)
    ]
    assert {word for word, is_stop in words if is_stop} == {"a", "on", "the", "."}


def test_a_stop_word_is_a_whole_word():
    text = "an island, a man"
    assert is_stop_word(text, 0, 2) and is_stop_word(text, 9, 10) and is_stop_word(text, 10, 12)
    assert not is_stop_word(text, 3, 5), "is of island"
    assert not is_stop_word(text, 14, 16), "an of man"


def model_of(ids):
    sizes = dict(width=8, image_width=8, text_width=8, image_features=6, text_features=5)
    torch.manual_seed(0)
    return TGDT(photo_config(stop_ids=ids, **sizes)).eval()


def test_stop_words_become_no_local_token_unless_a_caption_has_no_other(tokenizer):
    tokens = tokenizer(CAPTIONS)
    features = torch.randn(*tokens.ids.shape, 5, generator=torch.Generator().manual_seed(0))
    batch = TextTokens(tokens.ids, tokens.mask, tokens.word_mask, features)
    plain, without = (model_of(ids).encode_captions(batch) for ids in (None, stop_ids(tokenizer)))
    for row, caption in enumerate(CAPTIONS):
        pieces = [piece for piece, _, _ in tokenizer.pieces(caption)]
        kept = [piece for piece, real in zip(pieces, without.mask[row].tolist()) if real]
        content = [piece for piece in pieces if piece not in STOP_WORDS]
        assert kept == (content or pieces)
        assert int(plain.mask[row].sum()) == len(pieces)
    # the tokens themselves are the same, and so is the global token, which reads all words
    assert torch.equal(plain.local_tokens, without.local_tokens)
    assert torch.equal(plain.global_token, without.global_token)


def test_a_model_remembers_its_stop_words_in_its_settings(tokenizer):
    ids = stop_ids(tokenizer)
    config = model_of(ids).config
    assert config.reader_settings["stop_ids"] == ids
    assert "stop_ids" not in dict(TGDT(config).state_dict())


@pytest.mark.parametrize("part", ["global_token", "local_tokens"])
def test_maps_of_their_own_learn_from_their_own_tokens_only(part):
    sizes = dict(width=8, image_width=8, text_width=8, image_features=6, text_features=5)
    torch.manual_seed(0)
    model = TGDT(photo_config(**sizes))
    seeded = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 4, dtype=torch.bool)
    ids, words = torch.zeros(2, 4, dtype=torch.int64), mask & (torch.arange(4) > 0)
    text = TextTokens(ids, mask, words, torch.randn(2, 4, 5, generator=seeded))
    features, boxes = torch.randn(2, 4, 6, generator=seeded), torch.rand(2, 4, 4, generator=seeded)
    images = ImageTokens(features, boxes, mask, torch.randn(2, 6, generator=seeded))
    for embedding in model(images, text):
        getattr(embedding, part)[..., 0].sum().backward()
    readers = model.image_reader, model.text_reader
    of_slot = [readers[0].features, readers[1].features]
    of_local = [readers[0].cell_features, readers[1].word_features]
    for maps, learns in ((of_slot, part == "global_token"), (of_local, part == "local_tokens")):
        for layer in maps:
            assert bool(layer.weight.grad.abs().sum() > 0) == learns
    assert not hasattr(TGDT(photo_config(own_maps=False, **sizes)).image_reader, "cell_features")
