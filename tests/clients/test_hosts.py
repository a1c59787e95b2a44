"""Each kind of app on a host of its own (`https://*.apps.example.org`): the same folders, deployed unchanged."""
import json
import shutil
import socket

import pytest
from conftest import Viewer
from test_deploy import BEFORE, HEAVY, KINDS, LONG, SAMPLES, SAYS, Portal, call, guid_in, opened, page_says, rsconnect

LOOK_UP = socket.getaddrinfo


@pytest.fixture(scope="module")
def portal(tmp_path_factory):
    # As browsers do (RFC 6761, section 6.3).
    socket.getaddrinfo = lambda host, *rest, **more: LOOK_UP("localhost" if str(host).endswith(".localhost") else host, *rest, **more)
    portal = Portal(tmp_path_factory.mktemp("hosts"), VALETKEY_CONTENT_URL="http://*.localhost:PORT")
    yield portal
    portal.stop()
    socket.getaddrinfo = LOOK_UP


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.skipif(kind in HEAVY | {"streamlit"} and not LONG, reason="TEST_LONG=1")) for kind in KINDS])
def test_each_kind_works_at_the_root_of_a_host_of_its_own(portal, tmp_path, kind):
    folder, words = KINDS[kind]
    shutil.copytree(SAMPLES / folder, tmp_path / folder)
    code, output = rsconnect(portal, "deploy", *(word.format(tmp_path / folder) for word in words), "--title", f"sample {kind}")
    assert code == 0, output
    url = call(portal, "GET", f"content/{guid_in(output)}").json()["content_url"]
    ada = Viewer(portal, "ada")
    ada.open(url)
    page = opened(ada.http, url)
    assert page.status_code == 200 and "is starting" not in page.text, page.text[:500]
    assert page.url.count(".localhost:") == 1 and page.url.count("/") == 3, "the root of its own host"
    assert SAYS.get(kind, page_says)(ada.http, page, BEFORE.get(kind, "viewer: vera").replace("vera", "ada"))
    if kind == "api":
        assert ada.http.get(page.url + "there").url == page.url
    if kind == "fastapi":
        assert page.json()["url"] == page.url and ada.http.get(page.url + "there").url == page.url
        assert json.loads(ada.http.get(page.url + "openapi.json").text)["paths"]
    if kind == "html":
        assert ada.http.get(page.url + "style.css").text.startswith("h1") and "below" in ada.http.get(page.url + "sub/").text
    if kind == "dash":
        assert ada.http.get(page.url + "assets/style.css").text.startswith("h1")
