"""Work that was asked to stop, and did so where it can be taken up again."""


class Interrupted(BaseException):
    """Stopped between two steps, or two batches of answers; all that was done is on the disk."""
