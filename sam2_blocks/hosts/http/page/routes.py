"""Routes of the page: its own files, and the data that the Sam2 contract has no request for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.staticfiles import StaticFiles

from sam2_blocks.executors import TextPrompted
from sam2_blocks.formats.clicks import ClassName, ClickedPicture
from sam2_blocks.hosts.http.answering import Answerer
from sam2_blocks.hosts.http.page.exports import export_to_bytes, export_to_folder
from sam2_blocks.hosts.http.page.folder import NOT_SAVED, PageFolder
from sam2_blocks.hosts.http.page.guard import PREFIX, PageHeaders, refuse_other_sites
from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.service import Service
from sam2_blocks.service.admission import Caller
from sam2_blocks.service.errors import RequestError
from sam2_blocks.values import Image

API = f"{PREFIX}/api"
MOST_PICTURES = 10_000
"""In one export."""


class ExportRequest(BaseModel):
    """Pictures to write in a form of others."""

    model_config = ConfigDict(extra="forbid")

    form: Literal["coco", "labelme", "yolo", "masks"]
    classes: list[ClassName] = Field(default_factory=list, max_length=10_000)
    pictures: list[ClickedPicture] = Field(default_factory=list, max_length=MOST_PICTURES)
    everything: bool = Field(default=False, description="All that is saved, too.")
    save: bool = Field(default=False, description="Into the folder, instead of a download.")


class BroughtPicture(BaseModel):
    """A picture that somebody brings, as a form with a file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=1000)
    image: InferenceRequestImage


def add_page(app: FastAPI, service: Service, answerer: Answerer, folder: PageFolder) -> None:
    """Serve the page at ``/page``.

    Args:
        app: gets the routes.
        service: whose models it uses.
        answerer: reads requests, and knows the keys.
        folder: the pictures to choose from, and where masks are saved.
    """
    app.add_middleware(PageHeaders)
    page = _PageData(service, answerer, folder.checked())
    for method, path, answer in (
        ("GET", "/session", page.session),
        ("GET", "/pictures/{name:path}", page.picture),
        ("POST", "/pictures", page.keep),
        ("GET", "/clicks/{name:path}", page.clicks),
        ("PUT", "/clicks", page.save),
        ("POST", "/export", page.export),
    ):
        app.add_api_route(f"{API}{path}", answer, methods=[method], include_in_schema=False)
    static = Path(str(files(__package__) / "static"))
    app.mount(PREFIX, StaticFiles(directory=static, html=True), name="page")


class _PageData:
    """Answers the page's requests for data."""

    def __init__(self, service: Service, answerer: Answerer, folder: PageFolder) -> None:
        self._service = service
        self._answerer = answerer
        self._folder = folder

    async def session(self, request: Request) -> dict[str, Any]:
        """What there is: models, pictures, and what is saved."""
        self._let_in(request)
        models = self._service.models
        texts = [model for model in models.all if isinstance(model, TextPrompted)]
        return {
            "model": models.default.spec.full_name,
            "grounding": texts[0].spec.full_name if texts else None,
            "pictures": list(await self._service.at_length(self._folder.paths)),
            "saved": await self._service.at_length(self._folder.saved),
            "saves": self._folder.out is not None,
        }

    async def picture(self, name: str, request: Request) -> Response:
        """One picture of the folder."""
        self._let_in(request)
        content, media_type = await self._service.at_length(lambda: self._folder.read(name))
        return Response(content, media_type=media_type)

    async def keep(self, request: Request) -> Response:
        """Keep a picture that somebody brings."""

        async def answer(given: BroughtPicture, caller: Caller) -> Mapping[str, Any]:
            content = given.image.value
            if given.image.type != "multipart" or not isinstance(content, bytes):
                raise RequestError("image: wants an uploaded file.")
            kept = await self._service.at_length(lambda: self._folder.keep(given.name, content))
            return {"name": kept}

        self._let_in(request, key_in_body=True)
        return await self._answerer(request, BroughtPicture, answer)

    async def clicks(self, name: str, request: Request) -> dict[str, Any]:
        """What is saved of a picture."""
        self._let_in(request)
        found = await self._service.at_length(lambda: self._folder.load(name))
        return {"clicks": None if found is None else found.model_dump(exclude_none=True)}

    async def save(self, request: Request) -> Response:
        """Save what was clicked in a picture."""

        async def answer(given: ClickedPicture, caller: Caller) -> Mapping[str, Any]:
            await self._service.at_length(lambda: self._folder.save(given))
            return {"saved": given.file_name}

        self._let_in(request, key_in_body=True)
        return await self._answerer(request, ClickedPicture, answer)

    async def export(self, request: Request) -> Response:
        """Write pictures in a form of others."""
        named: dict[str, str] = {}

        async def answer(given: ExportRequest, caller: Caller) -> Mapping[str, Any] | bytes:
            if given.save:
                return await self._service.at_length(lambda: self._write(given))
            name, content = await self._service.at_length(lambda: self._pack(given))
            named["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
            return content

        self._let_in(request, key_in_body=True)
        response = await self._answerer(request, ExportRequest, answer)
        response.headers.update(named)
        return response

    def _let_in(self, request: Request, *, key_in_body: bool = False) -> None:
        keys = self._answerer.keys
        refuse_other_sites(request, has_key=bool(keys))
        if not key_in_body:  # the answerer looks there
            keys.check(request)

    def _pack(self, given: ExportRequest) -> tuple[str, bytes]:
        try:
            return export_to_bytes(given.form, self._pictures(given), given.classes)
        except ValueError as error:
            raise RequestError(f"cannot be exported: {error}.") from error

    def _write(self, given: ExportRequest) -> Mapping[str, Any]:
        out = self._folder.out
        if out is None:
            raise RequestError(NOT_SAVED)
        pictures = self._pictures(given)
        try:
            export_to_folder(given.form, pictures, given.classes, out)
        except (OSError, ValueError) as error:
            raise RequestError(f"cannot be exported: {error}.") from error
        return {"folder": str(out), "pictures": len(pictures)}

    def _pictures(self, given: ExportRequest) -> list[tuple[ClickedPicture, Image]]:
        """What is to be written, in the order of the folder; what came goes before what is kept."""
        found: dict[str, ClickedPicture] = {}
        if given.everything:
            kept = map(self._folder.load, self._folder.saved())
            found |= {picture.file_name: picture for picture in kept if picture}
        found |= {picture.file_name: picture for picture in given.pictures}
        listed = self._folder.paths()
        order = {name: place for place, name in enumerate(listed)}
        names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
        return [(found[name], found[name].image(listed.get(name))) for name in names]
