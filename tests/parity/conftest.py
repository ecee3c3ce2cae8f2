"""``pytest tests/parity --golden DIR`` compares with the recorded numbers in DIR; default: the bundled fixtures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import the sibling module `golden`

from golden import GoldenSet  # noqa: E402

FIXTURES = Path(__file__).parent.parent / "fixtures" / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=FIXTURES, help="folder of recorded reference numbers")


def golden_set(config: pytest.Config) -> GoldenSet:
    """The folder asked for, for use in ``pytest_generate_tests`` hooks (parametrisation happens before fixtures)."""
    folder = config.getoption("--golden", default=FIXTURES)
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder} is no folder")
    return GoldenSet(folder)


@pytest.fixture(scope="session")
def golden(pytestconfig: pytest.Config) -> GoldenSet:
    return golden_set(pytestconfig)
