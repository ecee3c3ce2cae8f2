"""``pytest tests/parity --golden DIR`` compares with the numbers recorded in DIR; default: bundled fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.golden import GoldenSet

FIXTURES = Path(__file__).parent.parent / "fixtures" / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=FIXTURES, help="folder of recorded reference numbers")


def golden_set(config: pytest.Config) -> GoldenSet:
    """The folder asked for; for ``pytest_generate_tests`` hooks, which run before any fixture exists."""
    folder = config.getoption("--golden", default=FIXTURES)
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder} is no folder")
    return GoldenSet(folder)


@pytest.fixture(scope="session")
def golden(pytestconfig: pytest.Config) -> GoldenSet:
    return golden_set(pytestconfig)
