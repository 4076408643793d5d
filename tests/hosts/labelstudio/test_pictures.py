"""Against a real server on the loopback address, in place of Label Studio."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from sam2_blocks.hosts.labelstudio.pictures import TaskPictures
from sam2_blocks.service import ServedModels, Service, ServiceSettings
from sam2_blocks.service.errors import ImageRefusedError, UnansweredError
from sam2_blocks.testing import FakeExecutor
from tests.hosts.labelstudio.conftest import PERSONAL


@asynccontextmanager
async def pictures(**settings):
    service = Service(ServedModels({"nano": FakeExecutor("nano")}), ServiceSettings(**settings))
    yield TaskPictures(service)
    service.close()


def get(*addresses, **settings):
    """What is fetched from these addresses of task 7."""

    async def fetch():
        found = []
        async with pictures(**settings) as ours:
            for address in addresses:
                async with ours.opened(address, 7) as picture:
                    found.append(picture.value)
        return found

    return asyncio.run(fetch())


def test_pictures_of_label_studio_are_fetched_with_its_token(server):
    url, seen = server()
    addresses = ["/data/upload/1/a b.jpg", "/data/local-files/?d=folder/b.jpg", f"{url}/data/c.jpg"]
    found = get(*addresses, label_studio_url=url, label_studio_key="key")
    assert found == [
        b"/data/upload/1/a%20b.jpg",
        b"/data/local-files/?d=folder/b.jpg",
        b"/data/c.jpg",
    ]
    assert {token for _, token in seen} == {"Token key"}


def test_pictures_in_clouds_are_resolved_by_it(server):
    url, seen = server()
    get("s3://bucket/a.jpg", label_studio_url=f"{url}/", label_studio_key="key")
    assert seen == [("/tasks/7/resolve/?fileuri=czM6Ly9idWNrZXQvYS5qcGc=", "Token key")]


def test_a_prefix_of_its_address_is_kept(server):
    url, seen = server()
    settings = {"label_studio_url": f"{url}/label", "label_studio_key": "key"}
    get("/data/a.jpg", "/label/data/b.jpg", **settings)
    assert seen == [("/label/data/a.jpg", "Token key"), ("/label/data/b.jpg", "Token key")]


def test_a_personal_access_token_gets_another_for_minutes(server):
    url, seen = server()
    get("/data/a.jpg", "/data/b.jpg", label_studio_url=url, label_studio_key=PERSONAL)
    assert [token for _, token in seen] == ["Bearer access 0"] * 2


def test_a_token_that_is_not_taken(server):
    url, _ = server()
    with pytest.raises(UnansweredError, match="does not take the access token: 401"):
        get("/data/a.jpg", label_studio_url=url, label_studio_key="a.b.wrong")


def test_the_token_goes_nowhere_else(server):
    url, seen = server()
    other, others = server()
    settings = {"label_studio_url": url, "label_studio_key": "key", "allow_private_urls": True}
    get(
        f"{other}/data/a.jpg", f"/data/elsewhere?{other}/data/b.jpg", f"{url}/api/users", **settings
    )
    assert others == [("/data/a.jpg", None), ("/data/b.jpg", None)]
    assert seen[-1] == ("/api/users", None)
    for path in ("/data/../api/users", "/data/%2e%2e/api/users"):
        get(f"{url}{path}", **settings)
        assert seen[-1][1] is None


def test_only_its_own_server_may_have_a_private_address(server):
    url, _ = server()
    other, others = server()
    settings = {"label_studio_url": url}
    for address in (f"{other}/data/a.jpg", f"/data/elsewhere?{other}/b.jpg", f"{url}/api/users"):
        with pytest.raises(ImageRefusedError, match=r"picture of the task.*not a public address"):
            get(address, **settings)
    assert others == []


def test_urls_of_others_can_be_switched_off(server):
    url, _ = server()
    with pytest.raises(ImageRefusedError, match="pictures of other servers are switched off"):
        get("http://example.com/a.jpg", label_studio_url=url, allow_urls=False)
    assert get("/data/a.jpg", label_studio_url=url, allow_urls=False) == [b"/data/a.jpg"]


@pytest.mark.parametrize("address", ["/data/upload/1/a.jpg", "s3://bucket/a.jpg"])
def test_nobody_said_where_label_studio_is(address):
    with pytest.raises(
        ImageRefusedError, match=r"on Label Studio's server\. Start the service with"
    ):
        get(address)


def test_an_address_that_is_none():
    with pytest.raises(ImageRefusedError, match=r"'C:/a\.jpg', which is no URL"):
        get("C:/a.jpg", label_studio_url="http://127.0.0.1")
    with pytest.raises(ImageRefusedError, match=r"label_studio_url, .*must start with http"):
        get("/a.jpg", label_studio_url="127.0.0.1:8080")
