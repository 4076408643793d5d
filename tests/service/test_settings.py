from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sam2_blocks.errors import Sam2BlocksError
from sam2_blocks.service import ServiceSettings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("SAM2_MAX_EMBEDDING_CACHE_SIZE", "SAM2_MAX_LOGITS_CACHE_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DISABLE_SAM2_LOGITS_CACHE", "SAM2_BLOCKS_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_those_of_the_contract():
    settings = ServiceSettings.from_environment()
    assert settings == ServiceSettings()
    assert (settings.embedding_entries, settings.logits_entries) == (100, 1000)


def test_the_variables_of_the_contract_are_read(monkeypatch):
    monkeypatch.setenv("SAM2_MAX_EMBEDDING_CACHE_SIZE", "7")
    monkeypatch.setenv("SAM2_MAX_LOGITS_CACHE_SIZE", "8")
    monkeypatch.setenv("SAM2_BLOCKS_API_KEY", "secret")
    settings = ServiceSettings.from_environment()
    assert (settings.embedding_entries, settings.logits_entries) == (7, 8)
    assert settings.api_key == "secret"


@pytest.mark.parametrize(("text", "entries"), [("True", 0), ("1", 0), ("false", 1000), ("", 1000)])
def test_the_logits_cache_can_be_switched_off(monkeypatch, text, entries):
    monkeypatch.setenv("DISABLE_SAM2_LOGITS_CACHE", text)
    assert ServiceSettings.from_environment().logits_entries == entries


@pytest.mark.parametrize(
    ("name", "text"),
    [("SAM2_MAX_LOGITS_CACHE_SIZE", "-1"), ("DISABLE_SAM2_LOGITS_CACHE", "maybe")],
)
def test_a_wrong_variable_is_named(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(Sam2BlocksError, match=f"{name}='{text}': wants"):
        ServiceSettings.from_environment()


def test_what_is_chosen_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("SAM2_MAX_EMBEDDING_CACHE_SIZE", "7")
    assert (
        ServiceSettings.from_environment(embedding_entries=9, api_key=None).embedding_entries == 9
    )


def test_what_is_chosen_may_be_text():
    settings = ServiceSettings.from_environment(
        max_queue="5", deadline_s="2.5", allow_urls="false", file_root="pictures"
    )
    assert (settings.max_queue, settings.deadline_s, settings.allow_urls) == (5, 2.5, False)
    assert settings.file_root == Path("pictures")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"max_quee": 5}, r"max_quee\n.*Unexpected"),
        ({"max_queue": "many"}, r"max_queue\n.*valid integer"),
        ({"max_open_images": 0}, r"max_open_images\n.*greater than or equal to 1"),
        ({"deadline_s": 0}, r"deadline_s\n.*greater than 0"),
        ({"window_ms": float("nan")}, r"window_ms\n.*finite"),
        ({"compile": "everything"}, r"compile\n.*'off', 'encoder' or 'all'"),
    ],
)
def test_a_wrong_choice_is_named(chosen, message):
    with pytest.raises(ValidationError, match=message):
        ServiceSettings.from_environment(**chosen)
