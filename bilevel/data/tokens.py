"""Token lists in ESPnet's format: <blank> is unit 0 and nothing else, <unk> unit 1, <sos/eos> the last."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence

BLANK, UNKNOWN, SPACE, SOS_EOS = "<blank>", "<unk>", "<space>", "<sos/eos>"


def char_tokens(texts: Iterable[str], nlsyms: Sequence[str] = ()) -> list[str]:
    """Characters by falling frequency (ties: first seen first), as ESPnet's tokenize_text orders them.

    Args:
        texts: Training transcripts.
        nlsyms: Non-linguistic symbols, such as <noise>, that are one token each.

    Raises:
        ValueError: There is no text.
    """
    _check_symbols(nlsyms)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_chars(" ".join(text.split()), nlsyms))
    if not counts:
        raise ValueError("no text to take characters from; check that the training set's file text is not empty")
    return _frame(char for char, _ in counts.most_common())


def word_tokens(texts: Iterable[str]) -> list[str]:
    """Whole words by falling frequency; for closed vocabularies such as digits.

    Raises:
        ValueError: There is no text.
    """
    counts = Counter(word for text in texts for word in text.split())
    if not counts:
        raise ValueError("no text to take words from; check that the training set's file text is not empty")
    return _frame(word for word, _ in counts.most_common())


def split_chars(text: str, nlsyms: Sequence[str] = ()) -> list[str]:
    """The text as character tokens, <space> for the space."""
    pattern = "|".join([*map(re.escape, sorted(nlsyms, key=len, reverse=True)), "."])
    return [SPACE if token == " " else token for token in re.findall(pattern, text, flags=re.DOTALL)]


def bpe_tokens(
    texts: Iterable[str], n_bpe: int, *, mode: str = "unigram", nlsyms: Sequence[str] = ()
) -> tuple[list[str], bytes]:
    """Subword units by sentencepiece; the same text gives the same model.

    Args:
        texts: Training transcripts.
        n_bpe: Size of the token list, the three special units included.
        mode: "unigram" or "bpe".
        nlsyms: Symbols that are never split.

    Returns:
        The token list, and the content of `bpe.model`.

    Raises:
        ValueError: `n_bpe` does not suit the text; the message says what does.
    """
    import sentencepiece

    _check_symbols(nlsyms)
    if mode not in ("unigram", "bpe"):
        raise ValueError(f"bpe_mode {mode!r}: expected unigram or bpe")
    lines = [line for line in (" ".join(text.split()) for text in texts) if line]
    if not lines:
        raise ValueError("no text to train subwords on; check that the training set's file text is not empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=n_bpe,
            model_type=mode,
            character_coverage=1.0,
            input_sentence_size=100_000_000,
            max_sentence_length=max(4192, *(4 * len(line) for line in lines)),
            user_defined_symbols=[symbol for symbol in nlsyms if symbol != UNKNOWN],
            num_threads=4,  # part of the result: the sums of each thread are added up
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_explain(str(error), n_bpe)) from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(i) for i in range(len(processor))]
    return _frame(piece for piece in pieces if piece not in ("<unk>", "<s>", "</s>")), model.getvalue()


def _explain(message: str, n_bpe: int) -> str:
    """What to do about sentencepiece's complaint."""
    too_many = re.search(r"value <= (\d+)", message)
    if too_many:
        return f"nbpe {n_bpe} is too large for this text; pass --nbpe {too_many[1]} or less, or --token_type char"
    too_few = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if too_few:
        return f"nbpe {n_bpe} is less than the number of characters; pass --nbpe {int(too_few[1]) + 1} or more"
    return f"sentencepiece cannot make {n_bpe} units of this text: {' '.join(message.split())}; try another --nbpe"


def _check_symbols(nlsyms: Sequence[str]) -> None:
    for symbol in nlsyms:
        if symbol in (BLANK, SPACE, SOS_EOS) or symbol.split() != [symbol]:
            raise ValueError(
                f"non-linguistic symbol {symbol!r}: expected one word other than {BLANK} {SPACE} {SOS_EOS}"
            )


def _frame(symbols: Iterable[str]) -> list[str]:
    """The list with its special units at both ends."""
    return [BLANK, UNKNOWN, *(symbol for symbol in symbols if symbol != UNKNOWN), SOS_EOS]
