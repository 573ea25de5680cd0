"""Images made ready ahead: in another thread, the same to the last bit, and errors where an image is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import torch
from PIL import Image

from mmpt_bench.data.images import BadImage, LazyImage
from mmpt_bench.engine.forward.prepared_images import ImagePrefetcher
from mmpt_bench.engine.models.backbone import Backbone
from support.tiny import pictures, tiny_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.set_num_threads(1)
    return tiny_backbone(tmp_path_factory.mktemp("model"))


@pytest.fixture
def ahead(backbone: Backbone) -> Iterator[ImagePrefetcher]:
    with closing(ImagePrefetcher(backbone)) as made:
        yield made


def opened_by(threads: list[threading.Thread], image: Image.Image) -> Callable[[], Image.Image]:
    """Returns what opens an image and notes in which thread."""

    def opening() -> Image.Image:
        threads.append(threading.current_thread())
        return image

    return opening


def test_an_announced_picture_is_made_once_in_another_thread_and_others_in_this_one(ahead: ImagePrefetcher) -> None:
    threads: list[list[threading.Thread]] = [[], []]
    announced, other = (LazyImage(f"{i}", opened_by(threads[i], image)) for i, image in enumerate(pictures(2)))
    ahead.soon([announced, announced])
    ahead.soon([announced])
    ahead.take([announced, other])
    assert [len(one) for one in threads] == [1, 1]
    assert threads[0][0] is not threading.main_thread()
    assert threads[1][0] is threading.main_thread()


def test_a_picture_is_the_same_announced_or_not_and_whatever_it_comes_with(ahead: ImagePrefetcher) -> None:
    shown = [LazyImage(f"{i}", opened_by([], image)) for i, image in enumerate(pictures(3))]
    ahead.soon(shown[:2])
    together = ahead.take(shown)
    for one, picture in zip(together, shown, strict=True):
        (alone,) = ahead.take([picture])
        assert torch.equal(one.tensors["pixel_values"], alone.tensors["pixel_values"])
        assert one.text == alone.text


def test_a_picture_that_cannot_be_opened_is_an_error_where_it_is_asked_for(ahead: ImagePrefetcher) -> None:
    def failing() -> Image.Image:
        raise OSError("a truncated file")

    (good,) = pictures(1)
    ahead.soon([LazyImage("bad", failing), LazyImage("good", opened_by([], good))])
    ahead.take([LazyImage("good", opened_by([], good))])
    with pytest.raises(BadImage, match=r"`bad` does not open .*a truncated file"):
        ahead.take([LazyImage("bad", failing)])


def test_closing_ends_the_thread(backbone: Backbone) -> None:
    before = threading.active_count()
    made = ImagePrefetcher(backbone)
    made.soon([LazyImage("a", opened_by([], pictures(1)[0]))])
    assert threading.active_count() == before + 1
    made.close()
    assert threading.active_count() == before
