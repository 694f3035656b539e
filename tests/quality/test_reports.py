"""A test that quotes hostile input is reported like any other."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASE = '''
"""Quotes what UTF-8 cannot encode, in a log line and in its failure."""

import logging


def test_logs() -> None:
    """Passes, with a warning."""
    logging.getLogger("x").warning("odd: %s", chr(0xDC80))


def test_fails() -> None:
    """Fails, with the text in its message."""
    assert chr(0xDC80) == "b"
'''


def test_a_worker_survives_what_cannot_be_encoded(tmp_path: Path) -> None:
    """With pytest-xdist the log and the failure arrive, and the worker goes on."""
    case = tmp_path / "test_case.py"
    case.write_text(CASE)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *  # noqa: F403\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", str(case)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout
    assert "INTERNALERROR" not in ran.stdout
