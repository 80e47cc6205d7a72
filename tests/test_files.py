"""Big files rewritten in shards: columns and order stay, kills lose nothing, memory does not grow."""

import csv
import datetime
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_fixtures import STYLES, TEXTS, contents, rows, save_adapter, save_jsonl, visible

from style_adapter import transfer_files
from style_adapter.cli import main
from style_adapter.files.tables import Cursor
from style_adapter.inference import load, transfer, transfer_best

pytestmark = pytest.mark.usefixtures("no_cache_at_home")
TESTS = Path(__file__).parent
SHORT: dict[str, Any] = {"shard_rows": 4, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> str:
    """The random adapter."""
    return save_adapter(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def expected(adapter) -> dict[str, list[str | None]]:
    """What `transfer` makes of the texts in each style, and of each text in its own style."""
    model, tokenizer = load(adapter)
    sources = [text or "" for text in TEXTS]
    styles = [{"loud": 1, "calm": -0.5} if "{" in style else style or "loud" for style in STYLES]
    found = {style: transfer(model, tokenizer, sources, style, max_new_tokens=4) for style in ("loud", "calm")}
    found["own"] = transfer(model, tokenizer, sources, styles, max_new_tokens=4)
    assert found["loud"] != found["calm"] != found["own"]
    return {name: [t if s is not None else None for s, t in zip(TEXTS, r, strict=True)] for name, r in found.items()}


def read_jsonl(folder: Path) -> list[dict[str, Any]]:
    """The rows of all parts."""
    return [
        json.loads(line) for p in sorted(folder.glob("part-*")) for line in p.read_text("utf-8").split("\n") if line
    ]


def read_csv(folder: Path) -> list[dict[str, str]]:
    """The rows of all parts."""
    found = []
    for path in sorted(folder.glob("part-*")):
        with path.open(encoding="utf-8", newline="") as file:
            found += [*csv.DictReader(file)]
    return found


def without_null(texts: list[str | None]) -> list[str]:
    """As a file without null has them."""
    return [text or "" for text in texts]


# Formats


def test_parquet_keeps_its_columns_types_and_order(adapter, expected, tmp_path):
    stamps = [datetime.datetime(2020, 1, 1 + i, tzinfo=datetime.timezone.utc) for i in range(len(TEXTS))]
    table = pa.table({"at": stamps, "text": TEXTS, "tags": [["x"] * (i % 3) for i in range(len(TEXTS))]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=5)
    done = transfer_files(adapter, tmp_path / "in.parquet", tmp_path / "out", style="calm", **SHORT)
    assert done.files == visible(tmp_path / "out") == [f"part-0000{i}.parquet" for i in range(3)]
    assert done.rows == len(TEXTS)
    assert [pq.read_metadata(tmp_path / "out" / name).num_rows for name in done.files] == [4, 4, 3]
    found = pq.read_table(tmp_path / "out")  # the hidden files are no part of it
    assert found.select(table.column_names).equals(table)
    assert found["rewrite"].to_pylist() == expected["calm"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_jsonl_keeps_what_its_rows_hold(adapter, expected, tmp_path, suffix):
    given = rows()
    given[2] |= {"only here": [1, {"a": None}], "big": 10**20}
    del given[4]["text"]  # as good as null
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in given)
    path = tmp_path / f"in.jsonl{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    done = transfer_files(adapter, path, tmp_path / "out", style="calm", output_column="new", **SHORT)
    assert done.files == [f"part-0000{i}.jsonl" for i in range(3)]
    found = read_jsonl(tmp_path / "out")
    assert [row.pop("new") for row in found] == expected["calm"]
    assert found == given


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_csv_keeps_every_cell_as_it_is_written(adapter, expected, tmp_path, suffix):
    cells = ["007", 'a "b", c', "two\nlines", "a\r\nb", " x ", "", "1e3", "é", "null", "-", "z"]
    with (tmp_path / "in.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["text", "cell"], *zip(without_null(TEXTS), cells, strict=True)])
    path = tmp_path / f"in.csv{suffix}"
    if suffix:
        path.write_bytes(gzip.compress((tmp_path / "in.csv").read_bytes()))
    transfer_files(adapter, path, tmp_path / "out", style="calm", **SHORT)
    found = read_csv(tmp_path / "out")
    assert list(found[0]) == ["text", "cell", "rewrite"]
    assert [row["cell"] for row in found] == cells
    assert [row["text"] for row in found] == without_null(TEXTS)
    assert [row["rewrite"] for row in found] == without_null(expected["calm"])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_txt_gives_a_line_for_a_line(adapter, expected, tmp_path, suffix):
    text = "\r\n".join(without_null(TEXTS)).encode()
    path = tmp_path / f"in.txt{suffix}"
    path.write_bytes(gzip.compress(text) if suffix else text)
    done = transfer_files(adapter, path, tmp_path / "out", style="calm", **SHORT)
    assert done.files == [f"part-0000{i}.txt" for i in range(3)]
    found = "".join(p.read_bytes().decode() for p in sorted((tmp_path / "out").glob("part-*")))
    assert found == "".join(" ".join(line.split("\n")) + "\n" for line in without_null(expected["calm"]))


def test_a_format_becomes_another(adapter, expected, tmp_path):
    given = rows()
    given[5]["id"], given[7]["more"] = 0.5, {"a": [1]}  # types are those of all rows, not of the first
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given), "utf-8")
    common = {"style": "calm", **SHORT}
    transfer_files(adapter, path, tmp_path / "parquet", format="parquet", **common)
    table = pq.read_table(tmp_path / "parquet")
    assert table.schema.field("id").type == pa.float64()
    assert table["rewrite"].to_pylist() == expected["calm"]
    assert table["more"].to_pylist() == [row.get("more") for row in given]
    one = tmp_path / "one.parquet"
    pq.write_table(table.drop_columns("rewrite"), one)
    transfer_files(adapter, one, tmp_path / "csv", format="csv", **common)
    found = read_csv(tmp_path / "csv")
    assert [float(row["id"]) for row in found] == [row["id"] for row in given]
    assert [row["more"] for row in found] == ['{"a": [1]}' if "more" in row else "" for row in given]
    transfer_files(adapter, one, tmp_path / "jsonl", format="jsonl", **common)
    assert [row["rewrite"] for row in read_jsonl(tmp_path / "jsonl")] == expected["calm"]
    (tmp_path / "in.txt").write_text("ab\ncde\n", "utf-8")
    transfer_files(adapter, tmp_path / "in.txt", tmp_path / "lines", format="csv", **common)
    assert [[*row.values()] for row in read_csv(tmp_path / "lines")] == [
        ["ab", expected["calm"][0]],
        ["cde", expected["calm"][2]],
    ]


def test_a_data_set_is_streamed_and_its_output_is_one(adapter, expected, tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "kind": datasets.ClassLabel(names=["x", "y"])})
    given = datasets.Dataset.from_dict({"text": TEXTS, "kind": [i % 2 for i in range(len(TEXTS))]}, features=features)
    (tmp_path / "set").mkdir()
    given.to_parquet(tmp_path / "set" / "test-0.parquet")
    given.save_to_disk(tmp_path / "saved")
    for name, split in (("set", "test"), ("saved", "train")):
        done = transfer_files(adapter, tmp_path / name, tmp_path / f"{name}-out", style="calm", split=split, **SHORT)
        assert (done.rows, len(done.files)) == (len(TEXTS), 3)
        before = contents(tmp_path / f"{name}-out")
        again = transfer_files(adapter, tmp_path / name, tmp_path / f"{name}-out", style="calm", split=split, **SHORT)
        assert again == done
        assert contents(tmp_path / f"{name}-out") == before
        found = datasets.load_dataset(str(tmp_path / f"{name}-out"), split="train")
        assert [*found["rewrite"]] == expected["calm"]
        assert found.remove_columns("rewrite").features == features
        assert [*found["text"]] == TEXTS


# Styles and ways to decode


def test_each_row_has_the_style_of_its_column(adapter, expected, tmp_path):
    path = save_jsonl(tmp_path / "in.jsonl")
    transfer_files(adapter, path, tmp_path / "words", style_column="style", **SHORT)
    assert [row["rewrite"] for row in read_jsonl(tmp_path / "words")] == expected["own"]
    dicts = [{"loud": 1.0, "calm": -0.5} if "{" in style else {"loud": 1.0, "calm": None} for style in STYLES]
    pq.write_table(pa.table({"text": TEXTS, "s": dicts}), tmp_path / "in.parquet")
    transfer_files(adapter, tmp_path / "in.parquet", tmp_path / "dicts", style_column="s", **SHORT)
    found = pq.read_table(tmp_path / "dicts")["rewrite"].to_pylist()
    assert found == [expected["own" if "{" in style else "loud"][i] for i, style in enumerate(STYLES)]


def test_candidates_beams_and_strength_are_those_of_transfer(adapter, tmp_path):
    path = save_jsonl(tmp_path / "in.jsonl")
    sources = [text or "" for text in TEXTS]
    model, tokenizer = load(adapter)
    given = {"strength": {"layers.0-0": 0.5}, "max_new_tokens": 4}
    best = transfer_best(model, tokenizer, sources, "calm", samples=2, seed=7, **given)
    beams = transfer(model, tokenizer, sources, "calm", num_beams=2, **given)
    for name, options, wanted in (("best", {"candidates": 2, "seed": 7}, best), ("beams", {"num_beams": 2}, beams)):
        transfer_files(adapter, path, tmp_path / name, style="calm", shard_rows=4, **options, **given)
        found = [row["rewrite"] or "" for row in read_jsonl(tmp_path / name)]
        assert found == wanted, name  # the draws of a row do not depend on its shard
    assert best != beams


# Kills


def killed(adapter: str, given: str, output: Path, *kills: str) -> list[int]:
    """The exit status of each session of one run."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(TESTS / "files_worker.py"), adapter, given, str(output), *kills]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_killed_at_any_instant_ends_as_one_left_alone(adapter, tmp_path):
    path = save_jsonl(tmp_path / "in.jsonl", 14)  # shards of 3, 3, 3, 3 and 2 rows
    assert killed(adapter, path, tmp_path / "whole", "") == [0]
    whole = contents(tmp_path / "whole")
    assert [name for name in whole if name[0] != "."] == [f"part-0000{i}.jsonl" for i in range(5)]
    # The manifest is settled, is renamed; a shard is half written, settled, renamed, noted; then with a shard to go on
    # from, and so on, until only the manifest is left to be closed.
    kills = ["writes:1", "writes:2", "half:1", "writes:3", "writes:4", "writes:5", "writes:6", "half:2", "writes:9"]
    kills += ["writes:3", "writes:4", "writes:5"]
    statuses = killed(adapter, path, tmp_path / "killed", *kills, "")
    assert statuses == [-9] * len(kills) + [0]
    assert contents(tmp_path / "killed") == whole
    ids = [row["id"] for row in read_jsonl(tmp_path / "killed")]
    assert ids == list(range(14))


def test_a_part_that_was_removed_or_spoilt_is_made_again(adapter, tmp_path):
    path = save_jsonl(tmp_path / "in.jsonl")
    given = {"style": "calm", **SHORT}
    transfer_files(adapter, path, tmp_path / "out", **given)
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "part-00000.jsonl").unlink()
    (tmp_path / "out" / "part-00002.jsonl").write_text("{}\n", "utf-8")
    transfer_files(adapter, path, tmp_path / "out", batch_size=1, **given)
    assert contents(tmp_path / "out") == whole


# Processes


def launched(adapter: str, given: str, output: Path, processes: int) -> subprocess.Popen:
    """The command in processes of its own session."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", "-m", "style_adapter", "transfer", "--adapter", adapter]
    command += ["--input", given, "--output", f"{output}/", "--style-column", "style", "--shard-rows", "3"]
    command += ["--max-new-tokens", "4", "--batch-size", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def test_two_processes_go_on_where_one_was_killed_and_write_what_one_writes(adapter, tmp_path):
    path = save_jsonl(tmp_path / "in.jsonl", 14)
    options = {"style_column": "style", "shard_rows": 3, "max_new_tokens": 4, "batch_size": 2}
    transfer_files(adapter, path, tmp_path / "whole", **options)
    assert killed(adapter, path, tmp_path / "two", "writes:7") == [-9]  # one shard noted, the next one settled
    running = launched(adapter, path, tmp_path / "two", 2)
    said, errors = running.communicate(timeout=900)
    assert running.returncode == 0, errors[-3000:]
    assert said.count(f"14 rows in 5 files: {tmp_path / 'two'}\n") == 1  # one process speaks
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_killed(adapter, tmp_path):
    path = save_jsonl(tmp_path / "in.jsonl", 140)
    options = {"style_column": "style", "shard_rows": 3, "max_new_tokens": 4, "batch_size": 2}
    running = launched(adapter, path, tmp_path / "two", 2)
    while running.poll() is None and len([*(tmp_path / "two").glob("part-*")]) < 3:
        time.sleep(0.02)
    for process in [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]:
        process.kill()  # by number: the launcher gives each a session of its own
    running.communicate()
    assert len([*(tmp_path / "two").glob("part-*")]) < 47
    transfer_files(adapter, path, tmp_path / "two", **options)
    transfer_files(adapter, path, tmp_path / "whole", **options)
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


# Memory


def test_memory_does_not_grow_with_the_file(adapter, tmp_path):
    def table(count: int) -> pa.Table:
        ballast = pa.array([os.urandom(5000).hex() for _ in range(count)])
        return pa.table({"text": ["ab" if i % 1000 == 0 else "" for i in range(count)], "ballast": ballast})

    def saved(name: str, count: int) -> str:
        path = tmp_path / f"{name}.{count}.{name}"
        if name == "parquet":
            pq.write_table(table(count), path, row_group_size=count, compression="none")
        else:
            with path.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in table(count).to_pylist())
        return str(path)

    big = [saved(name, 10_000) for name in ("jsonl", "parquet")]
    assert min(map(os.path.getsize, big)) > 95e6
    grown = killed(adapter, saved("jsonl", 100), tmp_path / "out", "memory", *big)
    assert max(grown) < 40e6, grown
    assert len(visible(tmp_path / "out" / "1" / "big")) == 200


def test_a_cursor_gives_what_a_slice_gives_in_any_order():
    table = pa.table({"x": list(range(100))})
    opened: list[int] = []

    def from_ten(row: int) -> Iterator[pa.Table]:
        opened.append(row)
        return iter([table.slice(row)])

    def cells(found: pa.Table | None) -> list[int]:
        return [] if found is None else found["x"].to_pylist()

    whole = Cursor(lambda row: 0, lambda row: iter([table.slice(i, 10) for i in range(0, 100, 10)]))
    spans = [range(0, 3), range(3, 17), range(40, 60), range(5, 6), range(95, 130), range(100, 110), range(0, 100)]
    for span in spans:
        assert cells(whole.rows(span)) == [x for x in span if x < 100]
    near = Cursor(lambda row: row // 10 * 10, from_ten)
    for span in (range(0, 4), range(4, 8), range(80, 84), range(84, 99), range(20, 21)):
        assert cells(near.rows(span)) == list(span)
    assert opened == [0, 20]  # on from where it is, as all that follows is at hand; back to the nearest start


# The terminal


def test_a_folder_is_told_by_its_slash_by_being_there_or_by_the_input(adapter, expected, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("ab\n\ncde\n", "utf-8")
    (tmp_path / "there").mkdir()
    command = ["transfer", "--adapter", adapter, "--style", "calm", "--max-new-tokens", "4"]
    lines = ["--input", str(tmp_path / "in.txt")]
    for output in (f"{tmp_path}/new/", str(tmp_path / "there")):
        assert main([*command, *lines, "--output", output]) == 0
        assert capsys.readouterr().out == f"3 rows in 1 files: {output.rstrip('/')}\n"
    assert main([*command, *lines, "--output", str(tmp_path / "out.txt")]) == 0
    assert capsys.readouterr().out == ""
    wanted = [" ".join(text.split("\n")) for text in (expected["calm"][0], "", expected["calm"][2])]
    assert (tmp_path / "out.txt").read_text("utf-8") == "".join(f"{text}\n" for text in wanted)
    assert (tmp_path / "new" / "part-00000.txt").read_bytes() == (tmp_path / "out.txt").read_bytes()
    rewritten = ["--input", save_jsonl(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out"), "--shard-rows", "4"]
    assert main([*command, *rewritten, "--column", "text", "--output-column", "new", "--format", "csv"]) == 0
    assert [row["new"] for row in read_csv(tmp_path / "out")] == without_null(expected["calm"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--input", "IN", "--column", "txt"], "column='txt' must be a column of {IN}: id, text, style; name one of"),
        (["--input", "IN", "--style-column", "s"], "style_column='s' must be a column of {IN}: id, text, style; name"),
        (["--input", "IN", "--output-column", "id"], "output_column='id' must be a new name, and {IN} has the columns"),
        (["--input", "IN", "--style-column", "style", "--style", "calm"], "style='calm' must be left out with style_c"),
        (["--input", "IN", "--style", "laud"], "styles='laud' must be one of the adapter's styles: loud, calm"),
        (["--input", "IN", "--style-column", "text"], "row 0, column 'text': styles='ab' must be one of the adapter's"),
        (["--input", "IN", "--format", "xml"], "format='xml' must be one of parquet, csv, jsonl, txt; leave it out"),
        (["--input", "IN", "--format", "txt"], "format='txt' holds the rewrites alone and must be parquet, csv or"),
        (["--input", "IN", "--shard-rows", "0"], "shard_rows=0 must be >= 1; leave it out for the default"),
        (["--input", "IN", "--engine", "spark"], "engine='spark' must be one of processes, ray"),
        (["--input", "IN", "--workers", "2"], "workers=2 must be left out for engine='processes': the launcher starts"),
        (["--input", "IN", "--candidates", "2", "--num-beams", "2"], "num_beams=2 must be 1 with candidates, which"),
        (["--input", "gone.parquet"], "gone.parquet' does not exist; give the path of a file that is there"),
        (["--input", "a/b/gone.pq"], "a/b/gone.pq' does not exist; give a file that ends in one of .parquet, .csv,"),
        (
            ["--input", __file__],
            "must end in one of .parquet, .csv, .jsonl, .txt (but for Parquet also with .gz behind",
        ),
        (["--input", "EMPTY"], "empty.csv' has 0 rows and must have at least 1; check which file was given"),
        (["--input", "RAGGED"], "ragged.csv, line 3: 1 cells must be 2, as in the header; quote cells with commas"),
        (["--input", "BROKEN"], "broken.jsonl, line 2: Expecting"),
        (["--input", "NUMBER"], "number.jsonl, row 1: column 'text' holds 5, which must be a text or null; convert it"),
        (["--input", "NUMBERS"], "column='text' holds int64 and must hold texts; name another or convert it"),
        (["--input", "IN", "--output", "OTHER"], "holds part-00000.jsonl and no .manifest.json, so it is no output of"),
        (["--input", "IN", "--output", "IN"], "is a file and must be a folder; name another"),
        (["--input", "IN", "--output", None], "--output is missing and must be a folder for --input={IN}; name one"),
        (["--input", "LINES", "--output", "FILE", "--split", "x"], "--split=x must come with --input and a folder as"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(adapter, tmp_path, capsys, given, message):
    named = {"IN": save_jsonl(tmp_path / "in.jsonl"), "FILE": str(tmp_path / "out.txt"), "OTHER": str(tmp_path / "oth")}
    written = {
        "EMPTY": ("empty.csv", "text,x\n"),
        "RAGGED": ("ragged.csv", "text,x\na,b\nc\n"),
        "BROKEN": ("broken.jsonl", '{"text": "a"}\n{"text" "b"}\n'),
        "NUMBER": ("number.jsonl", '{"text": "a"}\n{"text": 5}\n'),
        "LINES": ("lines.txt", "a\n"),
    }
    for key, (name, text) in written.items():
        (tmp_path / name).write_text(text, "utf-8")
        named[key] = str(tmp_path / name)
    pq.write_table(pa.table({"text": [1]}), tmp_path / "numbers.parquet")
    named["NUMBERS"] = str(tmp_path / "numbers.parquet")
    (tmp_path / "oth").mkdir()
    (tmp_path / "oth" / "part-00000.jsonl").write_text("{}\n", "utf-8")
    output = [] if "--output" in given else ["--output", str(tmp_path / "out")]
    words = [named.get(word, word) for word in given if word is not None]
    if None in given:
        words.remove("--output")
    assert main(["transfer", "--adapter", adapter, *words, *output]) == 2
    said = capsys.readouterr().err
    assert message.format(**named) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()  # nothing was begun


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style": "loud"}, r"style='loud' \(there 'calm'\)"),
        ({"strength": 0.5}, r"strength=0.5 \(there 1.0\)"),
        ({"column": "style"}, r"column='style' \(there 'text'\)"),
        ({"candidates": 2, "seed": 1}, r"candidates=2 \(there 0\), seed=1 \(there 0\)"),
        ({"shard_rows": 5}, r"shard_rows=5 \(there 4\)"),
        ({"input": "changed"}, r"size=\d+ \(there \d+\), modified="),
        ({"adapter": "other"}, r"adapter_weights='\w{64}' \(there '\w{64}'\)"),
    ],
)
def test_a_folder_of_another_run_is_refused(adapter, tmp_path, change, message):
    path = save_jsonl(tmp_path / "in.jsonl", 4)
    given = {"adapter": adapter, "input": path, "style": "calm", **SHORT}
    transfer_files(output=tmp_path / "out", **given)
    before = contents(tmp_path / "out")
    if "input" in change:
        change = {"input": save_jsonl(tmp_path / "in.jsonl", 5)}
    if "adapter" in change:
        change = {"adapter": save_adapter(tmp_path / "another", seed=1)}
    with pytest.raises(ValueError, match=f"holds another run and must go on with .*{message}.*; name another folder"):
        transfer_files(output=tmp_path / "out", **given | change)
    assert contents(tmp_path / "out") == before


# Ray


@pytest.mark.slow
def test_ray_writes_what_one_process_writes(adapter, tmp_path):
    pytest.importorskip("ray.data")
    path = save_jsonl(tmp_path / "in.jsonl", 14)
    options = ["--style-column", "style", "--shard-rows", "3", "--max-new-tokens", "4", "--batch-size", "2"]
    command = ["transfer", "--adapter", adapter, "--input", path, *options]
    on_ray = [*command, "--output", f"{tmp_path}/ray/", "--engine", "ray", "--workers", "2"]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    assert killed(adapter, path, tmp_path / "ray", "writes:7") == [-9]  # one shard noted, the next one settled
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "style_adapter", *on_ray],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / "ray") == contents(tmp_path / "whole")
