"""Tests that start processes of their own come first: at the end one worker would do them alone."""

FIRST = ("tests/pipeline/", "tests/tpu/", "tests/notebooks/", "tests/tools/")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
