"""Unmodified posit-sdk and databricks-sdk in deployed content, as the content itself; content credentials, AWS keys, `file-oidc`, and visitor keys."""
import base64
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import requests
from conftest import BINARY, Demo, Viewer
from posit.connect import Client
from posit.connect.errors import ClientError

try:
    import uv

    os.environ.setdefault("VALETKEY_RUN_UV", uv.find_uv_bin())
except ImportError:
    pass  # From PATH.

APP = """
import json, os, traceback
from flask import Flask, request
from posit.connect import Client
from posit.connect.external import aws
from databricks.sdk.core import Config

app = Flask(__name__)

def databricks():
    # The double stands on this machine, which an app reaches through the portal's proxy only.
    kept = {name: os.environ.pop(name, "") for name in ("NO_PROXY", "no_proxy")}
    try:
        return Config().authenticate()
    finally:
        os.environ.update(kept)

def tried(what):
    try:
        return what()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "where": traceback.format_exc()[-1500:]}

@app.get("/")
def index():
    client = Client()
    token = request.headers.get("Posit-Connect-User-Session-Token", "")
    audience = os.environ.get("AWS_INTEGRATION")
    path = os.environ.get("CONNECT_CONTENT_SESSION_TOKEN_FILE", "")
    return json.dumps({
        "file": open(path).read() == os.environ.get("CONNECT_CONTENT_SESSION_TOKEN") if path else None,
        "aws": tried(lambda: aws.get_content_credentials(client, audience=audience)),
        "databricks": tried(databricks),
        "model": os.environ.get("ANTHROPIC_API_KEY"),
        "files": sorted(os.listdir(os.path.dirname(path))) if path else [],
        "written": tried(lambda: open(path, "a").write("x")) if path else None,
    }, default=str)
"""


@pytest.fixture(scope="module")
def demo():
    process = subprocess.Popen([BINARY, "demo", "--json", "--providers", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = []
    threading.Thread(target=lambda: log.extend(process.stderr), daemon=True).start()
    yield Demo(json.loads(process.stdout.readline()), log=log)
    process.terminate()
    assert process.wait(40) == 0
    written = "".join(log)
    for secret in ("Authorization", "eyJ", "vk_", "vkv_", "sk-ant-"):
        assert secret not in written, f"{secret} stands in the log"


@pytest.fixture(scope="module")
def deployed(demo, tmp_path_factory):
    """An app that uses three service accounts, of which two need no stored secret."""
    administrator = Client(demo["portal"], demo.account("ada")["api_key"])
    made = {entry["name"]: entry for entry in administrator.oauth.integrations.find()}
    model = administrator.oauth.integrations.create(name="Claude", template="anthropic", config={"client_secret": "sk-ant-of-the-test"})
    wanted = [made["AWS role"], made["Databricks service principal"], model]
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(APP)
    (folder / "requirements.txt").write_text("flask\nposit-sdk\ndatabricks-sdk\n")
    bo = demo.account("bo")["api_key"]
    words = ["deploy", "api", "--server", demo["portal"], "--api-key", bo, "--title", "As itself", str(folder)]
    environment = ["-E", f"AWS_INTEGRATION={made['AWS role']['guid']}"]
    done = subprocess.run([sys.executable, "-m", "rsconnect.main", *words[:2], *environment, *words[2:]], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    publisher = Client(demo["portal"], bo)
    content = next(item for item in publisher.content.find() if item["title"] == "As itself")
    body = [{"oauth_integration_guid": entry["guid"]} for entry in wanted]
    answer = requests.put(demo.api(f"v1/content/{content['guid']}/oauth/integrations/associations"), json=body, headers=demo.key("bo"))
    assert answer.status_code == 204, answer.text
    content.update(access_type="logged_in")
    return content, {entry["name"]: entry for entry in wanted}


def opened(demo, content, name):
    """The app's answer, after the page that waits for its start."""
    viewer = Viewer(demo, name)
    for _ in range(240):
        page = viewer.open(content["content_url"])
        # Attaching a service account brings a new process, without a gap.
        if '"file": true' in page.text or page.status_code >= 400:
            return page
        time.sleep(0.25)
    raise AssertionError(page.text)


def test_content_acts_as_itself_by_unmodified_clients(demo, deployed):
    content, integrations = deployed
    page = opened(demo, content, "vera")
    found = json.loads(page.text) if page.text.startswith("{") else pytest.fail(page.text[-3000:])
    assert found["file"] is True
    assert found["aws"].get("aws_access_key_id") == "ASIADEMO", found["aws"]
    guid = integrations["Databricks service principal"]["guid"]
    assert found["databricks"] == {"Authorization": f"Bearer databricks-for-principal-integration:{guid}"}, found["databricks"]
    assert found["model"] == "sk-ant-of-the-test"
    # The file is the portal's.
    assert "error" in found["written"], found["written"]


def test_a_content_session_token_is_of_no_use_to_a_viewer(demo, deployed):
    content, integrations = deployed
    vera = Client(demo["portal"], demo.account("vera")["api_key"])
    with pytest.raises(ClientError) as refused:
        vera.oauth.get_credentials("anything", requested_token_type=None)
    assert refused.value.error_code in (215, 22)
    page = opened(demo, content, "viktor")
    assert base64.b64encode(b"sk-ant").decode() not in page.text


def test_a_client_of_the_visitor_acts_as_the_visitor(demo, app):
    administrator = Client(demo["portal"], demo.account("ada")["api_key"])
    visitor = next(entry for entry in administrator.oauth.integrations.find() if entry["template"] == "connect")
    publisher = Client(demo["portal"], demo.account("bo")["api_key"])
    content = publisher.content.create(name="visited", title="Visited", access_type="logged_in", upstream_url=app)
    content.oauth.associations.update(visitor["guid"])
    page = Viewer(demo, "vera").open(content["content_url"])
    headers = {key.lower(): value for key, value in page.json()["headers"]}
    os.environ["CONNECT_CONTENT_GUID"] = content["guid"]
    try:
        as_visitor = publisher.with_user_session_token(headers["posit-connect-user-session-token"])
    finally:
        del os.environ["CONNECT_CONTENT_GUID"]
    assert as_visitor.me["username"] == "vera"
    with pytest.raises(ClientError):
        as_visitor.content.create(name="not-hers")


def test_the_snowflake_helper_gets_the_viewers_token(demo, app):
    from posit.connect.external.snowflake import PositAuthenticator

    administrator = Client(demo["portal"], demo.account("ada")["api_key"])
    snowflake = next(entry for entry in administrator.oauth.integrations.find() if entry["name"] == "Snowflake")
    publisher = Client(demo["portal"], demo.account("bo")["api_key"])
    content = publisher.content.create(name="frozen", title="Frozen", access_type="logged_in", upstream_url=app)
    content.oauth.associations.update(snowflake["guid"])
    vera = Viewer(demo, "vera")
    asked = vera.http.get(content["content_url"])
    assert "Snowflake" in asked.text and "/consents/new" in asked.url
    sign_in = vera.send(asked, {})
    page = vera.http.post(sign_in.url, data={"username": "vera@example.org", "accept": "yes"})
    headers = {key.lower(): value for key, value in page.json()["headers"]}
    authenticator = PositAuthenticator(client=publisher, user_session_token=headers["posit-connect-user-session-token"])
    assert authenticator.authenticator == "oauth" and len(authenticator.token) > 20


def test_a_paused_service_account_leaves_the_running_process(demo, deployed):
    content, integrations = deployed
    guid = integrations["Databricks service principal"]["guid"]
    vera = Viewer(demo, "vera")
    # A visitor stays, so the process does, too.
    assert guid in vera.open(content["content_url"]).json()["files"]
    paused = requests.patch(demo.api(f"v1/oauth/integrations/{guid}"), json={"paused": True}, headers=demo.key("ada"))
    assert paused.status_code == 200, paused.text
    until = time.monotonic() + 40
    while guid in (files := vera.open(content["content_url"]).json()["files"]):
        assert time.monotonic() < until, files
        time.sleep(0.5)
    # What the others got stays.
    assert files, files
