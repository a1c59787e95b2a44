"""`valetkey apply` and `valetkey export`: a portal is brought to the state that a file describes, a second run changes nothing,
an export describes what is there. APPLY_SIZE multiplies what is described (30: 300 integrations and 1,000 items)."""
import os
import sqlite3
import subprocess
import time
import tomllib

import pytest
import requests

from conftest import BINARY, PASSWORD
from servers import free_port

SIZE = int(os.environ.get("APPLY_SIZE", "1"))


class Portal:
    def __init__(self, folder):
        self.folder, port = folder, free_port()
        self.url = f"http://127.0.0.1:{port}"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("VALETKEY_", "CONNECT_"))}
        self.settings = {**own, "VALETKEY_DATA_DIR": str(folder / "data"), "VALETKEY_LISTEN": f"127.0.0.1:{port}", "VALETKEY_PUBLIC_URL": self.url, "VALETKEY_LOG": "warn", "VALETKEY_RUN_CONTENT": "off", "VALETKEY_PRIVATE_HOSTS": "127.0.0.1"}
        made = subprocess.run([BINARY, "admin", "create", "ada", "--password-stdin", "--api-key"], env=self.settings, input=PASSWORD, capture_output=True, text=True, check=True)
        self.key = made.stdout.strip()
        self.process = subprocess.Popen([BINARY, "serve"], env=self.settings, stdout=subprocess.DEVNULL)
        self.client = {**own, "CONNECT_SERVER": self.url, "CONNECT_API_KEY": self.key, "WAREHOUSE_SECRET": "first-secret"}
        end = time.monotonic() + 30
        while True:
            try:
                requests.get(f"{self.url}/__ping__", timeout=2)
                break
            except requests.RequestException:
                assert time.monotonic() < end
                time.sleep(0.1)
        for name, role in (("pia", "publisher"), ("vito", "viewer"), ("vera", "viewer")):
            self.api("POST", "users", username=name, password=PASSWORD, user_role=role)

    def api(self, method, path, **body):
        answer = requests.request(method, f"{self.url}/__api__/v1/{path}", headers={"Authorization": f"Key {self.key}"}, json=body or None)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def run(self, *arguments, **more):
        return subprocess.run([BINARY, *arguments], env={**self.client, **more}, capture_output=True, text=True)

    def apply(self, text, *arguments, **more):
        path = self.folder / "portal.toml"
        path.write_text(text)
        done = self.run("apply", str(path), *arguments, **more)
        assert done.returncode == 0, done.stderr
        assert "first-secret" not in done.stdout and "second-secret" not in done.stdout
        return done.stdout

    def audit_records(self):
        with sqlite3.connect(self.folder / "data/valetkey.db") as database:
            return database.execute("SELECT count(*) FROM audit WHERE action NOT LIKE 'sign_in%'").fetchone()[0]


@pytest.fixture
def portal(tmp_path):
    made = Portal(tmp_path)
    yield made
    made.process.terminate()
    assert made.process.wait(40) == 0


DESCRIBED = """
[[group]]
name = "analysts"
members = ["vito", "vera"]

[[integration]]
name = "Warehouse"
template = "custom"
description = "Everything about sales."
may_choose = ["pia", "group:analysts"]
client_secret = { env = "WAREHOUSE_SECRET" }
[integration.config]
client_id = "c"
authorization_uri = "https://idp.example.org/authorize"
token_uri = "https://idp.example.org/token"
scopes = "read"

[[content]]
name = "sales"
owner = "pia"
title = "Sales"
access_type = "acl"
processes = ["http://127.0.0.1:9"]
viewers = ["group:analysts"]
editors = ["ada"]
integrations = ["Warehouse"]
"""


def test_a_file_is_applied_once_and_then_nothing_changes(portal):
    tried = portal.apply(DESCRIBED, "--dry-run")
    assert tried.endswith("Would be: 3 added, 0 changed, 0 deleted, 0 as described.\n"), tried
    assert "+ group analysts" in tried and "client_secret: changed" in tried
    assert portal.api("GET", "content") == [], "a dry run changes nothing"
    assert portal.apply(DESCRIBED).endswith("3 added, 0 changed, 0 deleted, 0 as described.\n")
    item = portal.api("GET", "content")[0]
    assert (item["title"], item["access_type"], item["upstream_url"]) == ("Sales", "acl", "http://127.0.0.1:9/")
    people = {person["guid"]: person["username"] for person in portal.api("GET", "users")["results"]}
    assert people[item["owner_guid"]] == "pia"
    roles = {entry["principal_type"]: entry["role"] for entry in portal.api("GET", f"content/{item['guid']}/permissions")}
    assert roles == {"group": "viewer", "user": "owner"}
    attached = portal.api("GET", f"content/{item['guid']}/oauth/integrations/associations")
    assert [one["oauth_integration_name"] for one in attached] == ["Warehouse"]

    before = portal.audit_records()
    assert portal.apply(DESCRIBED) == "0 added, 0 changed, 0 deleted, 3 as described.\n"
    assert portal.audit_records() == before, "a second run writes nothing"

    # One field, a list, a secret.
    changed = DESCRIBED.replace("Everything about sales.", "All sales.").replace('["vito", "vera"]', '["vera", "pia"]').replace('editors = ["ada"]', 'editors = ["group:analysts"]').replace('viewers = ["group:analysts"]', "viewers = []")
    said = portal.apply(changed, WAREHOUSE_SECRET="second-secret")
    for line in ("members: +pia -vito", 'description: "Everything about sales." → "All sales."', "client_secret: changed", "editors: +group:analysts -ada", "viewers: -group:analysts"):
        assert line in said, said
    assert portal.apply(changed, WAREHOUSE_SECRET="second-secret") == "0 added, 0 changed, 0 deleted, 3 as described.\n"
    assert "client_secret: changed" in portal.apply(changed, "--dry-run")

    # Deletes only when asked.
    rest = changed[: changed.index("[[content]]")]
    assert portal.apply(rest, WAREHOUSE_SECRET="second-secret").endswith("0 deleted, 2 as described.\n")
    assert "- content sales of pia" in portal.apply(rest, "--delete", "--dry-run", WAREHOUSE_SECRET="second-secret")
    assert len(portal.api("GET", "content")) == 1
    assert portal.apply(rest, "--delete", WAREHOUSE_SECRET="second-secret").endswith("1 deleted, 2 as described.\n")
    assert portal.api("GET", "content") == []


def test_an_export_describes_what_is_there(portal):
    portal.apply(DESCRIBED)
    exported = portal.run("export")
    assert exported.returncode == 0, exported.stderr
    assert "first-secret" not in exported.stdout
    described = tomllib.loads(exported.stdout)
    assert described["integration"][0]["config"]["client_id"] == "c"
    assert portal.apply(exported.stdout, "--delete") == "0 added, 0 changed, 0 deleted, 3 as described.\n"
    # Into an empty portal: what is missing is said.
    secret = exported.stdout.replace('template = "custom"', 'template = "custom"\nclient_secret = { env = "WAREHOUSE_SECRET" }')
    for one in portal.api("GET", "content"):
        portal.api("DELETE", f"content/{one['guid']}")
    for one in portal.api("GET", "oauth/integrations"):
        portal.api("DELETE", f"oauth/integrations/{one['guid']}")
    assert portal.apply(secret).endswith("2 added, 0 changed, 0 deleted, 1 as described.\n")
    assert portal.run("export").stdout == exported.stdout


@pytest.mark.parametrize(
    "text, said",
    [
        ("[[group]]\nname = 'a'\nmembres = []\n", "membres"),
        ("[[group]]\nname = 'a'\n[[group]]\nname = 'a'\n", "group a is described twice"),
        ("[[group]]\nname = 'a'\nmembers = ['nobody']\n", "nobody has the user name nobody"),
        ("[[integration]]\nname = 'a'\ntemplate = 'custom'\nclient_secret = { env = 'NOT_SET' }\n", "the variable NOT_SET is not set"),
        ("[[integration]]\nname = 'a'\ntemplate = 'custom'\n", "(400)"),
        ("[[content]]\nname = 'a'\nintegrations = ['missing']\n", "there is no integration called missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(portal, text, said):
    path = portal.folder / "portal.toml"
    path.write_text(text)
    refused = portal.run("apply", str(path))
    assert refused.returncode == 1 and said in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
    unknown = portal.run("apply", str(path), CONNECT_API_KEY="wrong") if said != "membres" and "twice" not in said else None
    assert unknown is None or "does not know this API key" in unknown.stderr


def test_many_are_applied_and_a_second_run_changes_nothing(portal):
    integrations = "".join(
        f"[[integration]]\nname = 'integration {number}'\ntemplate = 'custom'\nclient_secret = {{ env = 'WAREHOUSE_SECRET' }}\n[integration.config]\nclient_id = 'c'\nauthorization_uri = 'https://idp.example.org/authorize'\ntoken_uri = 'https://idp.example.org/token'\n"
        for number in range(10 * SIZE)
    )
    content = "".join(
        f"[[content]]\nname = 'item-{number}'\ntitle = 'Item {number}'\nprocesses = ['http://127.0.0.1:9']\nviewers = ['vera']\nintegrations = ['integration {number % (10 * SIZE)}']\n" for number in range(100 * SIZE // 3)
    )
    started = time.monotonic()
    portal.apply(integrations + content)
    first = time.monotonic() - started
    before, started = portal.audit_records(), time.monotonic()
    again = portal.apply(integrations + content)
    second = time.monotonic() - started
    assert again == f"0 added, 0 changed, 0 deleted, {10 * SIZE + 100 * SIZE // 3} as described.\n"
    assert portal.audit_records() == before
    print(f"{10 * SIZE} integrations and {100 * SIZE // 3} items: {first:.1f} s, and {second:.1f} s to find that nothing changes")
