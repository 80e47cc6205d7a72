"""Columns into tensors, against batches made by hand."""

from functools import partial

import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch.utils.data import DataLoader
from training_fixtures import END, PAD, byte_tokenizer, style_encoder, toy_rows
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, default_data_collator

from style_adapter import StyleBank, StyleCollator
from style_adapter.corruption import mask_tokens
from style_adapter.data import (
    ClassificationCollator,
    Clock,
    MaskedCollator,
    RowSeeds,
    TransferCollator,
    align_words,
    as_transfer,
    check_rows,
    chosen_rows,
    fill_prompt,
    pad,
    prompt_ids,
    tokenize_classification,
    tokenize_masked,
    tokenize_token_classification,
    tokenize_transfer,
)
from style_adapter.functional import IGNORED
from style_adapter.seeds import generator_of, row_seed

BANK = StyleBank(("loud", "calm"))
encode = style_encoder(BANK)
CLASSES = {"text": ["ab", "c"], "label": [1, 0]}


def tokenizer_of_pieces() -> PreTrainedTokenizerBase:
    """Words and pieces of words, as BERT's; "a b" is one token to it, and characters without form are dropped."""
    vocabulary = {
        piece: row for row, piece in enumerate(["[PAD]", "[UNK]", "un", "##able", "##un", "able", "a", "a b"])
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", additional_special_tokens=["a b"])


def ids(text: str) -> list[int]:
    """The tokens of a text, as the tokenizer's own vocabulary has them."""
    tokenizer = byte_tokenizer()
    return [tokenizer.get_vocab()[char] for char in text.replace("\n", "Ċ")]


def test_prompts_are_padded_left_and_targets_right_as_in_an_example_made_by_hand():
    rows = datasets.Dataset.from_dict({"source": ["a", "bcd"], "target": ["AX", "B"], "style": ["calm", "loud"]})
    tokens = tokenize_transfer(rows, byte_tokenizer(), prompt="{source}\n")
    batch = TransferCollator(PAD, encode)(list(tokens))
    assert batch["input_ids"].tolist() == [
        [PAD, PAD, *ids("a\n"), *ids("AX"), END],
        [*ids("bcd\n"), *ids("B"), END, PAD],
    ]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[*ids("AX"), END], [*ids("B"), END, IGNORED]]
    assert batch["style_ids"][:, 0].tolist() == [1, 0]
    assert batch["style_weights"].tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert batch["row_ids"].tolist() == [0, 1]
    assert tokens["length"] == [5, 6]


def test_encoder_decoders_get_source_and_target_apart_and_padded_right():
    rows = datasets.Dataset.from_dict({"source": ["a", "bcd"], "target": ["AX", "B"], "style": ["calm", "loud"]})
    tokens = tokenize_transfer(rows, byte_tokenizer(), prompt="{source}\n")
    batch = TransferCollator(PAD, encode, decoder_only=False)(list(tokens))
    assert batch["input_ids"].tolist() == [[*ids("a\n"), PAD, PAD], ids("bcd\n")]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[*ids("AX"), END], [*ids("B"), END, IGNORED]]


def test_an_end_token_that_is_the_padding_token_stays_a_target():
    rows = datasets.Dataset.from_dict({"source": ["a", "b"], "target": ["AX", "B"], "style": ["calm", "loud"]})
    tokens = tokenize_transfer(rows, byte_tokenizer(), prompt="{source}\n")
    batch = TransferCollator(END, encode)(list(tokens))
    assert batch["labels"].tolist() == [[*ids("AX"), END], [*ids("B"), END, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1] * 4 + [0]]


def test_braces_in_a_text_stay_what_they_are():
    assert fill_prompt("say: {source}\n", "{x} {source} {") == "say: {x} {source} {\n"


def test_classification_rows_are_padded_right_with_the_default_style():
    tokens = tokenize_classification(datasets.Dataset.from_dict(CLASSES), byte_tokenizer(), default_style="calm")
    batch = ClassificationCollator(PAD, encode)(list(tokens))
    assert batch["input_ids"].tolist() == [ids("ab"), [*ids("c"), PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["style_ids"][:, 0].tolist() == [1, 1]
    assert not batch["judged"].any()


TAGGED = {"text": [["ab", "c"], ["日", "de", "f"]], "label": [[2, 1], [0, -100, 1]]}


def test_a_word_of_several_tokens_has_its_label_at_the_first():
    tokens = tokenize_token_classification(datasets.Dataset.from_dict(TAGGED), byte_tokenizer(), default_style="calm")
    assert tokens["input_ids"] == [ids("abĠc"), byte_tokenizer()("日 de f")["input_ids"]]
    assert tokens["label"] == [[2, -100, -100, 1], [0, *[-100] * 6, 1]]  # three bytes of 日, then " de" and " f"
    batch = ClassificationCollator(PAD, encode)(list(tokens))
    assert batch["labels"].tolist() == [[2, -100, -100, 1, *[-100] * 4], [0, *[-100] * 6, 1]]
    assert batch["attention_mask"].sum(1).tolist() == [4, 8]
    assert batch["style_ids"][:, 0].tolist() == [1, 1]


def test_words_stand_where_a_tokenizer_of_words_puts_them():
    """Against `word_ids`, which tokenizers that split at white space get right of words given one by one."""
    tokenizer = tokenizer_of_pieces()
    texts = [["unable", "able"], ["a", "unun", "able", "a"]]
    found, firsts = align_words(tokenizer, texts)
    encoded = tokenizer(texts, is_split_into_words=True)
    assert found == encoded["input_ids"]
    for row, words in enumerate(texts):
        of_words = encoded.word_ids(row)
        assert firsts[row] == [of_words.index(word) for word in range(len(words))]
    assert len(found[0]) == 3  # un ##able able


def test_a_text_is_split_at_white_space_into_the_words_that_a_list_has():
    split = datasets.Dataset.from_dict({"text": ["ab  c\n"], "label": [[2, 1]]})
    listed = datasets.Dataset.from_dict({"text": [["ab", "c"]], "label": [[2, 1]]})
    one, other = (tokenize_token_classification(rows, byte_tokenizer()).to_list() for rows in (split, listed))
    assert one == other


def test_words_that_no_token_begins_with_are_refused_and_named():
    with pytest.raises(ValueError, match=r"row 7: word 1, '\\u200b', must have a token of its own and has none; drop"):
        align_words(tokenizer_of_pieces(), [["a", "\u200b", "able"]], [7])
    with pytest.raises(ValueError, match=r"row 0: word 1, 'b', must have a token of its own"):
        align_words(tokenizer_of_pieces(), [["a", "b"]])


def test_a_tokenizer_that_cannot_align_words_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer=ByT5Tokenizer must be a fast one: .* use_fast=True"):
        align_words(ByT5Tokenizer(), [["a"]])


def masked_collator(clock: Clock, seed: int = 0) -> MaskedCollator:
    """A collator of masks on the byte tokenizer's vocabulary, whose token 258 masks."""
    mask = partial(mask_tokens, mask_id=258, vocab_size=259, special=(PAD, END), rate=0.3)
    return MaskedCollator(ClassificationCollator(PAD, encode), mask, RowSeeds(seed, clock))


def masked_rows() -> list[dict]:
    """Five texts, tokenised."""
    rows = datasets.Dataset.from_dict({"text": ["a cat sat", "on the mat", "and looked", "at me", "and went"]})
    return list(tokenize_masked(rows, byte_tokenizer(mask_token="<mask>"), default_style="calm"))


def test_masks_change_with_the_epoch_and_not_with_the_batch():
    rows, clock = masked_rows(), Clock()
    collate = masked_collator(clock)

    def masked() -> list[list[int]]:
        together = collate(rows)
        kept = together["attention_mask"].bool()
        alone = [collate([row]) for row in reversed(rows)][::-1]
        for row, one in enumerate(alone):
            assert together["input_ids"][row][kept[row]].tolist() == one["input_ids"][0].tolist()
            assert together["labels"][row][kept[row]].tolist() == one["labels"][0].tolist()
        return together["labels"].tolist()

    first = masked()
    clock.epoch = 1
    second = masked()
    assert all(one != other for one, other in zip(first, second, strict=True))
    clock.epoch = 0
    assert masked() == first
    assert masked_collator(clock, seed=1)(rows)["labels"].tolist() != first
    assert masked_collator(clock)(rows)["labels"].tolist() == first


def test_masks_are_those_of_mask_tokens_with_the_rows_own_generator():
    rows, clock = masked_rows(), Clock()
    clock.epoch = 2
    batch = masked_collator(clock, seed=7)(rows[3:4])
    generator = generator_of(row_seed(7, 2, 3, use="mask"))
    expected = mask_tokens(rows[3]["input_ids"], generator, mask_id=258, vocab_size=259, rate=0.3)
    assert (batch["input_ids"][0].tolist(), batch["labels"][0].tolist()) == expected


def test_rows_with_an_epoch_of_their_own_keep_their_masks():
    rows, clock = [{**row, "epoch": 0} for row in masked_rows()], Clock()
    collate = masked_collator(clock)
    first = collate(rows)["labels"]
    clock.epoch = 5
    assert torch.equal(collate(rows)["labels"], first)


def test_workers_that_outlive_an_epoch_see_the_clock():
    clock = Clock()
    options = {"num_workers": 1, "persistent_workers": True}
    loader = DataLoader(masked_rows(), batch_size=5, collate_fn=masked_collator(clock), **options)
    for epoch in range(3):
        clock.epoch = epoch
        assert torch.equal(next(iter(loader))["labels"], masked_collator(clock)(masked_rows())["labels"])


def test_a_tokenizer_without_a_mask_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer.mask_token=None must be a token: .* or take task='generation'"):
        tokenize_masked(datasets.Dataset.from_dict({"text": ["a"]}), byte_tokenizer())


def test_generation_is_transfer_from_a_prompt_or_from_nothing():
    rows = datasets.Dataset.from_dict({"text": ["AX", "B"], "prompt": ["a", None], "style": ["calm", "loud"]})
    transfer = datasets.Dataset.from_dict({"source": ["a", ""], "target": ["AX", "B"], "style": ["calm", "loud"]})
    found, expected = (
        tokenize_transfer(given, byte_tokenizer(), prompt="{source}\n") for given in (as_transfer(rows), transfer)
    )
    assert found.to_list() == expected.to_list()
    without = rows.remove_columns("prompt").add_column("source", ["a column", "of another task"])
    assert as_transfer(without)["source"] == ["", ""]


def test_a_text_follows_one_token_at_least():
    rows = datasets.Dataset.from_dict({"source": ["", "a"], "target": ["B", "B"], "style": ["calm", "loud"]})
    assert tokenize_transfer(rows, byte_tokenizer(), prompt="{source}")["prompt_ids"] == [[END], ids("a")]
    opened = byte_tokenizer(bos_token="<s>")
    assert prompt_ids(opened, "{source}", ["", "a"]) == [[opened.bos_token_id], ids("a")]


def test_text_pairs_are_tokenised_together_and_given_styles_are_kept():
    pairs = datasets.Dataset.from_dict({**CLASSES, "text_pair": ["x", "yz"], "style": ["loud", "calm"]})
    tokens = tokenize_classification(pairs, byte_tokenizer(), default_style="calm")
    expected = byte_tokenizer()(["ab", "c"], ["x", "yz"])["input_ids"]
    assert tokens["input_ids"] == expected
    assert expected[0] == ids("abx")
    assert tokens["style"] == ["loud", "calm"]


def test_target_tokens_that_the_prompt_lacks_weigh_more_and_padding_nothing():
    rows = datasets.Dataset.from_dict({"source": ["ab", "c"], "target": ["xaby", "c"], "style": ["calm", "loud"]})
    tokens = tokenize_transfer(rows, byte_tokenizer(), prompt="{source}\n")
    batch = TransferCollator(PAD, encode, novel_weight=3.0)(list(tokens))
    assert batch["token_weights"].tolist() == [[3.0, 1.0, 1.0, 3.0, 3.0], [1.0, 3.0, 0.0, 0.0, 0.0]]
    even = TransferCollator(PAD, encode)(list(tokens))
    assert torch.equal(even["token_weights"].bool(), even["labels"] != IGNORED)
    assert even["token_weights"].max() == 1.0


@pytest.mark.parametrize(
    ("style", "weights"),
    [
        ("calm", [0.0, 1.0]),
        (["loud", "calm"], [1.0, 1.0]),
        ({"loud": 0.7, "calm": 0.3}, [0.7, 0.3]),
        ({"text_style": ["loud"], "visual_style": ["calm"]}, [1.0, 1.0]),
        ({"text_style": ["calm"], "visual_style": None}, [0.0, 1.0]),
    ],
    ids=["name", "list", "weights", "aspects", "one aspect"],
)
def test_every_form_of_a_style_column_collates_to_its_code(style, weights):
    rows = datasets.Dataset.from_list([{"source": "a", "target": "b", "style": style}] * 2)
    tokens = tokenize_transfer(rows, byte_tokenizer(), prompt="{source}\n")
    batch = TransferCollator(PAD, encode)(list(tokens))
    dense = torch.zeros(2, 2).scatter_add(1, batch["style_ids"], batch["style_weights"])
    torch.testing.assert_close(dense, torch.tensor([weights, weights]))


def test_a_column_of_a_data_set_means_one_style_a_row():
    column = toy_rows(["a", "b"])["style"]
    assert not isinstance(column, list)
    assert [str(style) for style in BANK.rows(column, 4)] == ["loud", "calm", "loud", "calm"]
    assert BANK.code(column).ids[:, 0].tolist() == [0, 1, 0, 1]


def test_chosen_rows_are_the_fraction_asked_for_whatever_the_batches_and_others_in_each_epoch():
    epochs = [RowSeeds(0, Clock(epoch)).of([{"row_id": row} for row in range(10_000)]) for epoch in (0, 1)]
    seeds, (first, second) = epochs[0], (chosen_rows(seeds, 0.3) for seeds in epochs)
    assert abs(first.double().mean() - 0.3) < 0.02
    assert abs((first & second).double().mean() - 0.09) < 0.02
    assert torch.equal(first, torch.cat([chosen_rows(part, 0.3) for part in seeds.split(7)]))
    assert not chosen_rows(seeds, 0.0).any()
    assert chosen_rows(seeds, 1.0).all()


def test_the_collator_chooses_rows_by_their_seeds_and_rows_with_an_epoch_keep_it():
    tokens = [*tokenize_transfer(toy_rows(), byte_tokenizer(), prompt="{source}\n")]
    clock = Clock()
    collate = TransferCollator(PAD, encode, RowSeeds(5, clock), fraction=0.4)
    first = collate(tokens)
    assert torch.equal(first["judged"], chosen_rows(RowSeeds(5).of(tokens), 0.4))
    assert 0 < first["judged"].sum() < 16
    clock.epoch = 1
    assert not torch.equal(collate(tokens)["seeds"], first["seeds"])
    assert torch.equal(collate([{**row, "epoch": 0} for row in tokens])["seeds"], first["seeds"])


def test_pad_fills_to_the_longest_row():
    assert pad([[1], [2, 3]], 9).tolist() == [[1, 9], [2, 3]]
    assert pad([[1], [2, 3]], 9, left=True).tolist() == [[9, 1], [2, 3]]


TAGS = "token_classification"
GOOD = {"source": ["a", "b"], "target": ["A", "B"], "style": ["loud", "calm"]}


@pytest.mark.parametrize(
    ("columns", "task", "message"),
    [
        ({**GOOD, "target": ["A", ""]}, "transfer", r"rows\[1\]\['target'\]='' must be a non-empty text; drop or fill"),
        ({**GOOD, "source": [" \n", "b"]}, "transfer", r"rows\[0\]\['source'\]=' \\n' must be a non-empty text"),
        ({**GOOD, "source": ["a", None]}, "transfer", r"rows\[1\]\['source'\]=None must be a non-empty text"),
        ({"source": ["a"], "target": ["b"]}, "transfer", r"lacks the column 'style': .* found source, target; rename"),
        ({"text": ["a"]}, "classification", r"lacks the column 'label': task 'classification' needs text, label"),
        ({**CLASSES, "text": ["a", ""]}, "classification", r"rows\[1\]\['text'\]='' must be a non-empty text"),
        ({**CLASSES, "label": ["yes", "no"]}, "classification", r"rows\[0\]\['label'\]='yes' must be the number of a"),
        ({**CLASSES, "label": [0, -1]}, "classification", r"rows\[1\]\['label'\]=-1 must be the number of a class"),
        (
            {"text": ["a b"], "label": [[1]]},
            TAGS,
            r"rows\[0\]\['label'\] has 1 classes and must have 2, one a word; label",
        ),
        (
            {"text": [["a"], ["b", " "]], "label": [[1], [1, 0]]},
            TAGS,
            r"rows\[1\]\['text'\]=\['b', ' '\] must be a text or",
        ),
        ({"text": [" "], "label": [[1]]}, TAGS, r"rows\[0\]\['text'\]=' ' must be a text or a list of words"),
        ({"text": ["a"], "label": [1]}, TAGS, r"rows\[0\]\['label'\]=1 must be a list of class numbers, from 0"),
        ({"text": ["a"], "label": [["B"]]}, TAGS, r"rows\[0\]\['label'\]=\['B'\] must be a list of class numbers"),
        (
            {"text": ["a"], "style": ["loud"], "prompt": [3]},
            "generation",
            r"rows\[0\]\['prompt'\]=3 must be a text, or",
        ),
        ({"text": [""], "style": ["loud"]}, "generation", r"rows\[0\]\['text'\]='' must be a non-empty text"),
        ({name: [] for name in GOOD}, "transfer", r"rows has 0 rows and must have at least 1; check the files"),
        (GOOD, "translation", r"task='translation' must be one of transfer, unpaired, classification"),
    ],
)
def test_data_that_could_not_be_learnt_from_are_refused(columns, task, message):
    with pytest.raises(ValueError, match=message):
        check_rows(datasets.Dataset.from_dict(columns), task, name="rows")


@pytest.mark.parametrize(
    ("columns", "task"),
    [
        (GOOD, "transfer"),
        (CLASSES, "classification"),
        (TAGGED, TAGS),
        ({"text": ["a"]}, "masked_lm"),
        ({"text": ["a", "b"], "style": ["loud", "calm"], "prompt": ["", None]}, "generation"),
        ({**GOOD, "text": ["", None]}, "transfer"),
    ],
    ids=["transfer", "classification", "token classification", "masks", "generation", "a column of another task"],
)
def test_data_that_can_be_learnt_from_pass(columns, task):
    check_rows(datasets.Dataset.from_dict(columns), task)


def test_a_row_one_token_too_long_is_refused_and_named():
    rows = datasets.Dataset.from_dict({"source": ["a", "abc"], "target": ["A", "ABC"], "style": ["loud", "loud"]})
    assert tokenize_transfer(rows, byte_tokenizer(), prompt="{source}\n", max_length=8)["length"] == [4, 8]
    with pytest.raises(ValueError, match=r"row 1 has 8 tokens and must have at most max_length=7; split or drop it"):
        tokenize_transfer(rows, byte_tokenizer(), prompt="{source}\n", max_length=7)
    with pytest.raises(ValueError, match=r"row 0 has 2 tokens and must have at most max_length=1"):
        tokenize_classification(datasets.Dataset.from_dict(CLASSES), byte_tokenizer(), max_length=1)


def test_a_tokenizer_without_an_end_of_text_is_refused():
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"tokenizer.eos_token=None must be a token: .*set tokenizer.eos_token"):
        tokenize_transfer(toy_rows(), tokenizer, prompt="{source}\n")


# Collators of other trainers


def preference_collator(rows):
    """Twice as many rows, as TRL's preference trainers lay them out: [chosen..., rejected...]."""
    return {"input_ids": torch.tensor([row["chosen"] for row in rows] + [row["rejected"] for row in rows])}


def test_a_collator_of_others_gets_the_rows_without_their_style_and_the_batch_has_it():
    rows = [{"input_ids": [1, 2], "style": "calm"}, {"input_ids": [3, 4], "style": {"loud": 0.5}}]
    seen = []

    def collate(given):
        seen.extend(given)
        return default_data_collator(given)

    batch = StyleCollator(collate)(rows)
    assert seen == [{"input_ids": [1, 2]}, {"input_ids": [3, 4]}]
    assert batch["input_ids"].tolist() == [[1, 2], [3, 4]]
    assert batch["styles"] == ["calm", {"loud": 0.5}]
    assert BANK.code(batch["styles"]).weights.tolist() == [[1.0, 0.0], [0.5, 0.0]]


def test_a_batch_of_several_blocks_of_the_rows_has_the_styles_once_a_block():
    rows = [{"chosen": [1], "rejected": [2], "style": "calm"}, {"chosen": [3], "rejected": [4], "style": "loud"}]
    batch = StyleCollator(preference_collator)(rows)
    assert batch["input_ids"].tolist() == [[1], [3], [2], [4]]
    assert batch["styles"] == ["calm", "loud", "calm", "loud"]


@pytest.mark.parametrize("row", [{"input_ids": [1]}, {"input_ids": [1], "style": None}])
def test_a_row_without_a_style_is_refused_with_the_option_that_keeps_the_column(row):
    with pytest.raises(ValueError, match=r"'style' must be in each row, and row 1 .* remove_unused_columns=False"):
        StyleCollator(default_data_collator)([{"input_ids": [1], "style": "calm"}, row])


def test_texts_packed_into_one_row_are_refused():
    rows = [{"input_ids": [1], "style": "calm"}, {"input_ids": [2], "style": "loud"}]
    with pytest.raises(ValueError, match="2 styles for a batch of 1 rows; set packing=False"):
        StyleCollator(lambda given: {"input_ids": torch.tensor([[1, 2]])})(rows)
