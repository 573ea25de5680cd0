"""Every figure that the records allow, each with the table behind it.

Which rows a board has is decided in `board/`.
Start with draw.py; a new kind of figure is one file and one line there.
"""
