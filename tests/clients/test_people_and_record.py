"""Groups, access lists and the first administrator, through unmodified clients, on a server set up by its settings."""
import base64
import json
import os
import socket
import subprocess
import sys
import time

import pytest
import requests
from conftest import BINARY
from posit.connect import Client


@pytest.fixture
def fresh(tmp_path):
    """A portal in which nobody has an account yet."""
    secret = base64.b64encode(os.urandom(48)).decode()
    keyfile = tmp_path / "bootstrap.key"
    keyfile.write_text(secret)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = {"VALETKEY_LISTEN": f"127.0.0.1:{port}", "VALETKEY_PUBLIC_URL": url, "VALETKEY_DATA_DIR": str(tmp_path / "data"),
                "VALETKEY_BOOTSTRAP_SECRET_FILE": str(keyfile)}
    process = subprocess.Popen([BINARY, "serve"], env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True)
    for _ in range(100):
        try:
            requests.get(f"{url}/__ping__", timeout=10)
            break
        except requests.ConnectionError:
            time.sleep(0.1)
    yield url, str(keyfile), tmp_path
    process.terminate()
    assert process.wait(40) == 0
    assert secret not in process.stderr.read()


def bootstrap(url, keyfile):
    command = [sys.executable, "-m", "rsconnect.main", "bootstrap", "--server", url, "--jwt-keypath", keyfile]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


def test_the_first_administrator_comes_by_bootstrap_and_once(fresh):
    url, keyfile, folder = fresh
    other = folder / "other.key"
    other.write_text(base64.b64encode(os.urandom(48)).decode())
    assert bootstrap(url, str(other))["status"] == 401
    made = bootstrap(url, keyfile)
    assert made["status"] == 200, made
    client = Client(url, made["api_key"])
    assert client.me["user_role"] == "administrator"
    assert bootstrap(url, keyfile)["status"] == 403


def test_groups_and_lists_through_the_sdk(demo):
    administrator = Client(demo["portal"], demo.account("ada")["api_key"])
    publisher = Client(demo["portal"], demo.account("bo")["api_key"])
    group = administrator.groups.create(name="builders")
    assert [found["name"] for found in administrator.groups.find(prefix="buil")] == ["builders"]
    assert administrator.groups.count() >= 1
    group.members.add(user_guid=publisher.me["guid"])
    assert group.members.count() == 1
    config = {"authorization_uri": "https://example.com/a", "client_id": "c", "client_secret": "s", "scopes": "a", "token_uri": "https://example.com/t"}
    made = administrator.oauth.integrations.create(name="for builders", template="custom", config=config, permissions=[{"group_guid": group["guid"]}])
    assert [entry["group_guid"] for entry in made["permissions"]] == [group["guid"]]
    assert dict(administrator.oauth.integrations.get(made["guid"])) == dict(made)
    names = lambda client: [entry["name"] for entry in client.oauth.integrations.find()]
    assert "for builders" in names(publisher)
    group.members.delete(user_guid=publisher.me["guid"])
    assert "for builders" not in names(publisher)
    made.update(permissions=[])
    assert "for builders" not in names(publisher), "an emptied list stays closed"
    made.update(availability="everyone")
    assert "for builders" in names(publisher)
    made.delete()
    group.delete()
    assert administrator.groups.find(prefix="buil") == []
