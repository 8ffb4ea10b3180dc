"""`--model=NAME` runs the contracts of one model, `--part=1/3` the first third of what is left.

TensorFlow never frees the graph of a `fit` whose steps it put into a loop, a gigabyte of a
ResNet-50: all in one process would take more memory than most machines have.
"""


def pytest_addoption(parser):
    parser.addoption("--model", help="only the contracts of this model")
    parser.addoption("--part", default="1/1", help="only this part of them, such as 1/3")


def pytest_collection_modifyitems(config, items):
    model = config.getoption("--model")
    mine = [item for item in items if not model or _model(item) == model]
    number, parts = map(int, config.getoption("--part").split("/"))
    # Neighbours share a fixture.
    size = -(-len(mine) // parts)
    chosen = mine[(number - 1) * size : number * size]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def _model(item):
    return item.name.split("[")[-1].rstrip("]").split("-")[0]
