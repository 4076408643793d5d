from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import ValidationError

from sam2_blocks.entities import Entity, refuse_near_misses


class Parcel(Entity):
    extensions: ClassVar[frozenset[str]] = frozenset({"ribbon"})
    also_read: ClassVar[frozenset[str]] = frozenset({"weight_g"})

    address: str = ""
    ribbon: str | None = None


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("adress", "address"),
        ("addres", "address"),
        ("ribbons", "ribbon"),
        ("weigth_g", "weight_g"),
        ("weightG", "weight_g"),
        ("WEIGHT-G", "weight_g"),
    ],
)
def test_a_slip_is_named(slip, meant):
    with pytest.raises(ValidationError, match=f"unknown key '{slip}'. Did you mean '{meant}'"):
        Parcel.model_validate({slip: "x"})


@pytest.mark.parametrize("key", ["colour", "add", "address_of_sender", "rib", "x" * 10_000])
def test_other_keys_are_ignored(key):
    assert Parcel.model_validate({key: "x", "address": "here"}).address == "here"


@pytest.mark.parametrize("given", ["here", ["here"], 5])
def test_what_is_no_object_is_told_its_keys(given):
    wanted = rf"wants an object with 'address', 'ribbon', got {type(given).__name__}"
    with pytest.raises(ValidationError, match=wanted):
        Parcel.model_validate(given)


def test_unused_extensions_are_left_out():
    assert Parcel(address="here").model_dump() == {"address": "here"}
    assert Parcel(ribbon="red").model_dump() == {"address": "", "ribbon": "red"}


def test_the_schema_has_the_fields():
    assert set(Parcel.model_json_schema()["properties"]) == {"address", "ribbon"}


def test_known_keys_are_no_slips_of_each_other():
    refuse_near_misses({"points": 1, "point": 2}, {"points", "point"})
    with pytest.raises(ValueError, match="Did you mean 'points'"):
        refuse_near_misses({"pointss": 1}, {"points", "point"})
