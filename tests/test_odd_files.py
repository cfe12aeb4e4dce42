"""What a command makes of files that are empty, that Windows wrote, or that hold code of others."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import subprocess
import sys

import pytest

import evaluate
from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_jsonl
from hackward.grading.rows import read_rows
from hackward.hardware import models
from hackward.hardware.models import tiny_random
from hackward.method.pairs import pair_rows
from hackward.scheduling.experiment import read_experiment
from hackward.tasks.formats import load_problems
from hackward.tasks.shipped import TINY
from tests.desk import run, write_lines
from tests.test_first_steps import write_pool
from tests.test_refusals import refused

MARK = b"\xef\xbb\xbf"
ROW = {"problem_id": "plus-1", "completion": "no idea"}
EXPERIMENT = '[arms.vanilla]\nflags = ["--arm=vanilla"]\n'


def command(*words, **environment):
    """A command line, as a shell runs it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def said(done):
    """The one line of a refusal."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


# --- empty files ---


def blank(path):
    """A file without a row: no byte, or white space."""
    path.parent.mkdir(exist_ok=True)
    text = b"\n \n" if "blank" in path.name else b""
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "blank.jsonl", "rows.jsonl.gz", "folder/rows.jsonl"])
def test_rows_that_are_none_are_no_success(desk, tmp_path, name):
    path = blank(tmp_path / name)
    given = path.parent if path.parent != tmp_path else path
    problems, out = f"--problems={desk / 'problems.jsonl'}", f"--out={tmp_path / 'out.jsonl'}"
    rows = write_lines(tmp_path / "good.jsonl", [ROW])
    for files in ((given,), (rows, given)):
        assert said(command("grade.py", *files, problems, out)) == f"error: {given}: holds no rows to grade"
    assert not (tmp_path / "out.jsonl").exists()


def test_an_empty_file_is_a_fault_of_every_command_that_reads_it(desk, tmp_path):
    empty, rows = blank(tmp_path / "empty.jsonl"), write_lines(tmp_path / "rows.jsonl", [ROW])
    pool, good = blank(tmp_path / "pool" / "step_000.jsonl.gz").parent, desk / "problems.jsonl"
    out, toml, tiny = f"--out={tmp_path / 'out.jsonl'}", blank(tmp_path / "empty.toml"), "--model=tiny-random"
    unusable, rowless = f"{empty}: holds no usable problem", f"{pool}: the pool has no rows"
    lines = [
        (("strengthen.py", empty, out), unusable),
        (("grade.py", rows, f"--problems={empty}", out), unusable),
        (("grade.py", rows, f"--problems={good}", f"--stronger={empty}", out), unusable),
        (("grade.py", "--canonical", f"--problems={empty}"), unusable),
        (("analyze.py", pool), rowless),
        (("sweep.py", f"--experiment={toml}", "--dry-run"), f"{toml}: no field 'arms'"),
        (("extract_vhack.py", tiny, f"--pairs={empty}", out), f"{empty}: 0 pairs; at least 2 are needed"),
        (("extract_vhack.py", tiny, f"--pool={pool}", f"--problems={good}", out), rowless),
    ]
    for words, fault in lines:
        assert said(command(*words)) == f"error: {fault}"
    assert not (tmp_path / "out.jsonl").exists() and not (pool / "report").exists()


def test_an_input_that_is_a_link_in_a_circle_is_named_in_one_line(desk, tmp_path):
    circle, out = tmp_path / "circle.jsonl", tmp_path / "out.jsonl"
    circle.symlink_to(circle)
    line = said(command("grade.py", circle, f"--problems={desk / 'problems.jsonl'}", f"--out={out}"))
    assert line.startswith("error: ") and str(circle) in line and not out.exists()


@pytest.mark.parametrize("step", ["step_000", "step_001"], ids=["its only file", "one of two"])
def test_a_run_without_rollouts_is_not_evaluated_as_one_that_learned_from_nothing(
    desk, tmp_path, capsys, step
):
    path = run(desk, TINY, tmp_path / "run")
    empty = blank(path / "rollouts" / f"{step}.jsonl.gz")
    (path / "checksums.json").unlink()
    flags = evaluate.EvaluateFlags(path, problems=str(desk / "problems.jsonl"))
    assert f"{empty}: holds no rollouts" in refused(capsys, lambda: evaluate.evaluate(flags))
    assert not (path / "evaluate").exists()


# --- an id that comes twice ---


def test_no_command_takes_problems_in_which_an_id_comes_twice(desk, tmp_path):
    """Each row twice would count every problem twice, and train and measure it twice."""
    rows = write_lines(tmp_path / "rows.jsonl", [ROW])
    twice = write_lines(tmp_path / "twice.jsonl", read_jsonl(desk / "problems.jsonl") * 2)
    half, out, given = len(read_jsonl(twice)) // 2, f"--out={tmp_path / 'out.jsonl'}", f"--problems={twice}"
    fault = f"{twice}: row {half + 1}: the problem_id "
    lines = [
        ("grade.py", "--canonical", given),
        ("grade.py", rows, given, out),
        ("grade.py", rows, f"--problems={desk / 'problems.jsonl'}", f"--stronger={twice}", out),
        ("strengthen.py", twice, out),
    ]
    for words in lines:
        line = said(command(*words))
        assert line.startswith(f"error: {fault}") and line.endswith(
            " is that of row 1 too; each may come once"
        )
    assert not (tmp_path / "out.jsonl").exists()


# --- files that Windows wrote ---


def marked(path, copy):
    """A copy with a byte order mark at its start."""
    data = path.read_bytes()
    packed = path.suffix == ".gz"
    text = MARK + (gzip.decompress(data) if packed else data)
    copy.write_bytes(gzip.compress(text) if packed else text)
    return copy


def test_a_byte_order_mark_changes_no_label(desk, tmp_path):
    plain = write_lines(tmp_path / "plain.jsonl", [ROW, ROW])
    rows, problems = (
        marked(plain, tmp_path / "rows.jsonl"),
        marked(desk / "problems.jsonl", tmp_path / "p.jsonl"),
    )
    for file, of, out in ((plain, desk / "problems.jsonl", "a.jsonl"), (rows, problems, "b.jsonl")):
        done = command("grade.py", file, f"--problems={of}", f"--out={tmp_path / out}")
        assert done.returncode == 0, done.stderr
    labels = read_jsonl(tmp_path / "a.jsonl")
    assert len(labels) == 2 and read_jsonl(tmp_path / "b.jsonl") == labels


def test_a_byte_order_mark_is_taken_off_pairs_pools_and_experiments(desk, tmp_path):
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps(read_jsonl(desk / "pairs.jsonl")))
    few = ("--model=tiny-random", "--device=cpu", "--svd-cache=None", "--permutations=2")
    for file in (pairs, desk / "pairs.jsonl"):
        given = marked(file, tmp_path / f"marked{file.suffix}")
        done = command("extract_vhack.py", *few, f"--pairs={given}", f"--out={tmp_path / 'v.safetensors'}")
        assert done.returncode == 0, done.stderr
    pool = write_pool(tmp_path / "pool")
    for file in (*pool.glob("*.jsonl.gz"), pool / "pool.json"):
        marked(file, file)
    done = command("analyze.py", pool)
    assert done.returncode == 0 and "no verdict" in done.stdout, done.stderr
    (tmp_path / "plain.toml").write_text(EXPERIMENT)
    toml = marked(tmp_path / "plain.toml", tmp_path / "e.toml")
    done = command("sweep.py", f"--experiment={toml}", "--dry-run", f"--out={tmp_path / 'sweep'}")
    assert done.returncode == 0 and "vanilla-s41" in done.stdout, done.stderr


CONTAINERS = {
    "zip": b"PK\x03\x04\x14\x00",
    "zstd": b"\x28\xb5\x2f\xfd\x04",
    "xz": lzma.compress(b"{}"),
    "bzip2": bz2.compress(b"{}"),
    "parquet": b"PAR1\x15\x04\x15\x10PAR1",
}


def test_what_is_no_text_is_called_by_its_format_whatever_its_name(tmp_path):
    text, unpack = json.dumps(ROW).encode(), "expected text: unpack or convert it first"
    files = [
        ("a.jsonl", gzip.compress(text), "is gzip, and its name does not say so: let it end in .gz"),
        ("a.jsonl.gz", text, "ends in .gz and is not gzip: take .gz off its name, or compress it"),
        ("b.jsonl.gz", gzip.compress(text)[:-9], "corrupt or truncated gzip file (Compressed file ended"),
        ("c.jsonl.gz", gzip.compress(gzip.compress(text)), "gzip inside of gzip, expected text"),
    ]
    for found, data in CONTAINERS.items():
        files += [(f"{found}.jsonl{ending}", data, f"is {found}, {unpack}") for ending in ("", ".gz")]
    for name, data, fault in files:
        path = tmp_path / name
        path.write_bytes(data)
        for read in (read_jsonl, load_problems, pair_rows, lambda path: read_rows((path,))):
            with pytest.raises(InputError) as caught:
                read(path)
            assert str(caught.value).startswith(f"{path}: {fault}")
    for name in ("pairs.json", "experiment.toml"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text))
        with pytest.raises(InputError, match=f"{path}: is gzip"):
            (pair_rows if name.endswith("json") else read_experiment)(path)


def test_a_line_that_is_no_json_is_told_with_one_line_number(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{json.dumps(ROW)}\n\n{{"problem_id": 1, "completion": }}\n')
    with pytest.raises(InputError) as caught:
        read_rows((rows,))
    assert str(caught.value) == f"{rows}:3: not JSON (Expecting value: column 33)"
    whole = tmp_path / "pairs.json"
    whole.write_text('{\n "problem_id": }')
    with pytest.raises(InputError) as caught:
        pair_rows(whole)
    assert str(caught.value).startswith(f"{whole}: not JSON (Expecting value: line 2, column 16); pairs are")


@pytest.mark.parametrize(
    ("text", "way"),
    [
        (json.dumps([ROW, ROW]), "jq -c '.[]' OLD > NEW.jsonl"),
        (json.dumps([ROW, ROW], indent=1), "jq -c '.[]' OLD > NEW.jsonl"),
        ("\n" + json.dumps([ROW, ROW], indent=1)[:-9], "jq -c '.[]' OLD > NEW.jsonl"),
        (json.dumps(ROW, indent=1) * 2, "jq -c . OLD > NEW.jsonl"),
        (json.dumps(ROW, indent=1)[:-9], "jq -c . OLD > NEW.jsonl"),
        (json.dumps(ROW).replace(", ", ",\n"), "jq -c . OLD > NEW.jsonl"),
        (json.dumps(ROW) + "\n{half", None),
        ("half}\n" + json.dumps(ROW), None),
        ("[" * 100_000, "jq -c '.[]' OLD > NEW.jsonl"),
        ('{"a":' * 100_000, None),
    ],
    ids=lambda value: None if value is None else value[:20],
)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json"])
def test_json_that_is_not_a_row_a_line_is_told_how_it_becomes_that(tmp_path, text, way, ending):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    for read in (load_problems, lambda path: read_rows((path,))):
        with pytest.raises(InputError) as caught:
            read(path)
        said = str(caught.value)
        assert said.startswith(f"{path}:") and said.count("expected one object per line") == (
            way is not None or ending == "json"
        )
        assert ("jq" in said) == (way is not None) and (way is None or f"({way})" in said)
        assert ("in a file that ends in .jsonl" in said) == (ending == "json")


def test_what_no_reader_can_take_is_told_what_to_do(desk, tmp_path):
    problems, text = f"--problems={desk / 'problems.jsonl'}", json.dumps(ROW)
    wide = tmp_path / "wide.jsonl"
    wide.write_text(text, encoding="utf-16")
    line = said(command("grade.py", wide, problems))
    assert line.startswith(f"error: {wide}: not UTF-8 text") and "; save it as UTF-8" in line
    joined = tmp_path / "joined.jsonl"
    joined.write_bytes((MARK + text.encode() + b"\n") * 2)
    assert f"{joined}:2: a byte order mark (U+FEFF) begins the text" in said(
        command("grade.py", joined, problems)
    )


def test_a_generation_config_that_transformers_would_pass_over_is_refused(tmp_path):
    """It reads no byte order mark, and says nothing: tokens that end an answer would be lost."""
    model, tokenizer = tiny_random(seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "generation_config.json"
    marked(file, file)
    with pytest.raises(InputError, match=rf"{file}: a byte order mark"):
        models.load(str(tmp_path), device="cpu")


# --- code that Python warns of ---

ODD = "\\d\\\x1b[31m"  # a regular expression without its r, and the start of a colour
ODD_PROBLEM = {
    "problem_id": "odd",
    "statement": f"Count. The answer is one of ['{ODD}', 1].\n\nConstraints:\n\n1 <= x <= 9",
    "starter_code": f"class Solution:\n    def f(self, x: int, p: 'int' = '{ODD}') -> int:\n",
    "method": "f",
    "setup_code": f"PATTERN = '{ODD}'",
    "tests": [f"candidate(x = 1, p = '{ODD}') == 2"],
    "canonical": f"import nobody\nclass Solution:\n    def f(self, x, p='{ODD}'):\n        return x + 1\n",
}


def test_code_of_others_warns_nobody(tmp_path):
    problems = write_lines(tmp_path / "p.jsonl", [ODD_PROBLEM])
    code = (
        f"```python\nclass Solution:\n    def f(self, x, p='{ODD}'):\n        return 2 if x is 1 else 3\n```"
    )
    rows = write_lines(tmp_path / "rows.jsonl", [{"problem_id": "odd", "completion": code}])
    lines = [
        ("grade.py", rows, f"--problems={problems}", "--vacuous"),
        ("grade.py", "--canonical", f"--problems={problems}"),
        ("strengthen.py", problems, f"--out={tmp_path / 'more.jsonl'}", "--tests=3"),
    ]
    for words in lines:
        done = command(*words, PYTHONWARNINGS="always")
        told = done.stdout + done.stderr
        assert done.returncode in (0, 1) and "Traceback" not in told, told
        assert "escape" not in told and "\x1b" not in told and "is" + '" with' not in told, told


def test_names_of_others_do_not_steer_the_terminal(tmp_path):
    """Neither in a warning nor in the line of a refusal."""
    unread = ODD_PROBLEM | {"problem_id": "\x1b[31mred", "tests": ["candidate(x = 1) is 2"]}
    problems = write_lines(tmp_path / "p.jsonl", [ODD_PROBLEM, unread])
    rows = write_lines(tmp_path / "rows.jsonl", [ROW])
    done = command("grade.py", rows, f"--problems={problems}")
    assert done.returncode == 0 and "do not parse: \\x1b[31mred" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    line = said(command("grade.py", tmp_path / "\x1b[31m.jsonl", f"--problems={problems}"))
    assert "\\x1b[31m.jsonl: no such file" in line and "\x1b" not in line


def test_text_of_others_is_parsed_in_one_place():
    """A second place would warn."""
    places = [*ROOT.glob("*.py"), *(ROOT / "hackward").rglob("*.py")]
    parses = re.compile(r"\bast\.parse\(|literal_eval\((?!syntax_of)")
    found = [path.name for path in places if parses.search(path.read_text(encoding="utf-8"))]
    assert found == ["syntax.py"]
