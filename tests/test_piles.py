"""Piles of text: what is read, left out and held out, what a recipe of them starts from, and a run from two files."""

import gzip
import re
import shlex
from pathlib import Path

import datasets
import pytest
from pile_fixtures import options, save_piles, write
from tokenizers.processors import TemplateProcessing
from training_fixtures import byte_tokenizer

from style_adapter.cli import main
from style_adapter.data import chat_prompt
from style_adapter.piles import Pile, columns_of, hold_out, named_files, read_piles
from style_adapter.presets import PRESETS, TAUGHT
from style_adapter.recipe import Recipe, load_recipe
from style_adapter.teacher import Halves
from style_adapter.training import read_rows, run

pytestmark = pytest.mark.usefixtures("no_cache_at_home")

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<s>system: be nice</s>{% endif %}"
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
UNEVEN = (  # an answer is written otherwise once a turn follows it
    "{% for m in messages %}<s>{{ m['role'] }}: {% if m['role'] == 'assistant' and loop.last %}(thought) {% endif %}"
    "{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a backbone and two piles."""
    save_piles(tmp_path)
    return tmp_path


def recipe(folder: Path, **more) -> Recipe:
    """The recipe of that run."""
    return load_recipe(None, options(folder, **more))


# Reading


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_rows_are_the_lines_of_the_files_in_turns(tmp_path, suffix):
    first = write(tmp_path / f"a{suffix}", ["one", "  two\u2028more ", "three"])
    second = write(tmp_path / f"b{suffix}", ["\ufeffeins", "zwei"])
    columns = columns_of(read_piles(named_files([first, f"German={second}"])))
    assert columns == {
        "text": ["one", "eins", "two\u2028more", "zwei", "three"],
        "style": ["a", "German", "a", "German", "a"],
    }


def test_empty_repeated_and_shared_lines_are_left_out_and_counted(tmp_path):
    first = write(tmp_path / "a.txt", ["one", "", "two", "one", "  ", "both", "one "])
    second = write(tmp_path / "b.txt", ["both", "eins", "zwei"])
    piles = read_piles(named_files([first, second]))
    assert [pile.texts for pile in piles] == [["one", "two"], ["eins", "zwei"]]
    assert str(piles[0]) == f"a: 2 texts of {first}; left out: 2 empty lines, 2 repeated, 1 of another pile too"
    assert str(piles[1]) == f"b: 2 texts of {second}; left out: 1 of another pile too"


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (59, 2), (1000, 50), (12_000, 500)])
def test_five_percent_of_each_pile_is_held_out_and_never_trained_on(count, expected):
    piles = [Pile(style, "", [f"{style} {i}" for i in range(count)]) for style in ("a", "b")]
    kept, held_out = hold_out(piles, seed=3)
    assert [len(pile.texts) for pile in held_out] == [expected] * 2
    for pile, rest, chosen in zip(piles, kept, held_out, strict=True):
        assert set(chosen.texts).isdisjoint(rest.texts)
        assert sorted(chosen.texts + rest.texts) == sorted(pile.texts)
    assert hold_out(piles, seed=3) == (kept, held_out)
    if count > 2:
        assert hold_out(piles, seed=4)[1] != held_out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"one\ntwo\n"}, r"unpaired=\['.*a.txt'\] must name at least 2 files, one a style"),
        (
            {"a.txt": b"x\ny\n", "c/a.txt": b"z\nw\n"},
            r"are both of the style 'a' .* name them: --unpaired FIRST=.*a.txt",
        ),
        ({"a.txt": b"x\ny\n", "b.txt": b""}, "b.txt holds 0 texts of its own and must hold at least 2, one a line"),
        ({"a.txt": b"x\ny\n", "b.txt": b"\n \nz\n"}, "b.txt holds 1 texts of its own and must hold at least 2"),
        ({"a.txt": b"x\ny\n", "b.txt": b"\xff\xfe\x00"}, "b.txt must be UTF-8 text and is not .* convert it"),
        ({"a.txt": b"x\ny\n", "b.txt": b"z\n\x00\n"}, r"b.txt must be UTF-8 text and is not \(line 2 holds a NUL"),
        ({"a.txt": b"x\ny\n", "b.txt.gz": b"z\nw\n"}, "b.txt.gz must be gzipped UTF-8 text and is not .* convert it"),
        ({"a.txt": b"x\ny\n", "b.txt.gz": gzip.compress(b"z\n" * 99)[:-9]}, "b.txt.gz must be gzipped UTF-8 text and"),
        ({"a.txt": b"x\ny\nz\n", "b.txt": b"x\ny\nw\n"}, "a.txt: 2 of its 3 texts stand in another pile too, and at m"),
        (
            {"a.txt": b"x\ny\n", "b.yaml": b"r: 4\n"},
            r"b.yaml must end in .txt or .txt.gz, .* a recipe stands before --un",
        ),
        ({"a.txt": b"x\ny\n", "b.txt": None}, "b.txt is no file; give the path of a .txt or .txt.gz file"),
    ],
)
def test_files_that_are_no_piles_are_refused_with_the_remedy(tmp_path, files, message):
    (tmp_path / "c").mkdir()
    for name, data in files.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_piles(named_files([str(tmp_path / name) for name in files]))


# The recipe


def test_piles_name_task_and_styles_and_options_win_over_the_preset():
    found = load_recipe(None, {"unpaired": ["x/formal.txt.gz", "b=y.txt"], "use_cpu": True, "w_adv": 0.25})
    assert found.data.unpaired == {"formal": "x/formal.txt.gz", "b": "y.txt"}
    assert (found.training.task, found.adapter.styles) == ("unpaired", ["formal", "b"])
    assert found.training.w_adv == 0.25
    assert (found.data.teacher, found.training.w_cls) == ("edits", TAUGHT["w_cls"])
    game = load_recipe(None, {"unpaired": ["x.txt", "y.txt"], "use_cpu": True, "teacher": "none"})
    assert game.training.w_cls == PRESETS["unpaired"]["w_cls"] != TAUGHT["w_cls"]
    assert found.model.model_name_or_path == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert str(found.training.eval_strategy.value) == "steps"
    assert found.given["learning_rate"] == PRESETS["unpaired"]["learning_rate"]  # the card has it


def test_a_mapping_of_a_file_and_styles_that_are_given_keep_their_order(tmp_path):
    (tmp_path / "recipe.yaml").write_text("unpaired: {b: x.txt, a: y.txt}\nstyles: [a, c, b]\nuse_cpu: true\n", "utf-8")
    found = load_recipe(tmp_path / "recipe.yaml", {})
    assert found.data.unpaired == {"b": "x.txt", "a": "y.txt"}
    assert found.adapter.styles == ["a", "c", "b"]


def test_rows_of_the_task_start_from_the_same_preset_and_are_evaluated_where_there_are_rows_to():
    given = {"train_file": "rows.jsonl", "task": "unpaired", "use_cpu": True}
    found = load_recipe(None, given)
    assert found.training.w_adv == PRESETS["unpaired"]["w_adv"]
    assert found.training.eval_strategy.value == "no"
    assert load_recipe(None, {**given, "eval_file": "dev.jsonl"}).training.eval_strategy.value == "steps"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_file": "rows.jsonl"}, "train_file='rows.jsonl' must be left out where unpaired names files; choose"),
        ({"task": "generation"}, "task='generation' must be 'unpaired', or left out, where unpaired names the files"),
        ({"styles": ["a", "c"]}, r"b.txt is of the style 'b', which must be one of styles=\['a', 'c'\]; name it"),
        ({"unpaired": 3}, "unpaired=3 must be a list of files, or {style: file}; correct it in the recipe"),
        ({"max_train_rows": 0}, "max_train_rows=0 must be >= 1; leave it out to train on all rows"),
    ],
)
def test_options_that_contradict_the_piles_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(None, {"unpaired": ["a.txt", "b.txt"], "use_cpu": True, "bf16": False, **given})


# Prompts of chat models


def chat_tokenizer(template: str, *, opens: bool = False):
    tokenizer = byte_tokenizer(bos_token="<s>")
    tokenizer.chat_template = template
    if opens:
        opening = ("<s>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[opening])
    return tokenizer


def test_the_prompt_of_a_chat_model_is_a_later_turn_of_its_template():
    tokenizer = chat_tokenizer(CHATML)
    assert chat_prompt(tokenizer, "Say {source}") == "<s>user: Say {source}</s><s>assistant: "
    chat = [{"role": "user", "content": "Say ab"}]
    whole = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert whole == "<s>system: be nice</s>" + "<s>user: Say ab</s><s>assistant: "


def test_a_template_that_writes_earlier_turns_otherwise_gives_its_first_turn():
    assert chat_prompt(chat_tokenizer(UNEVEN), "Say {source}") == "<s>user: Say {source}</s><s>assistant: "


@pytest.mark.parametrize("template", [CHATML, UNEVEN])
def test_the_token_that_opens_a_text_stands_there_once(template):
    tokenizer = chat_tokenizer(template, opens=True)
    ids = tokenizer(chat_prompt(tokenizer, "Say {source}"))["input_ids"]
    assert tokenizer.decode(ids) == "<s>user: Say {source}</s><s>assistant: "


def test_without_a_template_there_is_no_chat_and_without_a_place_for_the_source_no_instruction():
    assert chat_prompt(byte_tokenizer(), "Say {source}") is None
    with pytest.raises(ValueError, match=r"instruction='Say' must contain \{source\}; add it where the text belongs"):
        chat_prompt(byte_tokenizer(), "Say")


# A run


def test_two_files_are_enough_to_train_and_the_next_command_works(folder, capsys):
    (folder / "a style's").mkdir()
    flags = options(folder, output_dir=str(folder / "a style's" / "out"))
    piles = flags.pop("unpaired")
    rest = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert main(["train", "--unpaired", piles[0], f"no={piles[1]}", *rest]) == 0
    said = capsys.readouterr().out
    assert f"loud: 36 texts of {piles[0]}\n" in said
    assert "Held out to evaluate on: 1 loud, 1 no.\n" in said
    assert re.search(r"^eval 2/2  loss", said, re.MULTILINE)
    (command,) = re.findall(r"^Try: style-adapter (.*) TEXT$", said, re.MULTILINE)
    assert main([*shlex.split(command), "ab cd"]) == 0
    assert str(folder) not in (folder / "a style's" / "out" / "README.md").read_text("utf-8")


def test_a_teacher_makes_pairs_of_all_texts_that_are_not_held_out(folder, monkeypatch):
    read, held_out = read_rows(recipe(folder))
    given, pairs = [], Halves.pairs

    def seen(halves, count):
        given.extend(halves.texts)
        return pairs(halves, count, least_logit=0.0)

    monkeypatch.setattr(Halves, "pairs", seen)
    run(recipe(folder, max_train_rows=10))
    assert given == list(read["text"])
    assert len(given) == 70
    assert set(given).isdisjoint(held_out["text"])
    history = (folder / "out" / "trainer_state.json").read_text("utf-8")
    assert "loss_ce" in history
    assert "loss_rec" not in history


def test_a_teacher_of_rows_that_have_targets_is_refused(folder):
    rows = {"source": ["ab"], "target": ["AB"], "style": ["loud"]}
    datasets.Dataset.from_dict(rows).to_json(folder / "rows.jsonl")
    given = options(folder, train_file=str(folder / "rows.jsonl"), styles=["loud", "calm"], task="transfer")
    del given["unpaired"]
    with pytest.raises(ValueError, match=r"teacher='edits' must be 'none' for task='transfer' with the columns source"):
        run(load_recipe(None, given | {"teacher": "edits"}))


def test_evaluation_rows_that_are_given_leave_every_text_to_train_on(folder):
    datasets.Dataset.from_dict({"text": ["ab !"], "style": ["loud"]}).to_json(folder / "dev.jsonl")
    rows, held_out = read_rows(recipe(folder, eval_file=str(folder / "dev.jsonl")))
    assert len(rows) == 72
    assert held_out["text"] == ["ab !"]
