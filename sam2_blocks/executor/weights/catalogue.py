"""The models we know by name: where their weights are, and how to recognise them.

Sizes and SHA-256 sums are those published for the public checkpoints (Apache 2.0).
Source: https://github.com/facebookresearch/sam2, ``sam2/build_sam.py`` and its README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sam2_blocks.errors import ModelError, did_you_mean
from sam2_blocks.executors import KnownModel
from sam2_blocks.values import DEFAULT_FAMILY

BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/"


@dataclass(frozen=True, kw_only=True)
class ModelSpec(KnownModel):
    """One model of the catalogue; the sum of the embedded one is in ``nano.json``.

    Attributes:
        config: YAML file of the architecture, relative to the installed ``sam2`` package; for an
            embedded model, relative to this folder.
    """

    config: str
    family: str = DEFAULT_FAMILY


def _public(
    name: str, config: str, file: str, *, sha256: str, nbytes: int | None = None
) -> ModelSpec:
    release, _, size = name.partition("/")
    return ModelSpec(
        name=name,
        aliases=(size,) if release == "sam2.1" else (),
        config=f"configs/{release}/{config}.yaml",
        url=BASE_URL + file,
        sha256=sha256,
        nbytes=nbytes,
    )


_SPECS = (
    ModelSpec(name="nano", config="nano.yaml"),
    _public(
        "sam2.1/hiera_tiny",
        "sam2.1_hiera_t",
        "092824/sam2.1_hiera_tiny.pt",
        sha256="7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        nbytes=156008466,
    ),
    _public(
        "sam2.1/hiera_small",
        "sam2.1_hiera_s",
        "092824/sam2.1_hiera_small.pt",
        sha256="6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    _public(
        "sam2.1/hiera_b_plus",
        "sam2.1_hiera_b+",
        "092824/sam2.1_hiera_base_plus.pt",
        sha256="a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    _public(
        "sam2.1/hiera_large",
        "sam2.1_hiera_l",
        "092824/sam2.1_hiera_large.pt",
        sha256="2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        nbytes=898083611,
    ),
    _public(
        "sam2/hiera_tiny",
        "sam2_hiera_t",
        "072824/sam2_hiera_tiny.pt",
        sha256="65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
        nbytes=155906050,
    ),
    _public(
        "sam2/hiera_small",
        "sam2_hiera_s",
        "072824/sam2_hiera_small.pt",
        sha256="95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
    ),
    _public(
        "sam2/hiera_b_plus",
        "sam2_hiera_b+",
        "072824/sam2_hiera_base_plus.pt",
        sha256="d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
    ),
    _public(
        "sam2/hiera_large",
        "sam2_hiera_l",
        "072824/sam2_hiera_large.pt",
        sha256="7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
        nbytes=897952466,
    ),
)

MODELS: Mapping[str, ModelSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


_BY_NAME = {name: spec for spec in _SPECS for name in spec.names}


DETECTORS = tuple(
    KnownModel(name=repository, family="transformers", repository=repository)
    for repository in (
        "PekingU/rtdetr_v2_r18vd",
        "PekingU/rtdetr_v2_r50vd",
        "ustc-community/dfine-small-coco",
        "Roboflow/rf-detr-base",
        "IDEA-Research/grounding-dino-tiny",
        "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg",
        "google/owlv2-base-patch16-ensemble",
    )
)
"""Detectors to offer, all under Apache 2.0; any other of the hub may be named, too."""


def is_catalogued(name: str) -> bool:
    """Whether there is a model of SAM 2 of this name."""
    return name in _BY_NAME


def is_of_a_release(name: str) -> bool:
    """Whether a name begins like those of the catalogue, such as ``sam2.1/…``."""
    return name.startswith(("sam2/", "sam2.1/"))


def find_model(name: str) -> ModelSpec:
    """Look up a model by its full or short name.

    Args:
        name: ``nano``, ``sam2.1/hiera_tiny``, …; ``hiera_tiny`` alone means ``sam2.1/hiera_tiny``.

    Raises:
        ModelError: if there is no such model.
    """
    spec = _BY_NAME.get(name)
    if spec is None:
        raise ModelError(f"there is no model {name!r}.{did_you_mean(name, _BY_NAME)}")
    return spec
