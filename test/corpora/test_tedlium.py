"""TED-LIUM against lhotse on the same miniature tree, and its rules by hand."""

import itertools

import pytest

from bilevel.corpora import MissingSplitError, tedlium
from bilevel.corpora.tedlium import Segment, clean, pad, read_stm
from bilevel.data.audio import length_sec
from bilevel.testing.trees import tedlium_tree

# Segments of the odd talk where lhotse differs by rule: start -> (lhotse's text, ours, why).
TEXT_DIFFERENCES = {
    0.55: ("it's a(2) red  sun", "it's a red <unk> sun", "(2) goes, <unk> stays"),
    1.2: (
        "we're <sil> open {SMACK} (Odd_2010-1.2-1.987-F0_M-S1)",
        "we're open",
        "<sil>, {SMACK} and the name of the segment go",
    ),
    1.9: ("the boys 'milk", "the boys' milk", "a lone apostrophe joins the word before it"),
    3.6: ("", "<unk>", "<unk> is a word"),
    4.5: ("nine (4.5)", "nine", "the name of the segment goes"),
}


def by_lhotse(src, split):
    from lhotse.audio.backend import LibsndfileBackend, audio_backend
    from lhotse.recipes.tedlium2 import prepare_tedlium2

    with audio_backend(LibsndfileBackend()):  # by default lhotse wants the program sph2pipe for SPHERE files
        manifests = prepare_tedlium2(src, dataset_parts=[split], normalize_text="kaldi")[split]
    return [(s.recording_id, s.start, s.end, s.text, s.speaker) for s in manifests["supervisions"]]


def padded(times, end_of_talk):
    """Kaldi's padding, written for a list of (start, end) that are in order; checked by hand below."""
    out = [[max(0.0, a - 0.15), b + 0.1] for a, b in times]
    for left, right in itertools.pairwise(out):
        if left[1] > right[0]:
            left[1] = right[0] = (left[1] + right[0]) / 2
    return [(a, min(b, end_of_talk)) for a, b in out]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_agrees_with_lhotse(split, tmp_path):
    src = tedlium_tree(tmp_path, odd=True)
    ours = sorted(tedlium.utterances(src, split), key=lambda u: (u.recording, u.start_sec))
    theirs = sorted(by_lhotse(src, split))
    assert len(ours) == len(theirs) == (6 if split == "test" else 12)
    times = {}
    for recording, start, end, *_ in theirs:
        times.setdefault(recording, []).append((int(start * 100) / 100, int(end * 100) / 100))
    if split == "train":
        lengths = {u.recording: length_sec(u.audio) for u in ours}
        times = {talk: padded(rows, lengths[talk]) for talk, rows in times.items()}
    expected_times = [pair for talk in sorted(times) for pair in times[talk]]
    for u, (recording, start, end, text, speaker), (a, b) in zip(ours, theirs, expected_times, strict=True):
        assert (u.recording, u.speaker) == (recording, speaker)
        assert u.id == f"{recording}-{int(start * 100):07d}-{int(end * 100):07d}"
        assert (u.start_sec, u.end_sec) == pytest.approx((a, b), abs=1e-9)
        # lhotse keeps the STM's times, ours are cut to centiseconds (1.15 to 1.14: 1.15 * 100 is 114.99999999999999)
        assert split == "train" or 0 <= start - u.start_sec < 0.01 + 1e-9
        if recording == "Odd_2010" and start in TEXT_DIFFERENCES:
            assert (text, u.text) == TEXT_DIFFERENCES[start][:2]
        else:
            assert u.text == text


def test_ids_cut_off_and_do_not_round(tmp_path):
    src = tedlium_tree(tmp_path, odd=True)
    ids = [u.id for u in tedlium.utterances(src, "dev") if u.recording == "Odd_2010"]
    assert ids == [
        "Odd_2010-0000055-0000120",  # 0.55 * 100 is 55.00000000000001
        "Odd_2010-0000120-0000198",  # 1.987
        "Odd_2010-0000190-0000280",
        "Odd_2010-0000250-0000340",
        "Odd_2010-0000360-0000429",
        "Odd_2010-0000450-0000500",
    ]


@pytest.mark.parametrize(
    ("stm", "expected"),
    [
        ("it 's a red sun", "it's a red sun"),
        ("'cause it 's", "'cause it's"),
        ("we 're they 'd 've", "we're they'd 've"),
        ("the boys ' milk", "the boys' milk"),
        ("read(2) it(3)", "read it"),
        ("a <sil> b <unk> c", "a b <unk> c"),
        ("{NOISE} a [LAUGH] b {COUGH}", "a b"),
        ("{NOISE}", ""),
        ("a b (Talk_2006-1.2-3.4-F0_M-S1)", "a b"),
        ("", ""),
    ],
)
def test_text_rules(stm, expected):
    assert clean(stm) == expected


def segment(start, end):
    return Segment("t", (round(start * 100), round(end * 100)), "", start, end)


def test_padding_by_hand():
    """0.2-6.2 and 6.3-9.8 grow to 0.05-6.3 and 6.15-9.9, which overlap around 6.225; Kaldi's own example."""
    found = [(s.start_sec, s.end_sec) for s in pad([segment(0.2, 6.2), segment(6.3, 9.8)])]
    assert found == [pytest.approx((0.05, 6.225)), pytest.approx((6.225, 9.9))]
    assert pad([segment(0.1, 1.0)])[0].start_sec == 0.0
    # Far apart: 0.25 s each. Touching: the sum of both grows only at the outer ends.
    apart = pad([segment(1, 2), segment(5, 6)])
    assert sum(s.end_sec - s.start_sec for s in apart) == pytest.approx(2.5)
    touching = pad([segment(1, 2), segment(2, 3)])
    assert sum(s.end_sec - s.start_sec for s in touching) == pytest.approx(2.25)


def test_padding_keeps_the_times_of_the_id():
    assert pad([segment(0.2, 6.2)])[0].centisec == (20, 620)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Talk 1 S1 zero 1.0 <o,f0,male> go", r"Talk\.stm:1: expected `<talk> <channel>"),
        ("Talk 1 S1 0.0", r"Talk\.stm:1: expected `<talk> <channel>"),
        ("Talk 1 S1 2.0 1.0 <o,f0,male> go", r"Talk\.stm:1: expected talk Talk and 0 <= start < end"),
        ("Talk 1 S1 0 1 <F0_M> a\nOther 1 S1 0 1 <F0_M> b", r"Talk\.stm:2: expected talk Talk"),
    ],
)
def test_broken_stm(line, message, tmp_path):
    path = tmp_path / "Talk.stm"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_stm(path)


def test_comments_repetitions_and_order(tmp_path):
    path = tmp_path / "T.stm"
    line = "T 1 S1 3.0 4.0 <o,f0,male> go\n"
    path.write_text(f";; LABEL\n{line}T 1 S2 1.0 3.5 <o,f0,male> over lap\n{line}")
    assert [(s.centisec, s.text) for s in read_stm(path)] == [((100, 350), "over lap"), ((300, 400), "go")]


def test_missing_names_half_talks(tmp_path):
    src = tedlium_tree(tmp_path)
    (src / "dev" / "sph" / "DevTalker_2000.sph").unlink()
    (src / "dev" / "stm" / "DevTalker_2001X.stm").unlink()
    assert tedlium.missing(src, "dev") == [
        "audio of DevTalker_2000",
        "transcripts of DevTalker_2001X",
        "0 talks found, 8 published",
    ]
    assert list(tedlium.utterances(src, "dev")) == []


def test_missing_split(tmp_path):
    src = tedlium_tree(tmp_path)
    with pytest.raises(MissingSplitError, match="'eval'; found: train, dev, test"):
        list(tedlium.utterances(src, "eval"))
