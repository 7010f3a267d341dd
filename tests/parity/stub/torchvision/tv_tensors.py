"""Names that a reader of annotations imports."""


class BoundingBoxes:
    """A name only."""


class Mask:
    """A name only."""
