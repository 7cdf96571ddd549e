"""Test that two processes sketch as one does."""

import pytest


@pytest.mark.slow
def test_two_processes_count_the_same(two_processes) -> None:
    """The program compares, and fails where counts differ."""
    assert len(two_processes("wds_many_devices.py")) == 2
