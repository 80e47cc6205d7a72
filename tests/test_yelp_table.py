"""The last table of Yelp, on a made-up folder of data: against sacrebleu, a count by hand and a scorer that lies."""

import gzip
import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import yelp
import yelp_table
from pictures import plot_systems
from training_fixtures import byte_tokenizer, llama

from style_adapter import StyleJudge, StyleTransferEvaluator
from style_adapter.metrics import LanguageScorer

SCORER = """
from pathlib import Path
import sacrebleu

class Judge:
    def predict(self, lines):
        return [int("good" in line) for line in lines]

normalise = str.lower
get_judge = lambda cache: Judge()
read = lambda path: path.read_text("utf-8").lower().splitlines()

def load_gold():
    data = Path(__file__).parent / "yelp_sentiment"
    return {s: (read(data / f"test.{s}.txt"), [read(data / f"test.{s}.refs.{i}.txt") for i in range(4)])
            for s in ("neg", "pos")}

def score(folder, judge, gold):
    outputs = read(folder / "neg2pos.txt") + read(folder / "pos2neg.txt")
    half = len(outputs) // 2
    columns = [sum(lists, []) for lists in zip(*(gold[s][1] for s in ("neg", "pos")))]
    options = {"tokenize": "none", "lowercase": True, "force": True}
    acc = 100 * sum(a == b for a, b in zip(judge.predict(outputs), [1] * half + [0] * half)) / len(outputs)
    own = sacrebleu.corpus_bleu(outputs, [gold["neg"][0] + gold["pos"][0]], **options).score
    ref = sacrebleu.corpus_bleu(outputs, columns, **options).score
    return {"Acc": acc, "selfBLEU": own, "ref4BLEU": ref, "G": (acc * ref) ** 0.5}
"""
DISHES = ["soup", "bread", "fish", "cake"]
LINES = {style: [f"i think the {dish} here is {word} !" for dish in DISHES] for style, word in
         (("neg", "bad"), ("pos", "good"))}  # fmt: skip
FILES = {"neg": "neg2pos.txt", "pos": "pos2neg.txt"}


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_system(folder: Path, change) -> None:
    """What a system wrote, each line changed by `change`."""
    for style, file in FILES.items():
        write(folder / file, [change(line, yelp.OTHER[style]) for line in LINES[style]])


def right(line: str, style: str) -> str:
    return line.replace("good", "bad") if style == "neg" else line.replace("bad", "good")


def shouted(line: str, style: str) -> str:
    return right(line, style).replace("i think", "INDEED").upper()


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder as the benchmark wants it; one training line is a reference."""
    folder = tmp_path / "data"
    write(folder / "score_yelp.py", [SCORER])
    for style, lines in LINES.items():
        write(folder / "yelp_sentiment" / f"test.{style}.txt", lines)
        for i, start in enumerate(("i think the", "oh , the", "we say the", "i know the")):
            references = [right(line, yelp.OTHER[style]).replace("i think the", start) for line in lines]
            write(folder / "yelp_sentiment" / f"test.{style}.refs.{i}.txt", references)
        known = [f"the {dish} was {word}" for dish in DISHES for word in lines[0].split()[-2:-1]]
        write(folder / "yelp_sentiment" / f"train.{style}.txt.gz", [*known, lines[0].replace("i think", "oh ,")])
    systems = folder / "yelp_system_outputs"
    write_system(systems / "_input_copy", lambda line, _: line)
    write_system(systems / "DIRR_direct", lambda line, style: right(line, style) if "fish" in line else line)
    write_system(systems / "louder", shouted)
    return folder


class Letters:
    """Sentences as counts of letters."""

    def encode(self, texts, **options):
        return np.array([[text.count(chr(97 + i)) + 1.0 for i in range(26)] for text in texts])


@pytest.fixture
def command(data, tmp_path, monkeypatch):
    """The command over tiny models: what it keeps."""

    def evaluator(texts, styles, dev):
        judges = {"n-grams": StyleJudge.fit(texts, styles), "meaning": StyleJudge.fit(texts, styles)}
        return StyleTransferEvaluator(judges, similarity=Letters())

    def run() -> dict:
        yelp_table.main()
        return json.loads((tmp_path / "ours" / "table.json").read_text("utf-8"))["results"]

    monkeypatch.setitem(yelp_table.DRAWS, "samples", 20)
    monkeypatch.setattr(yelp_table, "evaluator_of", evaluator)
    monkeypatch.setattr(yelp_table, "load_smollm2", lambda dtype: (llama(), byte_tokenizer()))
    monkeypatch.setattr(sys, "argv", ["yelp_table.py", "--data", str(data), "--outputs", str(tmp_path / "ours")])
    return run


def test_the_table_has_ours_and_theirs_by_g_and_counts_new_outputs_alone(command, tmp_path, capsys):
    write_system(tmp_path / "ours", right)
    found = command()
    assert {kind: [*found[kind]] for kind in ("ours", "published")} == {
        "ours": ["best of n"],
        "published": ["louder", "DIRR_direct"],
    }
    assert [*found["others"]] == ["copied input", "human 1", "human 2", "human 3", "human 4"]
    both = found["ours"]["best of n"]["both"]
    assert (both["accuracy"][0], both["bleu"][0], both["g"][0]) == (100, 100, 100)
    assert both["copy_rate"][0] == found["others"]["copied input"]["both"]["accuracy"][0] == 0
    assert found["differences"]["best of n"]["both"]["g"][0] > 0
    printed = capsys.readouterr().out
    assert "Outputs of ours scored on these lines so far: 1 (" in printed
    assert printed.index("ours, best of n") < printed.index("louder") < printed.index("DIRR_direct")

    assert command()["evaluations"] == found["evaluations"]
    write_system(tmp_path / "ours" / "one_pass", shouted)
    added = yelp_table.with_evaluations(found["evaluations"], yelp_table.ours_in(tmp_path / "ours"), "2030-01-01")
    written = b"".join((tmp_path / "ours" / "one_pass" / file).read_bytes() for file in FILES.values())
    assert added[:1] == found["evaluations"]
    assert added[1:] == [{"date": "2030-01-01", "system": "one pass", "sha256": sha256(written).hexdigest()}]
    write_system(tmp_path / "ours", shouted)  # what was scored under another name
    assert yelp_table.with_evaluations(added, yelp_table.ours_in(tmp_path / "ours"), "2030-01-02") == added


def test_each_direction_and_person_has_the_g_that_sacrebleu_gives(data):
    scorer = yelp_table.scorer_of(data)
    gold = yelp_table.Gold.of(scorer)
    outputs = {"x": [shouted(text, style).lower() for text, style in zip(gold.sources, gold.wanted, strict=True)]}
    numbers = yelp_table.scored(scorer.get_judge(None), gold, outputs)
    for run, others in (("x", [0, 1, 2, 3]), ("human 2", [0, 2, 3])):
        for rows in (range(4), range(4, 8), range(8)):
            texts = [outputs["x"][i] if run == "x" else gold.references[i][1] for i in rows]
            columns = [[gold.references[i][k] for i in rows] for k in others]
            bleu = sacrebleu.corpus_bleu(texts, columns, tokenize="none", lowercase=True).score
            found = numbers[run]["g"].estimate([np.array(rows)], samples=20)
            assert found.value == pytest.approx((100 * bleu) ** 0.5)
            assert found.low <= found.value <= found.high


def test_numbers_that_the_scorer_does_not_confirm_are_refused(command, data, tmp_path):
    write_system(tmp_path / "ours", right)
    script = data / "score_yelp.py"
    script.write_text(script.read_text("utf-8").replace('"Acc": acc', '"Acc": acc + 1'), "utf-8")
    with pytest.raises(ValueError, match=r"accuracy of 'best of n' is 100\.0 and must be the scorer's Acc, 101\.0"):
        command()
    assert not (tmp_path / "ours" / "table.json").exists()


def test_a_folder_without_outputs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold \['neg2pos.txt', 'pos2neg.txt'\]; `yelp.py --test` writes them"):
        yelp_table.ours_in(tmp_path)


def test_outputs_are_written_where_the_table_looks_for_them_one_line_a_source(tmp_path, monkeypatch):
    monkeypatch.setattr(yelp, "transfer", lambda *given, **_: [f" {a}\n{b} " for a, b in zip(*given[2:], strict=True)])
    yelp.write_outputs(None, None, LINES, tmp_path / yelp_table.OURS["one pass"])
    assert yelp_table.ours_in(tmp_path) == {"one pass": tmp_path / "one_pass"}
    for style, file in FILES.items():
        written = (tmp_path / "one_pass" / file).read_text("utf-8").splitlines()
        assert written == [f"{line} {yelp.OTHER[style]}" for line in LINES[style]]


def test_a_text_that_was_read_is_not_read_again(monkeypatch):
    texts = ["ab", "cde", "", "ab"]
    plain, once = (kind(llama().eval(), byte_tokenizer()) for kind in (LanguageScorer, yelp_table.ReadOnce))
    once.sums(texts[:2])
    monkeypatch.setattr(once.model, "forward", None)
    expected = plain.sums(texts)
    np.testing.assert_allclose(once.sums(texts[:2]), expected[:2], rtol=1e-5)
    np.testing.assert_array_equal(once.sums(texts), once.sums(texts))
    np.testing.assert_allclose(once.sums(texts), expected, rtol=1e-5)


def test_a_system_is_a_dot_at_its_bleu_and_accuracy(monkeypatch):
    kept = []
    monkeypatch.setattr("pictures.save_figure", lambda figure, _: kept.append(figure))
    systems = {"ours": ["a"], "published": ["b", "c", "d", "e"], "others": ["copy", "human 1"]}
    found = {
        kind: {name: {"both": {"bleu": [10.0 + place], "accuracy": [90.0]}} for place, name in enumerate(names)}
        for kind, names in systems.items()
    }
    plot_systems(found, Path("unused.svg"))
    panel = kept[0].axes[0]
    dots = [line.get_xydata().tolist() for line in panel.lines if line.get_marker() == "o"]
    assert sorted(dots) == sorted([[x, 90]] for x in (10, 10, 11, 12, 13, 10, 11))
    named = {text.get_text() for text in panel.texts}
    assert named >= {"a", "b", "c", "d", "copy"}
    assert not named & {"e", "human 1"}
    for line in (line for line in panel.lines if line.get_marker() != "o"):
        x, y = line.get_xydata().T
        np.testing.assert_allclose(x * y, (x * y)[0])
