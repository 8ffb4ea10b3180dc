"""`--model=NAME` runs the contracts of one model.

TensorFlow never frees the graph of a `fit` whose steps it put into a loop: all models in one
process would take more memory than most machines have.
"""


def pytest_addoption(parser):
    parser.addoption("--model", help="only the contracts of this model")


def pytest_collection_modifyitems(config, items):
    model = config.getoption("--model")
    if model:
        chosen = [
            item
            for item in items
            if item.name.split("[")[-1].startswith((f"{model}-", f"{model}]"))
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
