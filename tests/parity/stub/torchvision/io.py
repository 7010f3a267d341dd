"""Writing pictures, which no parity test does."""


def write_png(*_args, **_options):
    """Not there."""
    raise NotImplementedError("this torchvision is a stand-in")
