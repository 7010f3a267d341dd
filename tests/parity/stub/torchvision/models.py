"""Names that torchmetrics imports and nothing here calls."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
