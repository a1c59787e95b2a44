"""Unmodified rsconnect-python and posit-sdk deploy every kind of app; viewers open them; bad bundles and a killed portal change nothing that works."""
import asyncio
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse

import pytest
import requests
import websockets
from conftest import BINARY, PASSWORD, ROOT
from posit.connect import Client
from servers import wait_for

try:
    import uv

    os.environ.setdefault("VALETKEY_RUN_UV", uv.find_uv_bin())
except ImportError:
    pass  # From PATH.
# For the demo of this run: a bomb need not be large to be seen.
os.environ.setdefault("VALETKEY_RUN_MAX_UNPACKED_MIB", "64")

LONG = bool(os.environ.get("TEST_LONG"))
SAMPLES = ROOT / "tests/bundles"
# Kind: folder, arguments of `rsconnect deploy`.
KINDS = {
    "streamlit": ("streamlit", ["streamlit", "{}"]),
    "shiny": ("shiny", ["shiny", "{}"]),
    "dash": ("dash", ["dash", "{}"]),
    "api": ("flask", ["api", "{}"]),
    "fastapi": ("fastapi", ["fastapi", "--entrypoint", "main", "{}"]),
    "gradio": ("gradio", ["gradio", "{}"]),
    "bokeh": ("bokeh", ["bokeh", "{}"]),
    "panel": ("panel", ["panel", "{}"]),
    "voila": ("voila", ["voila", "{}/app.ipynb"]),
    "notebook": ("notebook", ["notebook", "{}/report.ipynb"]),
    "html": ("static", ["html", "--entrypoint", "index.html", "{}"]),
}
HEAVY = {"gradio", "panel", "voila", "bokeh", "notebook", "shiny", "dash"}
# Processes that die with the portal.
MANY = 20 if os.environ.get("TEST_LONG") else 6


def rsconnect(demo, *words, username="bo"):
    """Runs rsconnect as somebody types it; returns exit code and output without colours."""
    options = ["--server", demo["portal"], "--api-key", demo.account(username)["api_key"]]
    done = subprocess.run([sys.executable, "-m", "rsconnect.main", *words, *options], capture_output=True, text=True, timeout=400)
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


def guid_in(output):
    return re.search(r"(?:content|apps)/([0-9a-f-]{36})", output).group(1)


def call(demo, method, path, username="bo", **options):
    headers = {**demo.key(username), **options.pop("headers", {})}
    return requests.request(method, demo.api(f"v1/{path}"), headers=headers, timeout=60, **options)


def opened(http, url, patience=60):
    """The page at an address, once the app has started."""
    until = time.monotonic() + patience
    while (page := http.get(url)).status_code == 202 and time.monotonic() < until:
        time.sleep(0.1)
    return page


def seen_by(viewer, username, url):
    someone = viewer(username)
    someone.open(url)
    return opened(someone.http, url)


def with_key(demo, url, username, patience=60, **headers):
    """A program asks for content with somebody's API key."""
    return requests.get(url, headers={**demo.key(username), **headers}, timeout=patience)


# — Bundles by hand, for the API. —


def manifest(mode="python-api", entrypoint="app", packages=False, **more):
    """A manifest. Without packages it asks for no environment of its own."""
    text = {"version": 1, "metadata": {"appmode": mode, "entrypoint": entrypoint}, "files": {}}
    if mode == "static":
        text["metadata"] = {"appmode": mode, "primary_html": entrypoint}
    else:
        text["python"] = {"version": ".".join(map(str, sys.version_info[:3])), "package_manager": {"name": "pip" if packages else "none", "package_file": "requirements.txt"}}
    return {**text, **more}


def packed(files, text=None):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in ({"manifest.json": json.dumps(text), **files} if text else files).items():
            content = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def wsgi(answer, before=""):
    return f"{before}\n\ndef app(environ, start):\n    start('200 OK', [('Content-Type', 'text/plain')])\n    return [{answer!r}.encode()]\n"


def upload(demo, guid, archive):
    return call(demo, "POST", f"content/{guid}/bundles", data=archive, headers={"Content-Type": "application/gzip"})


def finished(demo, task, patience=120):
    """A deploy at its end; its output as one text."""
    until, first, lines = time.monotonic() + patience, 0, []
    while time.monotonic() < until:
        found = call(demo, "GET", f"tasks/{task}", params={"first": first, "wait": 2}).json()
        lines, first = lines + found["output"], found["last"]
        if found["finished"]:
            return {**found, "output": "\n".join(lines)}
    raise AssertionError(f"the deploy does not end: {lines}")


def deployed(demo, guid, archive, **body):
    """Uploads and deploys; the refusal or the end of the deploy."""
    sent = upload(demo, guid, archive)
    if sent.status_code != 200:
        return {"status": sent.status_code, "error": sent.json()["error"], "output": "", "code": 1, "bundle": None}
    bundle = sent.json()["id"]
    ordered = call(demo, "POST", f"content/{guid}/deploy", json={"bundle_id": bundle, **body})
    assert ordered.status_code == 202, ordered.text
    return {**finished(demo, ordered.json()["task_id"]), "bundle": bundle}


KEPT = []


def sdk_content(demo, guid):
    """An item in the SDK; the SDK itself holds its client by a weak reference only."""
    KEPT.append(Client(demo["portal"], demo.account("bo")["api_key"]))
    return KEPT[-1].content.get(guid)


def new_content(demo, name, **more):
    made = call(demo, "POST", "content", json={"name": name, "access_type": "logged_in", **more})
    assert made.status_code == 200, made.text
    return made.json()


# — Every kind of app. —


def cookies_for(http, url):
    host = urllib.parse.urlsplit(url).hostname
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in http.cookies if cookie.domain.startswith(host))


def talk(http, url, send, wanted, subprotocols=(), greeting=""):
    """Opens a WebSocket as the page would, waits for the greeting, sends, and reads until it says what is wanted."""
    place = urllib.parse.urlsplit(url)

    async def run():
        address = url.replace("http", "ws", 1)
        fields = {"Cookie": cookies_for(http, url)}
        async with websockets.connect(address, origin=f"{place.scheme}://{place.netloc}", additional_headers=fields, subprotocols=list(subprotocols) or None, max_size=2**26) as wire:
            async def hear(words):
                heard = b""
                while words.encode() not in heard:
                    message = await asyncio.wait_for(wire.recv(), 30)
                    heard += message.encode() if isinstance(message, str) else message

            if greeting:
                await hear(greeting)
            for message in send:
                await wire.send(message)
            await hear(wanted)
            return True

    return asyncio.run(run())


def streamlit_says(http, page, wanted):
    from streamlit.proto.BackMsg_pb2 import BackMsg

    first = BackMsg()
    first.rerun_script.query_string = ""
    return talk(http, page.url + "_stcore/stream", [first.SerializeToString()], wanted, ["streamlit"])


def shiny_says(http, page, wanted):
    data = {".clientdata_pixelratio": 1, "more:shiny.action": 0} | {f".clientdata_output_{name}_hidden": False for name in ("viewer", "token", "count")}
    return talk(http, page.url + "websocket/", [json.dumps({"method": "init", "data": data})], wanted)


def dash_says(http, page, wanted):
    outputs = [{"id": name, "property": "children"} for name in ("viewer", "token", "count")]
    body = {"output": "..viewer.children...token.children...count.children..", "outputs": outputs, "inputs": [{"id": "more", "property": "n_clicks", "value": 2}],
            "changedPropIds": ["more.n_clicks"]}
    answer = http.post(page.url + "_dash-update-component", json=body)
    assert "count: 2" in answer.text
    return wanted in answer.text


def gradio_says(http, page, wanted):
    event = http.post(page.url + "gradio_api/call/hello", json={"data": []}).json()["event_id"]
    return wanted in http.get(f"{page.url}gradio_api/call/hello/{event}").text


def bokeh_says(http, page, wanted):
    token = re.search(r'"token":\s*"([^"]+)"', page.text).group(1)
    return talk(http, page.url.split("?")[0].rstrip("/") + "/ws", [json.dumps({"msgid": "1", "msgtype": "PULL-DOC-REQ"}), "{}", "{}"], wanted, ["bokeh", token], "ACK")


def page_says(http, page, wanted):
    return wanted in page.text


SAYS = {"streamlit": streamlit_says, "shiny": shiny_says, "dash": dash_says, "gradio": gradio_says, "bokeh": bokeh_says, "panel": bokeh_says}
BEFORE = {"fastapi": '"viewer":"vera"', "notebook": "sum: 45", "html": "hello from static"}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.skipif(kind in HEAVY and not LONG, reason="TEST_LONG=1")) for kind in KINDS])
def test_each_kind_deploys_unchanged_and_knows_its_viewer(demo, viewer, tmp_path, kind):
    folder, words = KINDS[kind]
    shutil.copytree(SAMPLES / folder, tmp_path / folder)
    began = time.monotonic()
    code, output = rsconnect(demo, "deploy", *(word.format(tmp_path / folder) for word in words), "--title", f"sample {kind}")
    took = time.monotonic() - began
    assert code == 0, output
    guid = guid_in(output)
    found = call(demo, "PATCH", f"content/{guid}", json={"access_type": "logged_in"}).json()
    assert found["app_mode"] == json.loads(tarfile.open(fileobj=io.BytesIO(call(demo, "GET", f"content/{guid}/bundles/{found['bundle_id']}/download").content)).extractfile("manifest.json").read())["metadata"]["appmode"]
    began = time.monotonic()
    page = seen_by(viewer, "vera", found["content_url"])
    print(f"{kind}: deploy {took:.1f} s, first page {time.monotonic() - began:.1f} s")
    assert page.status_code == 200 and "is starting" not in page.text, page.text[:500]
    vera = viewer("vera").http
    assert SAYS.get(kind, page_says)(vera, page, BEFORE.get(kind, "viewer: vera"))
    if kind == "api":
        assert "session token: yes" in page.text
        style = re.search(r'href="([^"]*style\.css)"', page.text).group(1)
        assert vera.get(requests.compat.urljoin(page.url, style)).status_code == 200
        assert vera.get(page.url + "there").url == page.url
    if kind == "fastapi":
        assert page.json()["url"] == page.url and vera.get(page.url + "there").url == page.url
    if kind == "html":
        assert vera.get(page.url + "style.css").text.startswith("h1") and "below" in vera.get(page.url + "sub/").text
        assert vera.get(page.url + "manifest.json").status_code == 404
    if kind == "dash":
        assert vera.get(page.url + "assets/style.css").text.startswith("h1")


# — One app that says what it gets, for everything else. —

TOOL = '''
import json
import os

import requests
from flask import Flask, request
from posit.connect import Client
from posit.connect.errors import ClientError

app = Flask(__name__)


@app.get("/")
def index():
    return "tool VERSION"


@app.route("/headers", methods=["GET", "POST"])
def headers():
    return {"headers": list(request.headers.items()), "body": request.get_data(as_text=True)}


@app.get("/environment")
def environment():
    return dict(os.environ)


@app.get("/exchange")
def exchange():
    token = request.headers.get("Posit-Connect-User-Session-Token")
    client = Client()
    try:
        return dict(client.oauth.get_credentials(token))
    except ClientError as refused:
        return {"error_code": refused.error_code}


@app.get("/ask")
def ask():
    answer = requests.get(os.environ["CONNECT_SERVER"] + "__api__/" + request.args["path"], headers={"Authorization": "Key " + os.environ["CONNECT_API_KEY"]})
    return {"status": answer.status_code, "text": answer.text}
'''


@pytest.fixture(scope="session")
def tool(demo, tmp_path_factory):
    """A folder, and the item that was deployed from it with rsconnect and a variable."""
    folder = tmp_path_factory.mktemp("tool") / "app"
    folder.mkdir()
    (folder / "app.py").write_text(TOOL.replace("VERSION", "one"))
    (folder / "requirements.txt").write_text("flask==3.1.*\nposit-sdk\nrequests\n")
    code, output = rsconnect(demo, "deploy", "api", str(folder), "--title", "Tool", "-E", "TOOL_SECRET=s3cret-of-the-tool")
    assert code == 0, output
    guid = guid_in(output)
    assert call(demo, "PATCH", f"content/{guid}", json={"access_type": "logged_in"}).status_code == 200
    return folder, sdk_content(demo, guid)


def test_redeploying_replaces_the_app_and_fails_no_request(demo, tool):
    folder, content = tool
    url = content["content_url"]
    assert with_key(demo, url, "vera").text == "tool one"
    answers, stop = [], threading.Event()

    def poll():
        while not stop.is_set():
            answer = with_key(demo, url, "vera")
            answers.append((answer.status_code, answer.text[:100]))
            time.sleep(0.02)

    pollers = [threading.Thread(target=poll) for _ in range(3)]
    [poller.start() for poller in pollers]
    (folder / "app.py").write_text(TOOL.replace("VERSION", "two"))
    code, output = rsconnect(demo, "deploy", "api", str(folder))
    time.sleep(1)
    stop.set()
    [poller.join() for poller in pollers]
    assert code == 0 and guid_in(output) == content["guid"], output
    assert set(answers) == {(200, "tool one"), (200, "tool two")}, {answer: answers.count(answer) for answer in set(answers)}
    assert with_key(demo, url, "vera").text == "tool two"


def test_a_draft_is_its_publishers_alone(demo, viewer, tool):
    folder, content = tool
    before = with_key(demo, content["content_url"], "vera").text
    (folder / "app.py").write_text(TOOL.replace("VERSION", "draft"))
    code, output = rsconnect(demo, "deploy", "api", str(folder), "--draft")
    assert code == 0, output
    number = re.search(r"draft/(\d+)", output).group(1)
    draft = f"{content['content_url']}_bundle{number}/"
    assert with_key(demo, draft, "bo").text == "tool draft"
    assert seen_by(viewer, "bo", draft).text == "tool draft"
    assert with_key(demo, draft, "vera").status_code == 404
    assert seen_by(viewer, "vera", draft).status_code == 404
    assert with_key(demo, content["content_url"], "vera").text == before
    active = call(demo, "GET", f"content/{content['guid']}").json()["bundle_id"]
    assert active != number
    # Publishing the draft makes it everybody's.
    ordered = call(demo, "POST", f"content/{content['guid']}/deploy", json={"bundle_id": number}).json()
    assert finished(demo, ordered["task_id"])["code"] == 0
    assert with_key(demo, content["content_url"], "vera").text == "tool draft"


@pytest.mark.skipif(not LONG, reason="TEST_LONG=1")
def test_a_draft_gets_the_paths_of_its_own_kind(demo, viewer, tmp_path):
    # Bokeh serves below the item's prefix, and nothing is active that the portal could go by.
    folder, words = KINDS["bokeh"]
    shutil.copytree(SAMPLES / folder, tmp_path / folder)
    code, output = rsconnect(demo, "deploy", *(word.format(tmp_path / folder) for word in words), "--title", "a draft of bokeh", "--draft")
    assert code == 0, output
    content = call(demo, "GET", f"content/{guid_in(output)}").json()
    page = seen_by(viewer, "bo", f"{content['content_url']}_bundle{re.search(r'draft/([0-9]+)', output).group(1)}/")
    assert page.status_code == 200 and bokeh_says(viewer("bo").http, page, "viewer: bo"), page.text[:500]


def test_variables_reach_only_the_process_and_are_write_only(demo, tool):
    _, content = tool
    url = content["content_url"] + "environment"
    inside = with_key(demo, url, "vera").json()
    assert inside["TOOL_SECRET"] == "s3cret-of-the-tool"
    assert inside["CONNECT_CONTENT_GUID"] == content["guid"] and inside["CONNECT_SERVER"].rstrip("/") == demo["portal"]
    assert inside["POSIT_PRODUCT"] == inside["RSTUDIO_PRODUCT"] == "CONNECT"
    assert not any(name.startswith("VALETKEY") for name in inside) and "vk_" not in str({name: value for name, value in inside.items() if name != "CONNECT_API_KEY"})
    assert list(content.environment_variables) == ["TOOL_SECRET"]
    for path in (f"content/{content['guid']}", f"content/{content['guid']}/environment", "content"):
        assert "s3cret-of-the-tool" not in call(demo, "GET", path).text
    assert call(demo, "GET", f"content/{content['guid']}/environment", "vera").status_code in (403, 404)
    content.environment_variables.create("SECOND", "ünïcode\nwith a line")
    content.environment_variables["THIRD"] = "3"
    assert sorted(content.environment_variables.find()) == ["SECOND", "THIRD", "TOOL_SECRET"]
    until = time.monotonic() + 15
    while "THIRD" not in (inside := with_key(demo, url, "vera").json()) and time.monotonic() < until:
        time.sleep(0.2)
    assert inside["SECOND"] == "ünïcode\nwith a line" and inside["THIRD"] == "3"
    content.environment_variables.delete("THIRD")
    del content.environment_variables["SECOND"]
    for name in ("CONNECT_API_KEY", "CONNECT_SERVER", "A B", "1A", ""):
        refused = call(demo, "PATCH", f"content/{content['guid']}/environment", json=[{"name": name, "value": "x"}])
        assert refused.status_code == 400 and refused.json()["error"], name
    assert list(content.environment_variables) == ["TOOL_SECRET"]


def test_restart_by_the_sdk_brings_a_new_process_without_a_failed_request(demo, tool):
    _, content = tool
    url = content["content_url"] + "environment"
    before = with_key(demo, url, "vera").json()["CONNECT_API_KEY"]
    content.restart()
    until, after = time.monotonic() + 20, before
    while after == before and time.monotonic() < until:
        answer = with_key(demo, url, "vera")
        assert answer.status_code == 200, answer.text
        after = answer.json()["CONNECT_API_KEY"]
        time.sleep(0.05)
    assert after != before


def test_the_key_of_a_process_dies_with_it(demo, tool):
    _, content = tool
    url = content["content_url"] + "environment"
    before = {"Authorization": "Key " + with_key(demo, url, "vera").json()["CONNECT_API_KEY"]}
    assert requests.get(demo.api("v1/user"), headers=before).status_code == 200
    assert call(demo, "POST", f"content/{content['guid']}/restart").status_code == 204
    running = lambda: [job["state"] for job in call(demo, "GET", f"content/{content['guid']}/jobs").json()]
    wait_for(lambda: with_key(demo, url, "vera").json()["CONNECT_API_KEY"] not in before["Authorization"] and running() == ["ready"], "the restart", 20)
    assert requests.get(demo.api("v1/user"), headers=before).status_code == 401


def test_bundles_are_listed_downloaded_rolled_back_to_and_deleted(demo, tool, tmp_path):
    _, content = tool
    bundles = content.bundles.find()
    assert [bundle["active"] for bundle in bundles].count(True) == 1 and len(bundles) >= 2
    assert [int(bundle["id"]) for bundle in bundles] == sorted((int(bundle["id"]) for bundle in bundles), reverse=True)
    active, oldest = content.bundles.active(), bundles[-1]
    assert dict(content.bundles.get(active["id"])) == dict(active) and content.bundles.find_one()["id"] == bundles[0]["id"]
    active.download(str(tmp_path / "active.tar.gz"))
    with tarfile.open(tmp_path / "active.tar.gz") as tar:
        assert "manifest.json" in tar.getnames() and "app.py" in tar.getnames()
    assert (tmp_path / "active.tar.gz").stat().st_size == active["size"]
    code, output = rsconnect(demo, "content", "download-bundle", "--guid", f"{content['guid']},{oldest['id']}", "--output", str(tmp_path / "old.tar.gz"))
    assert code == 0 and b"tool one" in tarfile.open(tmp_path / "old.tar.gz").extractfile("app.py").read(), output
    before = with_key(demo, content["content_url"], "vera").text
    task = oldest.deploy()
    task.wait_for()
    assert task["code"] == 0 and with_key(demo, content["content_url"], "vera").text == "tool one" != before
    assert content.bundles.active()["id"] == oldest["id"]
    refused = call(demo, "DELETE", f"content/{content['guid']}/bundles/{oldest['id']}")
    assert refused.status_code == 409 and "Deploy another" in refused.json()["error"]
    bundles[0].delete()
    assert bundles[0]["id"] not in [bundle["id"] for bundle in content.bundles.find()]
    assert call(demo, "GET", f"content/{content['guid']}/bundles/{bundles[0]['id']}/download").status_code == 404
    assert call(demo, "GET", f"content/{content['guid']}/bundles", "vera").status_code in (403, 404)


def test_rsconnect_searches_and_describes(demo, tool):
    _, content = tool
    code, output = rsconnect(demo, "content", "search", "--title-contains", "Tool")
    assert code == 0 and content["guid"] in [item["guid"] for item in json.JSONDecoder().raw_decode(output[output.index("[") :])[0]], output
    code, output = rsconnect(demo, "content", "describe", "--guid", content["guid"])
    described = json.JSONDecoder().raw_decode(output[output.index("[") :])[0][0]
    assert code == 0 and described["app_mode"] == "python-api" and described["bundle_id"] and described["title"] == "Tool"
    code, output = rsconnect(demo, "content", "search", "--published", "--content-type", "python-api")
    assert code == 0 and content["guid"] in output, output


# — Who is looking. —


def headers_of(answer):
    return {name.lower(): value for name, value in answer.json()["headers"]}


@pytest.fixture(scope="session")
def attached(demo, tool, tmp_path_factory):
    """The same app once more, whose manifest asks for the integration."""
    folder = tmp_path_factory.mktemp("attached") / "app"
    shutil.copytree(tool[0], folder, ignore=shutil.ignore_patterns("rsconnect*", "manifest.json"))
    written = subprocess.run([sys.executable, "-m", "rsconnect.main", "write-manifest", "api", str(folder)], capture_output=True, text=True)
    assert written.returncode == 0, written.stdout + written.stderr
    text = json.loads((folder / "manifest.json").read_text())
    integration = demo["integrations"][0]
    text["integration_requests"] = [{"name": integration["name"], "type": "azure", "auth_type": "Viewer"}, {"name": "Unknown one", "type": "custom"}]
    (folder / "manifest.json").write_text(json.dumps(text))
    code, output = rsconnect(demo, "deploy", "manifest", str(folder / "manifest.json"), "--title", "Attached")
    assert code == 0, output
    guid = guid_in(output)
    assert call(demo, "PATCH", f"content/{guid}", json={"access_type": "logged_in"}).status_code == 200
    return sdk_content(demo, guid), output


def test_a_manifest_attaches_the_integration_it_asks_for(demo, attached):
    content, output = attached
    assert [entry["oauth_integration_guid"] for entry in content.oauth.associations.find()] == [demo["integrations"][0]["guid"]]
    assert "Attached the integration Azure Databricks" in output and "Unknown one" in output, output


def test_a_key_gets_401_with_login_url_until_its_person_consents(demo, attached):
    content, _ = attached
    answer = with_key(demo, content["content_url"], "viktor")
    assert answer.status_code == 401 and answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["payload"]["login_url"].startswith(demo["portal"]) and answer.json()["payload"]["reason"] == "not_consented"


def test_inside_the_sandbox_the_session_token_of_the_viewer_becomes_a_databricks_token(demo, viewer, attached):
    content, _ = attached
    for name in ("vera", "viktor"):
        seen_by(viewer, name, content["content_url"])
        got = viewer(name).http.get(content["content_url"] + "exchange").json()
        assert got["token_type"] == "Bearer", got
        me = requests.get(f"{demo['workspace']}/api/2.0/preview/scim/v2/Me", headers={"Authorization": f"Bearer {got['access_token']}"}).json()
        assert me["userName"] == f"{name}@example.org"
    # The same with a key, now that vera has consented.
    assert with_key(demo, content["content_url"] + "exchange", "vera").json()["token_type"] == "Bearer"


def test_the_key_of_a_process_reads_the_integration_of_its_own_item_only(demo, viewer, tool, attached):
    path = f"v1/oauth/integrations/{demo['integrations'][0]['guid']}"
    viewer("vera").open(attached[0]["content_url"])
    own = viewer("vera").http.get(attached[0]["content_url"] + "ask", params={"path": path}).json()
    assert own["status"] == 200 and json.loads(own["text"])["guid"] == demo["integrations"][0]["guid"] and "client_secret" not in own["text"]
    other = with_key(demo, tool[1]["content_url"] + f"ask?path={path}", "vera").json()
    assert other["status"] in (403, 404), other
    for path in ("v1/users", f"v1/content/{tool[1]['guid']}/environment", "v1/oauth/integrations", "v1/audit_logs"):
        refused = viewer("vera").http.get(attached[0]["content_url"] + "ask", params={"path": path}).json()
        assert refused["status"] in (401, 403, 404), (path, refused)


def test_a_key_opens_content_as_its_person_and_is_not_passed_on(demo, tool):
    _, content = tool
    for url in (content["content_url"], seen_at(demo, content)):
        answer = with_key(demo, url + "headers", "vera")
        got = headers_of(answer)
        assert answer.status_code == 200 and "authorization" not in got and "vk_" not in answer.text
        assert json.loads(got["rstudio-connect-credentials"])["user"] == "vera"
        sent = requests.post(url + "headers", headers=demo.key("vera"), data="x" * 1000)
        assert sent.status_code == 200 and sent.json()["body"] == "x" * 1000
        # An app's own kind of authorization is passed on.
        for own in ("Bearer of-the-app", "Basic eDp5"):
            answer = requests.get(url + "headers", headers={"Authorization": own})
            assert answer.status_code in (401, 403, 200) and "of-the-app" not in answer.text  # Nobody is signed in.


def seen_at(demo, content):
    """The item's address where content runs, which is another host than the portal's."""
    return next(item["place"] for item in demo["content"]).split("/content/")[0] + f"/content/{content['guid']}/"


def test_an_apps_own_authorization_is_passed_on(demo, viewer, tool):
    _, content = tool
    seen_by(viewer, "vera", content["content_url"])
    for own in ("Bearer of-the-app", "Basic eDp5"):
        got = headers_of(viewer("vera").http.get(seen_at(demo, content) + "headers", headers={"Authorization": own}))
        assert got["authorization"] == own


def test_a_key_that_may_not_open_content_says_so_in_json(demo, tool):
    _, content = tool
    url = content["content_url"]
    key = with_key(demo, url + "environment", "vera").json()["CONNECT_API_KEY"]
    for bad in ("vk_bad", "x", key):
        answer = requests.get(url, headers={"Authorization": f"Key {bad}"})
        assert answer.status_code == 401 and answer.json()["error"], bad
    assert call(demo, "PATCH", f"content/{content['guid']}", json={"access_type": "acl"}).status_code == 200
    try:
        answer = with_key(demo, url, "vera")
        assert answer.status_code == 403 and answer.json()["error"]
        assert with_key(demo, url, "bo").status_code == 200
    finally:
        call(demo, "PATCH", f"content/{content['guid']}", json={"access_type": "logged_in"})


def test_apps_learn_name_and_groups_which_cannot_be_forged(demo, viewer, tool):
    _, content = tool
    ada = Client(demo["portal"], demo.account("ada")["api_key"])
    name = "Zürich – Größe 日本 \"x\""
    group = call(demo, "POST", "groups", "ada", json={"name": name})
    assert group.status_code in (200, 201), group.text
    vera = next(user for user in ada.users.find() if user["username"] == "vera")
    added = call(demo, "POST", f"groups/{group.json()['guid']}/members", "ada", json={"user_guid": vera["guid"]})
    assert added.status_code in (200, 201, 204), added.text
    forged = {"RStudio-Connect-Credentials": '{"user":"ada"}', "Shiny-Server-Credentials": '{"user":"ada"}', "rstudio_connect_credentials": "ada", "RSTUDIO-CONNECT-CREDENTIALS ": "ada"}
    forged.popitem()
    seen_by(viewer, "vera", content["content_url"])
    for answer in (viewer("vera").http.get(seen_at(demo, content) + "headers", headers=forged), with_key(demo, content["content_url"] + "headers", "vera", **forged)):
        got = [(key.lower().replace("_", "-"), value) for key, value in answer.json()["headers"]]
        for header in ("rstudio-connect-credentials", "shiny-server-credentials"):
            values = [value for key, value in got if key == header]
            assert len(values) == 1 and values[0].isascii()
            assert json.loads(values[0])["user"] == "vera" and name in json.loads(values[0])["groups"]
    viktor = headers_of(with_key(demo, content["content_url"] + "headers", "viktor"))
    assert json.loads(viktor["rstudio-connect-credentials"]) == {"user": "viktor", "groups": []}
    assert call(demo, "PATCH", f"content/{content['guid']}", json={"access_type": "all"}).status_code == 200
    try:
        for answer in (requests.get(seen_at(demo, content) + "headers", headers=forged), with_key(demo, content["content_url"] + "headers", "vera", **forged)):
            assert answer.status_code == 200 and "credentials" not in answer.text.lower()
    finally:
        call(demo, "PATCH", f"content/{content['guid']}", json={"access_type": "logged_in"})


# — Invalid input. —


@pytest.fixture(scope="session")
def steady(demo):
    """An app that must go on working whatever is deployed over it."""
    content = new_content(demo, "steady", title="Steady")
    done = deployed(demo, content["guid"], packed({"app.py": wsgi("steady")}, manifest()))
    assert done["code"] == 0, done
    assert with_key(demo, content["content_url"], "vera").text == "steady"
    assert call(demo, "PATCH", f"content/{content['guid']}", json={"start_timeout": 3}).status_code == 200
    return content


def bomb():
    import gzip

    out = io.BytesIO()
    with gzip.open(out, "wb", compresslevel=1) as zipped:
        head = tarfile.open(fileobj=io.BytesIO(), mode="w")
        for name, content in (("manifest.json", json.dumps(manifest()).encode()), ("app.py", wsgi("bomb").encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            head.addfile(entry, io.BytesIO(content))
        zipped.write(head.fileobj.getvalue())
        entry = tarfile.TarInfo("zeros")
        entry.size = 200 << 20
        zipped.write(entry.tobuf())
        for _ in range(200):
            zipped.write(bytes(1 << 20))
    return out.getvalue()


def with_entry(change, name="evil"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for file, content in (("manifest.json", json.dumps(manifest()).encode()), ("app.py", wsgi("evil").encode())):
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo(name)
        change(entry)
        tar.addfile(entry)
    return out.getvalue()


def link(entry):
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"


def hard_link(entry):
    entry.type, entry.linkname = tarfile.LNKTYPE, "../../etc/passwd"


def device(entry):
    entry.type, entry.devmajor, entry.devminor = tarfile.CHRTYPE, 1, 3


GOOD = {"app.py": wsgi("bad")}
INVALID = {
    "no manifest": (lambda: packed(GOOD, {}), ["manifest.json", "rsconnect"]),
    "a manifest that is no JSON": (lambda: packed({"manifest.json": "{", **GOOD}, {}), ["manifest.json", "line 1", "write-manifest"]),
    "no archive at all": (lambda: b"hello", ["gzip"]),
    "nothing": (lambda: b"", ["gzip"]),
    "a corrupt archive": (lambda: packed(GOOD, manifest())[:100] + b"\xff" * 200, ["gzip", "again"]),
    "half an archive": (lambda: (whole := packed({**GOOD, "data.bin": os.urandom(100000)}, manifest()))[: len(whole) // 2], ["archive", "again"]),
    "a bomb": (bomb, ["64 MiB", "Leave out"]),
    "a link": (lambda: with_entry(link), ["evil", "link"]),
    "a hard link": (lambda: with_entry(hard_link), ["evil", "link"]),
    "a device": (lambda: with_entry(device), ["evil", "special"]),
    "a path upwards": (lambda: with_entry(lambda _: None, "../evil"), ["../evil"]),
    "an absolute path": (lambda: with_entry(lambda _: None, "/tmp/evil"), ["/tmp/evil"]),
    "R": (lambda: packed({"app.R": ""}, manifest("shiny", "app.R")), ["“shiny”", "R", "address"]),
    "an R API": (lambda: packed({"plumber.R": ""}, manifest("api", "plumber.R")), ["“api”", "R"]),
    "Quarto": (lambda: packed({"a.qmd": ""}, manifest("quarto-static", "a.qmd")), ["Quarto", "HTML"]),
    "Node.js": (lambda: packed({"a.js": ""}, manifest("nodejs", "a.js")), ["Node.js"]),
    "an unknown kind": (lambda: packed(GOOD, manifest("python-weird")), ["python-weird"]),
    "no entry point": (lambda: packed(GOOD, manifest(entrypoint="")), ["entrypoint"]),
    "a missing entry point": (lambda: packed(GOOD, manifest(entrypoint="missing:app")), ["missing", "--entrypoint"]),
    "an entry point outside": (lambda: packed(GOOD, manifest(entrypoint="../../etc/passwd")), ["entry point", "manifest.json"]),
    "a missing page": (lambda: packed({"a.html": "x"}, manifest("static", "index.html")), ["index.html"]),
    "no such object": (lambda: packed(GOOD, manifest(entrypoint="app:server")), ["app.py", "server", "entrypoint"]),
    "a missing module": (lambda: packed({"app.py": "import nonesuch\n" + wsgi("bad")}, manifest()), ["nonesuch", "requirements.txt"]),
    "a syntax error": (lambda: packed({"app.py": "def app(:\n"}, manifest()), ["app.py", "line 1", "SyntaxError"]),
    "packages that do not exist together": (lambda: packed({**GOOD, "requirements.txt": "flask==3.1.1\nflask==3.1.2\n"}, manifest(packages=True)), ["flask==3.1.1", "flask==3.1.2", "unsatisfiable"]),
    "a package that does not exist": (lambda: packed({**GOOD, "requirements.txt": "flask==99.0\n"}, manifest(packages=True)), ["flask==99.0"]),
    "a broken requirements.txt": (lambda: packed({**GOOD, "requirements.txt": "flask\n???\n"}, manifest(packages=True)), ["requirements.txt:2:1", "Unexpected"]),
    "no requirements.txt": (lambda: packed(GOOD, manifest(packages=True)), ["requirements.txt", "one a line"]),
    "another file than its checksum": (lambda: packed(GOOD, manifest(files={"app.py": {"checksum": "0" * 32}})), ["app.py", "checksum"]),
    "a file that is missing": (lambda: packed(GOOD, manifest(files={"data.csv": {"checksum": "0" * 32}})), ["data.csv", "missing"]),
    "an app that never listens": (lambda: packed({"app.py": "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n"}, manifest()), ["within 3 s", "listen", "waiting"]),
    "an app that listens elsewhere": (lambda: packed({"app.py": "import http.server\nhttp.server.HTTPServer(('127.0.0.1', 8099), http.server.SimpleHTTPRequestHandler).serve_forever()\n"}, manifest()), ["within 3 s", "port"]),
    "an app that exits at once": (lambda: packed({"app.py": "import sys\nprint('gone now')\nsys.exit(0)\n"}, manifest()), ["exit code 0", "gone now"]),
    "an app that fails": (lambda: packed({"app.py": "print('about to fail')\nraise RuntimeError('no database')\n"}, manifest()), ["no database", "app.py", "exit code 1"]),
    "an app that kills itself": (lambda: packed({"app.py": "import os\nos.kill(os.getpid(), 9)\n"}, manifest()), ["killed"]),
    "an app that prints binary data": (lambda: packed({"app.py": "import os, sys\nos.write(1, bytes(range(256)) * 20)\nos.write(2, b'\\xff\\xfe\\x00 the end\\n')\nsys.exit(7)\n"}, manifest()), ["exit code 7", "the end"]),
    "a Python that is not there": (lambda: packed(GOOD, manifest(environment={"python": {"requires": ">=3.99"}})), ["3.99", "requires", "manifest.json"]),
}


@pytest.mark.parametrize("what", INVALID)
def test_a_bad_bundle_is_refused_in_clear_words_and_the_app_goes_on(demo, steady, what):
    archive, words = INVALID[what]
    before = call(demo, "GET", f"content/{steady['guid']}").json()["bundle_id"]
    done = deployed(demo, steady["guid"], archive())
    said = f"{done['error']}\n{done['output']}"
    print(said[-1500:])
    assert done["code"] == 1 and done["error"], done
    assert with_key(demo, steady["content_url"], "vera").text == "steady"
    assert call(demo, "GET", f"content/{steady['guid']}").json()["bundle_id"] == before
    missing = [word for word in words if word not in said]
    assert not missing, f"{missing} not in: {said}"


def test_a_deploy_says_each_time_why_its_app_does_not_start(demo, steady):
    archive = packed({"app.py": "raise RuntimeError('no database')\n"}, manifest())
    bundle = upload(demo, steady["guid"], archive).json()["id"]
    for _ in range(8):
        done = finished(demo, call(demo, "POST", f"content/{steady['guid']}/deploy", json={"bundle_id": bundle}).json()["task_id"])
        assert done["code"] == 1 and "exit code 1" in done["error"] and "no database" in done["output"], done


def test_the_nearest_python_is_used_and_said(demo):
    content = new_content(demo, "older-python")
    text = manifest()
    text["python"]["version"] = "3.4.1"
    done = deployed(demo, content["guid"], packed({"app.py": "import sys\n" + wsgi("x").replace("'x'.encode()", "sys.version.encode()")}, text))
    assert done["code"] == 0 and "Python 3.4.1 is not installed" in done["output"] and "nearest" in done["output"], done
    version = with_key(demo, content["content_url"], "vera").text.split()[0]
    assert version.startswith("3.") and call(demo, "GET", f"content/{content['guid']}").json()["py_version"] == version


def test_rsconnect_shows_why_a_deploy_failed(demo, tmp_path):
    (tmp_path / "app.py").write_text("import flask\napp = flask.Flask('x')\n")
    (tmp_path / "requirements.txt").write_text("flask==99.0\n")
    code, output = rsconnect(demo, "deploy", "api", str(tmp_path))
    assert code != 0 and "flask==99.0" in output and "no version" in output, output


@pytest.mark.skipif(not LONG, reason="TEST_LONG=1")
def test_rsconnect_says_that_an_app_does_not_start(demo, tmp_path):
    (tmp_path / "app.py").write_text("raise RuntimeError('no database')\n")
    (tmp_path / "requirements.txt").write_text("")
    code, output = rsconnect(demo, "deploy", "api", str(tmp_path))
    assert code != 0 and "might not have started" in output, output


def test_two_deploys_at_once_end_one_after_the_other_and_the_later_counts(demo):
    content = new_content(demo, "twice")
    bundles = [upload(demo, content["guid"], packed({"app.py": wsgi(f"bundle {number}", "import time\ntime.sleep(1)")}, manifest())).json()["id"] for number in range(3)]
    tasks = [call(demo, "POST", f"content/{content['guid']}/deploy", json={"bundle_id": bundle}).json()["task_id"] for bundle in bundles]
    assert [finished(demo, task)["code"] for task in tasks] == [0, 0, 0]
    assert with_key(demo, content["content_url"], "vera").text == "bundle 2"
    assert call(demo, "GET", f"content/{content['guid']}").json()["bundle_id"] == bundles[-1]


def test_strangers_and_viewers_deploy_nothing(demo, steady):
    archive = packed({"app.py": wsgi("stranger")}, manifest())
    for username in ("vera", "viktor"):
        for method, path, body in (("POST", "bundles", {"data": archive}), ("POST", "deploy", {"json": {}}), ("GET", "bundles", {}), ("PATCH", "environment", {"json": []}), ("POST", "restart", {}), ("GET", "jobs", {})):
            assert call(demo, method, f"content/{steady['guid']}/{path}", username, **body).status_code in (403, 404), path
    for body in ('{"bundle_id": "999999"}', '{"bundle_id": "x"}', '{"bundle_id": []}', "[]", "{"):
        refused = call(demo, "POST", f"content/{steady['guid']}/deploy", data=body)
        assert refused.status_code in (400, 404) and refused.json()["error"], body
    assert call(demo, "GET", "tasks/00000000-0000-4000-8000-000000000000").status_code == 404


# — A portal of one's own, that can be killed. —


class Portal(dict):
    """`serve` on a folder of its own, with one administrator."""

    def __init__(self, folder, **settings):
        super().__init__()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder, self["portal"] = folder, f"http://127.0.0.1:{port}"
        settings = {name: value.replace("PORT", str(port)) for name, value in settings.items()}
        self.environment = {**os.environ, "VALETKEY_LISTEN": f"127.0.0.1:{port}", "VALETKEY_PUBLIC_URL": self["portal"], "VALETKEY_CONTENT_URL": f"http://localhost:{port}",
                            "VALETKEY_DATA_DIR": str(folder / "data"), "VALETKEY_LOG": "info", **settings}
        made = subprocess.run([BINARY, "admin", "create", "ada", "--password-stdin", "--api-key"], input=f"{PASSWORD}\n", capture_output=True, text=True, env=self.environment)
        assert made.returncode == 0, made.stderr
        secret = made.stdout.strip()
        self.account = lambda _="ada": {"api_key": secret}
        self.key = lambda _="ada": {"Authorization": f"Key {secret}"}
        self.api = lambda path: f"{self['portal']}/__api__/{path}"
        self.start()

    def start(self):
        self.process = subprocess.Popen([BINARY, "serve"], env=self.environment, stderr=(self.folder / "log").open("a"))
        for _ in range(200):
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self['portal']}/__ping__", timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        self.kill()
        raise AssertionError((self.folder / "log").read_text())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(40) == 0

    def left(self):
        """Processes that belong to this portal, except itself: by their command or their environment."""
        mark, found = str(self.folder).encode(), {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in (os.getpid(), self.process.pid):
                with contextlib.suppress(OSError):
                    command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                    if mark in command or self["portal"].encode() in environment and b"CONNECT_CONTENT_GUID" in environment:
                        found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
        return found

    def nothing_left(self, patience=5):
        until = time.monotonic() + patience
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.1)
        assert not left, left

    def sandboxes(self):
        """The outermost programs of sandboxes: bubblewrap started by the portal."""
        count = 0
        for pid in self.left():
            with contextlib.suppress(OSError):
                parent = int(re.search(r"^PPid:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M).group(1))
                count += parent == self.process.pid
        return count


@pytest.fixture
def portal(tmp_path):
    # Short: sockets have short names.
    made = Portal(tmp_path)
    yield made
    if made.process.poll() is None:
        made.stop()
    made.nothing_left()


def task_now(portal, task):
    return call(portal, "GET", f"tasks/{task}", "ada").json()


def package_of(name, *steps):
    """The files of an app whose only package is built from source by these statements, before the wheel is there."""
    backend = f'''
import time, zipfile


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    {"; ".join(steps)}
    wheel_name, about = "{name}-1.0-py3-none-any.whl", "{name}-1.0.dist-info"
    with zipfile.ZipFile(f"{{wheel_directory}}/{{wheel_name}}", "w") as wheel:
        wheel.writestr("{name}.py", "answer = 42\\n")
        wheel.writestr(f"{{about}}/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        wheel.writestr(f"{{about}}/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{{about}}/RECORD", f"{name}.py,,\\n{{about}}/METADATA,,\\n{{about}}/WHEEL,,\\n{{about}}/RECORD,,\\n")
    return wheel_name
'''
    project = f'[project]\nname = "{name}"\nversion = "1.0"\n[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    return {"requirements.txt": f"./{name}\n", f"{name}/backend.py": backend, f"{name}/pyproject.toml": project}


# A package that takes its time to build.
SLOW = package_of("slow", "time.sleep(4)")


def test_a_portal_killed_during_a_build_finishes_it_after_its_start_and_builds_once(portal):
    content = new_content(portal, "slow")
    assert deployed(portal, content["guid"], packed({"app.py": wsgi("before")}, manifest()))["code"] == 0
    assert with_key(portal, content["content_url"], "ada").text == "before"
    call(portal, "PATCH", f"content/{content['guid']}/environment", json=[{"name": "KEPT", "value": "x"}])
    bundle = upload(portal, content["guid"], packed({"app.py": "import slow\n" + wsgi("after"), **SLOW}, manifest(packages=True))).json()["id"]
    task = call(portal, "POST", f"content/{content['guid']}/deploy", json={"bundle_id": bundle}).json()["task_id"]
    wait_for(lambda: "Installing the packages" in str(task_now(portal, task)["output"]), what=lambda: f"the build: {task_now(portal, task)}")
    time.sleep(1)
    assert not (now := task_now(portal, task))["finished"], now
    portal.kill()
    portal.nothing_left()
    portal.start()
    most = 0

    def ended():
        nonlocal most
        builds = [command for command in portal.left().values() if "build" in command and "bwrap" in command]
        most = max(most, sum("--" in command for command in builds))
        answer = with_key(portal, content["content_url"], "ada")
        assert answer.status_code == 200 and answer.text in ("before", "after"), answer.text
        return task_now(portal, task)["finished"]

    wait_for(ended, what="the interrupted deploy's end")
    assert task_now(portal, task)["code"] == 0, task_now(portal, task)
    assert with_key(portal, content["content_url"], "ada").text == "after"
    assert call(portal, "GET", f"content/{content['guid']}/environment").json() == ["KEPT"]
    assert max(int(entry["id"]) for entry in call(portal, "GET", f"content/{content['guid']}/bundles").json()) == int(bundle)
    folders = [entry.name for entry in (portal.folder / "data").rglob("*") if entry.name == task and entry.is_dir()]
    assert folders == [], "the folder of the build is gone"


def test_a_portal_killed_during_activation_goes_on_with_one_version_or_the_other(portal):
    content = new_content(portal, "activation")
    assert deployed(portal, content["guid"], packed({"app.py": wsgi("before")}, manifest()))["code"] == 0
    bundle = upload(portal, content["guid"], packed({"app.py": wsgi("after", "import time\ntime.sleep(3)")}, manifest())).json()["id"]
    task = call(portal, "POST", f"content/{content['guid']}/deploy", json={"bundle_id": bundle}).json()["task_id"]
    wait_for(lambda: "Starting the app." in str(task_now(portal, task)["output"]), what="the start")
    portal.kill()
    portal.nothing_left()
    portal.start()
    assert with_key(portal, content["content_url"], "ada").text in ("before", "after")
    wait_for(lambda: task_now(portal, task)["finished"], what="the end of the deploy")
    assert task_now(portal, task)["code"] == 0
    assert with_key(portal, content["content_url"], "ada").text == "after"


def test_no_process_survives_a_killed_portal_and_each_starts_once_again(portal):
    content = new_content(portal, "many")
    assert deployed(portal, content["guid"], packed({"app.py": wsgi("many")}, manifest()))["code"] == 0
    assert call(portal, "PATCH", f"content/{content['guid']}", json={"min_processes": MANY, "max_processes": MANY}).status_code == 200

    def ready():
        jobs = call(portal, "GET", f"content/{content['guid']}/jobs").json()
        assert len(jobs) <= MANY
        return [job["state"] for job in jobs].count("ready") == MANY

    wait_for(ready, "the processes")
    portal.kill()
    portal.nothing_left()
    portal.start()
    wait_for(ready, "the processes again")
    assert portal.sandboxes() == MANY
    assert with_key(portal, content["content_url"], "ada").text == "many"
    portal.stop()
    portal.nothing_left()


def test_an_upload_that_breaks_off_leaves_nothing(portal):
    content = new_content(portal, "broken-off")
    place = urllib.parse.urlsplit(portal["portal"])
    # The last form is as long as it says, and its part has no end.
    endless = b"--x\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nwithout an end"
    ended = requests.post(f"{portal['portal']}/__api__/v1/content/{content['guid']}/bundles", data=endless, headers={**portal.key(), "Content-Type": "multipart/form-data; boundary=x"}, timeout=20)
    assert ended.status_code == 400, ended.text
    for head in ("Content-Type: application/gzip\r\nContent-Length: 10000000", "Content-Type: application/gzip\r\nTransfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 10000000"):
        with socket.create_connection((place.hostname, place.port)) as wire:
            wire.sendall(f"POST /__api__/v1/content/{content['guid']}/bundles HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: {portal.key()['Authorization']}\r\n{head}\r\n\r\n".encode())
            wire.sendall(b"--x\r\nContent-Disposition: form-data; name=\"archive\"\r\n\r\n" if "boundary" in head else b"10000\r\n" if "chunked" in head else b"")
            wire.sendall(os.urandom(50000))
            time.sleep(0.2)
    incoming = portal.folder / "data/content/.incoming"
    wait_for(lambda: not list(incoming.iterdir()), "clearing up", 10)
    assert call(portal, "GET", f"content/{content['guid']}/bundles").json() == []
    archive = packed({"app.py": wsgi("whole")}, manifest())
    assert deployed(portal, content["guid"], archive)["code"] == 0
    form = call(portal, "POST", f"content/{content['guid']}/bundles", files={"archive": ("b.tar.gz", archive), "metadata": (None, json.dumps({"source": "git", "source_commit": "abc"}))})
    assert form.status_code == 200 and form.json()["metadata"]["source_commit"] == "abc"


def test_an_app_counts_as_started_only_when_it_listens(tmp_path):
    """A sandbox that takes longer to begin than the portal waits for it to close a connection."""
    slow = tmp_path / "bwrap"
    slow.write_text(f"#!/bin/sh\nsleep 0.5\nexec {shutil.which('bwrap')} \"$@\"\n")
    slow.chmod(0o755)
    portal = Portal(tmp_path, VALETKEY_RUN_BUBBLEWRAP=str(slow))
    try:
        content = new_content(portal, "late")
        first = deployed(portal, content["guid"], packed({"app.py": wsgi("first")}, manifest()))
        assert first["code"] == 0, first
        assert with_key(portal, content["content_url"], "ada").text == "first"
        broken = deployed(portal, content["guid"], packed({"app.py": "raise RuntimeError('no database')\n"}, manifest()))
        assert broken["code"] == 1
        assert with_key(portal, content["content_url"], "ada").text == "first"
    finally:
        portal.stop()
