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
OTHER = "dog"  # a word that is none of them


def stop_ids(tokenizer: TextTokenizer) -> list[int]:
    """The ids of the stop words that are a single piece to a tokenizer, in ascending order.

    Some tokenizers write a word inside a sentence in another way than at its start ("Ġa", "▁a").
    """
    forms = [form for word in STOP_WORDS for form in (word, word.capitalize())]
    texts = [(start + form, form) for start in ("", f"{OTHER} ") for form in forms]
    texts += [(OTHER + form, form) for form in forms if not form.isalnum()]  # as in "dog."
    tokens, ids = tokenizer([text for text, _ in texts]), set()
    for row_ids, words, (text, form) in zip(tokens.ids, tokens.word_mask, texts):
        piece, first, last = tokenizer.pieces(text)[-1]
        if text[first:last].strip() == form and piece not in UNKNOWN:
            ids.add(int(row_ids[words][-1]))
    return sorted(ids)


def is_stop_word(text: str, first: int, last: int) -> bool:
    """Whether characters first to last of a text are a stop word, and no part of another word."""
    first += len(text[first:last]) - len(text[first:last].lstrip())
    word = text[first:last].strip()
    around = text[max(first - 1, 0) : first] + text[first + len(word) : first + len(word) + 1]
    part_of_another = word.isalnum() and any(character.isalnum() for character in around)
    return word.lower() in STOP_WORDS and not part_of_another
