from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import ClassVar

from sam2_blocks.blocks.embed import ComingPictures, Embed
from sam2_blocks.engine.resources import Resources
from sam2_blocks.testing import FakeExecutor, sample_image


def test_pictures_that_ask_for_one_model_share_a_call_and_keep_their_order():
    calls = []

    class Recording(FakeExecutor):
        def embed(self, images):
            calls.append((self.spec.model, [image.id for image in images]))
            return super().embed(images)

    block = Embed(Resources({"sam2": Recording}))
    items = [
        SimpleNamespace(
            image=sample_image(name),
            model=model,
            device="auto",
            dtype="auto",
            backend="auto",
            input_px=0,
        )
        for name, model in (("a", "one"), ("b", "two"), ("c", "one"))
    ]
    found = [result["embedding"] for result in block.run(items)]
    assert [embedding.image_id for embedding in found] == ["a", "b", "c"]
    assert calls == [("one", ["a", "c"]), ("two", ["b"])]


class Expecting(FakeExecutor):
    """An executor that is told of pictures that come."""

    told: ClassVar[list[tuple[str, str]]] = []

    def expect(self, image):
        self.told.append((self.spec.model, image.id))


def item_of(name, model):
    options = {"device": "auto", "dtype": "auto", "backend": "auto", "input_px": 0}
    return SimpleNamespace(image=sample_image(name), model=model, **options)


def test_the_model_of_the_pictures_before_is_told_of_those_that_come():
    block = Embed(Resources({"sam2": Expecting}))
    Expecting.told.clear()
    block.expect(sample_image("nobody knows yet"))
    block.run([item_of("a", "one"), item_of("b", "two")])
    block.expect(sample_image("c"))
    assert Expecting.told == [("two", "c")]


def test_a_model_that_expects_nothing_is_not_told():
    block = Embed(Resources({"sam2": FakeExecutor}))
    block.run([item_of("a", "one")])
    block.expect(sample_image("b"))


def test_nobody_is_told_of_what_most_pictures_before_were_not_encoded_for():
    coming, executor = ComingPictures(), Expecting("one")
    Expecting.told.clear()
    for encoding in ([], [None, executor], [executor, None, executor], [None]):
        coming.note_encoders(encoding)
        coming.announce(sample_image(str(len(encoding))))
    assert Expecting.told == [("one", "3")]


def test_a_model_that_is_given_up_is_not_kept_for_what_comes():
    coming, executor = ComingPictures(), Expecting("one")
    coming.note_encoders([executor])
    alive = weakref.ref(executor)
    del executor
    gc.collect()
    assert alive() is None
    coming.announce(sample_image("b"))


def test_a_picture_becomes_an_embedding(run_one_step):
    result = run_one_step("sam2/embed@v1", {"image": sample_image("a.png")})
    assert result.outputs["embedding"].image_id == "a.png"
