"""Whatever standard output is, closed, read in part, or in an encoding of few characters, a command ends in
good order."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from hackward.base.files import ROOT
from tests.runs_on_disk import sampled_rows, write_run

ANALYZE = f"{sys.executable} {ROOT / 'analyze.py'}"


def ended(command, **environment):
    """Exit code and standard error of a line of bash."""
    own = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, env=own, timeout=120
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose path has letters beyond ASCII."""
    home = tmp_path_factory.mktemp("stréams")
    write_run(home / "run", "sampled", sampled_rows(random.Random(0)))
    return home


@pytest.mark.parametrize("what", ["--help", "RUN"])
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_where_the_reader_of_the_output_goes_the_command_ends_without_a_word(run, what, reader):
    argument = f"'{run}'" if what == "RUN" else what
    code, said = ended(f"{ANALYZE} {argument} | {reader}")
    assert "error" not in said and "Exception" not in said and "Traceback" not in said
    assert code in (0, 141)  # 0 where all was written before the reader had gone
    assert what == "--help" or (run / "report" / "report.md").is_file()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_ends_no_command(run, closed):
    code, said = ended(f"{ANALYZE} '{run}' {closed}")
    assert code == 0 and "Traceback" not in said


def test_what_the_encoding_of_the_terminal_lacks_is_an_escape(run):
    code, said = ended(f"{ANALYZE} '{run}' | grep -F 'str\\xe9ams'", PYTHONIOENCODING="ascii")
    assert code == 0, said
