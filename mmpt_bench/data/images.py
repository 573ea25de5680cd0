"""Images as RGB: one defined conversion for every kind of file, and a refusal for those that must not be decoded."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError, shown
from mmpt_bench.common.files import pointer_told

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class LazyImage:
    """An image that is opened when it is needed, and known by its key before that."""

    key: str
    """Identity: equal keys are equal images. Caches and clusters use it."""
    open: Callable[[], Image]
    """Returns the image as RGB."""
    source: Any = field(default=None, repr=False, compare=False)
    """What `open` reads, where that is known: encoded bytes, the path of a file, or a PIL image."""


def distinct_images(images: Iterable[LazyImage]) -> dict[str, list[LazyImage]]:
    """Returns by key the images that are not read from the same object, file or bytes as an earlier one of that key."""
    found: dict[str, list[LazyImage]] = {}
    for image in images:
        known = found.setdefault(image.key, [])
        if not any(_same_source(image, other) for other in known):
            known.append(image)
    return found


def key_clashes(named: Iterable[tuple[str, LazyImage]]) -> list[str]:
    """Returns the keys that stand for several images, each with the names of two rows that disagree.

    Images are equal where their bytes are, or else their pixels. One that does not open is a fault of its own.

    Args:
        named: what each image is called in a message ("row 3"), and the image.
    """
    names: dict[int, str] = {}
    images = []
    for name, image in named:
        names.setdefault(id(image), name)
        images.append(image)
    faults = []
    for key, (first, *others) in distinct_images(images).items():
        other = next((each for each in others if not _same_pixels(first, each)), None)
        if other is not None:
            faults.append(f"`{key}` is one image in {names[id(first)]} and another in {names[id(other)]}")
    return faults


def _same_source(one: LazyImage, other: LazyImage) -> bool:
    if one is other or one.open is other.open:
        return True
    a, b = one.source, other.source
    if a is None or b is None:
        return False
    # Pillow would compare pixels, and decode them for it.
    return a is b or (isinstance(a, bytes | Path) and type(a) is type(b) and a == b)


def _same_pixels(one: LazyImage, other: LazyImage) -> bool:
    """Returns whether two images are equal, or whether one of them cannot be read."""
    if all(isinstance(each.source, bytes | Path) for each in (one, other)):
        try:
            a, b = (s if isinstance(s, bytes) else s.read_bytes() for s in (one.source, other.source))
        except OSError:
            return True
        if a == b:
            return True
    try:
        first, second = one.open(), other.open()
    except UNREADABLE:
        return True
    return first.size == second.size and first.tobytes() == second.tobytes()


LONGEST_NAME = 1024
"""Characters of a file name with its folders; longer text in an image column is no name."""
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
"""Of image files: JPEG, PNG, GIF, WebP, BMP, TIFF. AVIF and its like say it at their fifth byte."""


def image_bytes(text: str) -> bytes | None:
    """Returns the image file that a text holds in base64, plain or as a `data:` address; None for a file's name.

    Raises:
        ValueError: a `data:` address without an image, or text that is too long for a name and no base64 of an image.
    """
    is_address = text[:5].lower() == "data:"
    if is_address:
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise ValueError(f"a `data:` address that is not base64 ({shown(head)})")
    fault = "" if is_address or len(text) > LONGEST_NAME else "a name"
    # Names end in a point and letters, which base64 has not.
    if fault and (len(text) < 60 or not _BASE64.fullmatch(text)):
        return None
    try:
        start = base64.b64decode("".join(text[:200].split())[:64], altchars=b"-_" if {"-", "_"} & set(text) else None)
        if start.startswith(_STARTS) or start[4:8] == b"ftyp":
            plain = "".join(text.split())
            plain += "=" * (-len(plain) % 4)
            return base64.b64decode(plain, altchars=b"-_" if {"-", "_"} & set(plain) else None, validate=True)
    except ValueError as error:
        if not fault:
            raise ValueError(f"{len(text):,} characters of text that are not whole base64 of an image") from error
    if fault:
        return None
    raise ValueError(f"{len(text):,} characters of text, neither a file's name nor base64 of an image")


_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+(?:=\s*)*")

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: a few kilobytes can unpack to gigabytes."""


class BadImage(RequestError):
    """An image that cannot be read: cut short, no image at all, or too large."""

    def __init__(self, file: str, where: str, fault: str) -> None:
        """Says what is wrong with a file, which a sample named `where` needs."""
        of = f" of sample `{where}`" if where else ""
        super().__init__(f"Image `{file}`{of} {fault}.")


UNREADABLE = (BadImage, OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What opening an image raises that cannot be read: ours, and what Pillow raises."""


def decoded(source: bytes | Path, file: str, where: str) -> Image:
    """Returns an encoded image, its bytes or its path, as RGB; BadImage names its `file` and the sample `where`."""
    from PIL import Image as PILImage

    try:
        with PILImage.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.format == "EPS":
                raise BadImage(file, where, "is EPS, a program that another one would run: it is not decoded")
            return rgb(image, file, where)
    except BadImage:
        raise
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
        raise BadImage(file, where, f"is larger than {MAX_PIXELS:,} pixels") from error
    except UNREADABLE as error:
        if isinstance(source, Path) and pointer_told(source):
            raise BadImage(file, where, "is a pointer of git-LFS: fetch the file with `git lfs pull`") from error
        raise BadImage(
            file, where, f"cannot be decoded ({str(error)[:150]}). Fetch it again, or leave the row out"
        ) from error


def rgb(image: Image, file: str, where: str) -> Image:
    """Returns an image as 8-bit RGB, upright: the first frame, turned as its EXIF orientation says.

    16-bit grey keeps its high byte (Pillow alone would clip it to white). Transparency is dropped, not laid over a
    colour, and palettes, CMYK and the rest go Pillow's way, as in the harnesses whose figures are published.

    Raises:
        BadImage: more than `MAX_PIXELS`, or numbers that are no 16-bit grey values.
    """
    from PIL import ImageOps

    if image.width * image.height > MAX_PIXELS:
        raise BadImage(file, where, f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    if getattr(image, "is_animated", False):
        image.seek(0)
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _high_byte(upright, file, where)
    return upright.convert("RGB")


def _high_byte(image: Image, file: str, where: str) -> Image:
    import numpy as np
    from PIL import Image as PILImage

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise BadImage(file, where, f"has values beyond 16 bits (mode {image.mode})")
    return PILImage.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
