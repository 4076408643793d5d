from __future__ import annotations

from types import SimpleNamespace

from sam2_blocks.blocks.embed import Embed
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


def test_a_picture_becomes_an_embedding(run_one_step):
    result = run_one_step("sam2/embed@v1", {"image": sample_image("a.png")})
    assert result.outputs["embedding"].image_id == "a.png"
