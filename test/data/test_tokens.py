"""Token lists in ESPnet's format."""

import random
import re

import pytest
import sentencepiece

from bilevel.bin.tokens import main
from bilevel.data.tokens import bpe_tokens, char_tokens, split_chars, word_tokens


def sentences(n=300):
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(60)]
    return [" ".join(rng.choices(words, k=rng.randint(1, 6))) for _ in range(n)]


def test_characters_by_falling_frequency_then_first_seen():
    # four spaces (runs count once, ends not), b 3, a 2, then d and c once each, in the order of the text
    assert char_tokens(["b  a b ", "a db c"]) == ["<blank>", "<unk>", "<space>", "b", "a", "d", "c", "<sos/eos>"]


def test_non_linguistic_symbols_are_one_token():
    assert split_chars("<noise> a", ["<noise>"]) == ["<noise>", "<space>", "a"]
    assert char_tokens(["a <unk> a"], ["<unk>"]).count("<unk>") == 1
    for bad in ("<blank>", "<sos/eos>", "<space>", "a b", ""):
        with pytest.raises(ValueError, match="non-linguistic symbol"):
            char_tokens(["a"], [bad])


def test_equals_espnet(tmp_path):
    """The same list as ESPnet's own tokenizer and order give."""
    from collections import Counter

    from espnet2.text.char_tokenizer import CharTokenizer

    texts = sentences(50)
    counter = Counter(t for text in texts for t in CharTokenizer().text2tokens(text))
    expected = [token for token, _ in sorted(counter.items(), key=lambda item: -item[1])]
    assert char_tokens(texts) == ["<blank>", "<unk>", *expected, "<sos/eos>"]


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_subwords(mode):
    tokens, model = bpe_tokens(sentences(), 40, mode=mode)
    assert len(tokens) == len(set(tokens)) == 40
    assert (tokens[0], tokens[1], tokens[-1]) == ("<blank>", "<unk>", "<sos/eos>")
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in sentences(20):
        pieces = processor.encode(text, out_type=str)
        assert set(pieces) <= set(tokens[2:-1])
        assert processor.decode(pieces) == text
    assert bpe_tokens(sentences(), 40, mode=mode) == (tokens, model)


@pytest.mark.parametrize("make", [char_tokens, lambda texts: bpe_tokens(texts, 40)[0]])
def test_unit_0_is_blank_and_nothing_else(make):
    tokens = make([*sentences(), "<blank> <b> </s>"])
    assert tokens[0] == "<blank>"
    assert "<blank>" not in tokens[1:]
    assert "" not in tokens
    assert len(tokens) == len(set(tokens))


def test_symbols_are_never_split():
    tokens, model = bpe_tokens([*sentences(), "aa <noise> bb"], 40, nlsyms=["<noise>", "<unk>"])
    assert tokens.count("<noise>") == 1
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model).encode("ab <noise> cd", out_type=str)
    assert "<noise>" in pieces


@pytest.mark.parametrize("wrong", [3, 10, 100000])
def test_a_wrong_size_names_one_that_works(wrong):

    with pytest.raises(ValueError, match=f"nbpe {wrong} .*pass --nbpe ") as refusal:
        bpe_tokens(sentences(), wrong)
    advised = int(re.search(r"--nbpe (\d+)", str(refusal.value))[1])
    assert len(bpe_tokens(sentences(), advised)[0]) == advised


def test_refuses_no_text_and_unknown_modes():
    for make in (char_tokens, lambda texts: bpe_tokens(texts, 10)):
        with pytest.raises(ValueError, match="not empty"):
            make(["", " "])
    with pytest.raises(ValueError, match="expected unigram or bpe"):
        bpe_tokens(["a"], 10, mode="word")


def test_command(tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text("".join(f"u{n:03d} {line}\n" for n, line in enumerate(sentences())))
    out = tmp_path / "tokens"
    main(["--text", str(text), "--out_dir", str(out)])
    assert (out / "tokens.txt").read_text().splitlines() == char_tokens(sentences())
    main(["--text", str(text), "--out_dir", str(out)])
    assert "skip: " in capsys.readouterr().out
    main(["--text", str(text), "--out_dir", str(out), "--token-type", "bpe", "--nbpe", "40"])
    assert ((out / "tokens.txt").read_text().splitlines(), (out / "bpe.model").read_bytes()) == bpe_tokens(
        sentences(), 40
    )


def test_words_are_whole_and_framed():
    assert word_tokens(["two one", "one"]) == ["<blank>", "<unk>", "one", "two", "<sos/eos>"]
    with pytest.raises(ValueError, match="no text"):
        word_tokens([])
