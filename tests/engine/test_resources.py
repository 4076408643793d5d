from __future__ import annotations

import pytest

from sam2_blocks.clock import Clock, stage
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import ModelError
from sam2_blocks.executors import Executor, Family
from sam2_blocks.testing import FakeExecutor, sample_image
from tests.test_executors import Counter, CountsOnly


class Forgetful(FakeExecutor):
    forgotten = 0

    def forget_unused(self):
        self.forgotten += 1


def test_strangers_name_models_but_not_files():
    resources = Resources({"sam2": FakeExecutor}, local_models=False)
    assert resources.executor("nano").spec.model == "nano"
    for path in ("/srv/secret.pt", "mine.safetensors", "mine.pt/", "mine.pt/."):
        with pytest.raises(ModelError, match=r"is a file, .* SAM2_BLOCKS_LOCAL_MODELS=1"):
            resources.executor(path)
    assert Resources({"sam2": FakeExecutor}).executor("mine.pt").spec.model == "mine.pt"


def test_every_spelling_of_a_model_is_one_model():
    loaded = []

    def load(model, *, device, dtype):
        loaded.append((model, device))
        return FakeExecutor(model.removeprefix("sam2:"))

    resources = Resources({"sam2": load})
    executor = resources.executor("nano")
    assert resources.executor("sam2:nano") is executor
    assert resources.executor("nano", device="cpu", dtype="float32") is executor
    assert loaded == [("nano", "auto")]


def test_models_that_are_no_executors_are_held_too():
    resources = Resources({"mine": lambda *_, **__: CountsOnly()})
    counter = resources.model("tally", Counter, family="mine")
    assert counter.count(None) == 3
    assert resources.model("mine:tally", Counter) is counter
    with pytest.raises(ModelError, match="'mine:tally' cannot embed and segment"):
        resources.executor("mine:tally")
    with pytest.raises(ModelError, match="no executor is registered as 'mien' to load 'tally'"):
        resources.model("tally", Counter, family="mien")


def test_models_forget_pictures_where_these_pass():
    for passing, expected in ((True, 2), (False, 0)):
        made: list[Forgetful] = []
        load = lambda *_, made=made, **__: made.append(Forgetful()) or made[0]  # noqa: E731
        resources = Resources({"sam2": load, "count": lambda *_, **__: CountsOnly()},
                              pictures_pass=passing)  # fmt: skip
        resources.executor("nano")
        resources.loaded("count:all")  # cannot forget
        resources.end_batch()
        resources.end_batch()
        assert made[0].forgotten == expected


def test_loading_is_a_stage_of_its_own():
    clock = Clock()
    with clock.running(), stage("segment"):
        Resources({"sam2": FakeExecutor}).executor("nano")
    assert sorted(clock.seconds) == ["load", "segment"]


def test_a_family_may_ask_for_other_models():
    made = {}

    def ensemble(model, **options):
        made["inner"] = resources.executor("nano")
        return FakeExecutor(model)

    resources = Resources({"sam2": FakeExecutor, "both": ensemble})
    resources.executor("both:two")
    assert made["inner"] is resources.executor("nano")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no luck"), "RuntimeError: no luck"),
        (SystemExit(3), "ForeignError: SystemExit: 3"),
        (KeyError(), "KeyError: KeyError"),
    ],
)
def test_whatever_a_family_raises_is_that_models_error(error, said):
    def load(model, **_):
        raise error

    with pytest.raises(ModelError, match=f"the family 'mine' could not load 'mine:a': {said}"):
        Resources({"mine": load}).executor("mine:a")


def test_an_interrupt_while_loading_stays_one():
    def load(model, **_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Resources({"mine": load}).executor("mine:a")


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelError, match="it returned int, which has no 'spec'"):
        Resources({"mine": lambda *_, **__: 7}).executor("mine:a")


def test_a_family_says_which_names_are_files():
    family = Family(FakeExecutor, is_file=lambda name: name.startswith("/"))
    resources = Resources({"mine": family}, local_models=False)
    assert isinstance(resources.executor("mine:a/b"), Executor)
    with pytest.raises(ModelError, match="is a file"):
        resources.executor("mine:/etc")


def test_strangers_download_only_what_the_operator_listed(monkeypatch):
    hub = Family(FakeExecutor, is_file=lambda _: False, is_download=lambda name: "/" in name)
    strict = Resources({"mine": hub}, local_models=False)
    with pytest.raises(ModelError, match=r"'mine:a/b' is downloaded .* to SAM2_BLOCKS_HUB_MODELS"):
        strict.executor("mine:a/b")
    assert isinstance(strict.executor("mine:known"), Executor)
    assert isinstance(Resources({"mine": hub}).executor("mine:a/b"), Executor)
    monkeypatch.setenv("SAM2_BLOCKS_HUB_MODELS", "mine:c/d, mine:a/b")
    assert isinstance(strict.executor("mine:a/b"), Executor)
    with pytest.raises(ModelError, match="none that whoever operates this host listed"):
        strict.executor("mine:a/b@other")


def test_a_family_is_asked_for_what_it_lets_be_chosen():
    asked = []

    def load(model, **options):
        asked.append(options)
        made = FakeExecutor(model)
        made.spec = made.spec._replace(backend="openvino", input_px=512)
        return made

    free = Family(load, options=frozenset({"backend", "input_px"}))
    resources = Resources({"sam2": free})
    executor = resources.executor("nano", backend="openvino", input_px=512)
    assert asked == [
        {"device": "auto", "dtype": "auto", "backend": "openvino", "input_px": 512},
    ]
    [embedding] = executor.embed([sample_image()])
    assert resources.executor_of(embedding) is executor
    assert resources.executor("nano") is executor  # what "auto" was resolved to
    assert [options["input_px"] for options in asked] == [512, 0]


def test_what_a_family_does_not_let_be_chosen_is_refused():
    resources = Resources({"mine": FakeExecutor})
    executor = resources.executor("mine:a")
    assert resources.executor("mine:a", backend="torch") is executor
    [embedding] = executor.embed([sample_image()])
    assert resources.executor_of(embedding) is executor
    with pytest.raises(ModelError, match=r"has no 'backend', and 'openvino' is asked for. Leave"):
        resources.executor("mine:a", backend="openvino")
    with pytest.raises(ModelError, match=r"has no 'input_px', and 512 is asked for. Leave"):
        resources.executor("mine:a", input_px=512)


def test_a_run_asks_once_for_a_model_that_cannot_be_loaded():
    asked: list[str] = []

    def load(name, **options):
        asked.append(name)
        raise ModelError(f"{name}: no network")

    shared = Resources({"sam2": load})
    of_a_run = shared.of_a_run()
    for _ in range(3):
        with pytest.raises(ModelError, match=r"^far: no network$"):
            of_a_run.executor("far")
    assert asked == ["far"]
    for resources in (shared, shared, shared.of_a_run()):  # the network may be back
        with pytest.raises(ModelError, match="no network"):
            resources.executor("far")
    assert asked == ["far"] * 4


def test_a_run_has_the_models_of_others_but_files_of_its_own():
    shared = Resources({"sam2": FakeExecutor})
    of_a_run = shared.of_a_run()
    assert of_a_run.executor("nano") is shared.executor("nano")
    of_a_run.files = None
    assert shared.files is not None
