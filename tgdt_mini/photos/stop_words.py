"""Words that mean no thing in a picture: they get no local token, and so look for no region.

Articles, prepositions, pronouns and the like stand in every caption. Each would still pick a best
region, and the mean over a caption's words would mostly be theirs. English only; a caption that
holds nothing else keeps all of its words.
"""

from tgdt_mini.text_tokens import TextTokenizer

STOP_WORDS = tuple(
    """a an the this that these those each another other others some something
    is are was were be been being am has have had do does
    in on at of to by with from for into onto over near up down out off through while as
    and or there it its he his him she her they their them who which one two three s
    , . ; : ' " ! ? ( ) & -""".split()
)
UNKNOWN = ("[UNK]", "<unk>")


def stop_ids(tokenizer: TextTokenizer) -> list[int]:
    """The ids of the stop words that are a single piece to a tokenizer, in ascending order."""
    written = [form for word in STOP_WORDS for form in (word, word.capitalize())]
    tokens = tokenizer(written)
    ids = {
        int(row_ids[words])
        for row_ids, words, text in zip(tokens.ids, tokens.word_mask, written)
        if words.sum() == 1 and tokenizer.pieces(text)[0][0] not in UNKNOWN
    }
    return sorted(ids)
