from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from sam2_blocks.service.errors import ImageConflictError, UnknownImageError
from sam2_blocks.service.names import ImageNames, pixel_digest
from sam2_blocks.testing import sample_embedding, sample_image
from sam2_blocks.values import Image

EMBEDDING = sample_embedding(sample_image())
SPEC = EMBEDDING.spec


def zeros(*hw):
    return Image(np.zeros((*hw, 3), np.uint8))


def test_the_digest_covers_shape_and_every_pixel():
    changed = zeros(10, 20)
    changed.pixels[9, 19, 2] = 1
    digests = {pixel_digest(image) for image in (zeros(10, 20), zeros(20, 10), changed)}
    assert len(digests) == 3
    assert {len(digest) for digest in digests} == {32}


def test_the_digest_ignores_the_layout_in_memory():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert pixel_digest(Image(pixels)) == pixel_digest(Image(np.asfortranarray(pixels)))


def test_a_name_gives_back_the_key_of_its_embedding():
    names = ImageNames()
    names.claim("cat", "digest")
    names.remember("cat", "digest", EMBEDDING)
    assert names.key("cat", SPEC) == EMBEDDING.key


def test_an_unknown_name_is_refused():
    with pytest.raises(UnknownImageError, match=r"image_id 'cat' is not known to model 'fake'"):
        ImageNames().key("cat", SPEC)


def test_a_name_is_known_only_to_the_models_that_saw_the_image():
    names = ImageNames()
    names.claim("cat", "digest")
    names.remember("cat", "digest", EMBEDDING)
    with pytest.raises(UnknownImageError, match="not known to model 'other'"):
        names.key("cat", SPEC._replace(model="other"))


def test_a_name_for_other_pixels_is_a_conflict():
    names = ImageNames()
    names.claim("cat", "one")
    names.claim("cat", "one")
    with pytest.raises(ImageConflictError, match="'cat' stands for other pixels already"):
        names.claim("cat", "two")


def test_a_name_may_be_replaced_when_configured():
    names = ImageNames("replace")
    names.claim("cat", "one")
    names.remember("cat", "one", EMBEDDING)
    names.claim("cat", "two")
    names.remember("cat", "one", EMBEDDING)  # a slow request for the old pixels
    with pytest.raises(UnknownImageError):
        names.key("cat", SPEC)
    names.remember("cat", "two", replace(EMBEDDING, key="new"))
    assert names.key("cat", SPEC) == "new"


def test_the_least_recently_used_name_is_forgotten_first():
    names = ImageNames(max_names=2)
    for name in ("a", "b"):
        names.claim(name, name)
        names.remember(name, name, EMBEDDING)
    assert names.key("a", SPEC)
    names.claim("c", "c")
    assert len(names) == 2
    assert names.key("a", SPEC)
    with pytest.raises(UnknownImageError):
        names.key("b", SPEC)


def test_of_threads_that_claim_one_name_the_pixels_of_one_win():
    names = ImageNames()
    winners: list[str] = []
    start = threading.Barrier(8)

    def claim(digest):
        start.wait()
        for number in range(200):
            try:
                names.claim(f"name {number}", digest)
            except ImageConflictError:
                continue
            winners.append(f"{number}")

    threads = [threading.Thread(target=claim, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(winners, key=int) == [str(number) for number in range(200)]


def test_find_gives_none_where_key_refuses():
    names = ImageNames()
    assert names.find("cat", SPEC) is None
    names.claim("cat", "digest")
    assert names.find("cat", SPEC) is None
    names.remember("cat", "digest", EMBEDDING)
    assert names.find("cat", SPEC) == EMBEDDING.key


def test_a_name_knows_the_size_of_its_image():
    names = ImageNames()
    names.claim("cat", "digest")
    assert names.image_hw("cat") is None
    names.remember("cat", "digest", EMBEDDING)
    assert names.image_hw("cat") == EMBEDDING.image_hw
    assert names.image_hw("cat", client="another") is None
