"""Weight files on disk: where they live, how they come there, whether they are whole. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import platformdirs
import requests
from filelock import FileLock

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights.hub import fetch_repository, is_in_cache
from sam2_blocks.executor.weights.names import HubName
from sam2_blocks.executor.weights.offline import OFFLINE_VARIABLE, is_offline
from sam2_blocks.executors import KnownModel
from sam2_blocks.values import DEFAULT_FAMILY

CACHE_VARIABLE = "SAM2_BLOCKS_CACHE"
ATTEMPTS = 3
TIMEOUT_S = (10, 60)
BLOCK_BYTES = 2**20

Progress = Callable[[int, int | None], None]
"""``progress(done_bytes, total_bytes)``; the total is None where the server does not tell."""


def cache_dir() -> Path:
    """Return the folder of downloaded weights; ``SAM2_BLOCKS_CACHE`` moves it."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("sam2-blocks"))


def weights_path(spec: KnownModel) -> Path:
    """Return where the weights of a downloadable model are, or will be."""
    assert spec.url is not None, spec
    folder = spec.full_name.replace("/", "-").replace(":", "-")
    return cache_dir() / folder / spec.url.rpartition("/")[2]


def where_weights_are(spec: KnownModel) -> str:
    """Say for people where the weights of a model are: here, to download, or with its family."""
    if spec.embedded:
        return spec.weights
    if spec.repository is not None:
        return "downloaded" if is_in_cache(spec.repository) else "to download"
    return "downloaded" if weights_path(spec).exists() else "to download"


def ensure_weights(
    spec: KnownModel, *, offline: bool | None = None, progress: Progress | None = None
) -> Path:
    """Return the path of a model's weights, downloading them if they are not there.

    Several processes may ask at once: one downloads, the others wait. An interrupted download
    is continued by the next call. The SHA-256 is checked once, before the file gets its name.

    Args:
        spec: a model with a ``url`` or a ``repository``, of any family.
        offline: True never downloads; by default as ``SAM2_BLOCKS_OFFLINE`` says.
        progress: called while bytes arrive.

    Raises:
        ModelError: if the weights are absent offline, or arrive wrong or not at all.
    """
    if spec.repository is not None:
        return fetch_repository(HubName(spec.repository), offline=offline)
    path = weights_path(spec)
    if path.exists():
        _check_size(path, spec)
        return path
    if is_offline() if offline is None else offline:
        raise ModelError(
            f"the weights of {spec.full_name!r} are not on this machine and downloads are off "
            f"({OFFLINE_VARIABLE} or offline=True). Expected file: {path}. Download it with "
            f"'sam2-blocks models download {spec.full_name}', or from {spec.url}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _download(spec, path, progress)
    return path


def verify(spec: KnownModel) -> Path:
    """Check size and SHA-256 of a model's weights on disk and return their path.

    Raises:
        ModelError: if the file is absent or is not the published one.
    """
    if spec.embedded:
        return _verify_embedded(spec)
    if spec.repository is not None:
        return fetch_repository(HubName(spec.repository), offline=True)
    path = weights_path(spec)
    if not path.exists():
        raise ModelError(
            f"the weights of {spec.full_name!r} are not at {path}. Download them with "
            f"'sam2-blocks models download {spec.full_name}'."
        )
    _check_size(path, spec)
    _check_sha256(path, spec)
    return path


def _verify_embedded(spec: KnownModel) -> Path:
    if spec.family != DEFAULT_FAMILY:
        raise ModelError(f"{spec.full_name!r} has no file to check here: {spec.weights}.")
    path = Path(str(files(__package__) / f"{spec.name}.safetensors"))
    expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    if not path.exists() or sha256_of(path) != expected:
        raise ModelError(f"{path} is missing or damaged. Reinstall sam2-blocks.")
    return path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _download(spec: KnownModel, path: Path, progress: Progress | None) -> None:
    part = path.with_name(path.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append_rest(spec, part, progress)
            break
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                raise ModelError(
                    f"could not download {spec.full_name!r} from {spec.url}: {error}. "
                    f"Run the same command again to continue, or place the file at {path}."
                ) from error
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ModelError(f"could not write {part}: {error.strerror or error}.") from error
    try:
        _check_size(part, spec)
        _check_sha256(part, spec)
    except ModelError:
        part.unlink()
        raise
    part.replace(path)


def _append_rest(spec: KnownModel, part: Path, progress: Progress | None) -> None:
    """Fetch what is missing of the partial file; a server that ignores ranges starts it afresh."""
    assert spec.url is not None, spec
    done = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    with requests.get(spec.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the partial file is already whole, or too long: the checks decide
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        done = done if resumed else 0
        rest = response.headers.get("Content-Length")
        total = spec.nbytes or (done + int(rest) if rest else None)
        with part.open("ab" if resumed else "wb") as file:
            for block in response.iter_content(BLOCK_BYTES):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
    if rest is not None and total is not None and done < total:
        raise requests.ConnectionError(f"the connection ended after {done} of {total} bytes")


def _check_size(path: Path, spec: KnownModel) -> None:
    size = path.stat().st_size
    if spec.nbytes is not None and size != spec.nbytes:
        raise ModelError(
            f"{path} has {size} bytes, but {spec.full_name!r} has {spec.nbytes}. "
            f"Delete it and run 'sam2-blocks models download {spec.full_name}'."
        )


def _check_sha256(path: Path, spec: KnownModel) -> None:
    found = sha256_of(path)
    if found != spec.sha256:
        raise ModelError(
            f"{path} is not the published file of {spec.full_name!r}: its SHA-256 is {found}, "
            f"expected {spec.sha256}. Delete it and run "
            f"'sam2-blocks models download {spec.full_name}'."
        )
