"""Notifications reach people: a real mail server (aiosmtpd, with TLS and a password) and real webhook receivers, of which one
checks signatures with the library of the specification, one fails, and one hangs."""
import email
import email.policy
import html
import http.server
import json
import os
import re
import sqlite3
import subprocess
import ssl
import threading
import time

import pytest
import requests
import standardwebhooks
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from conftest import BINARY, PASSWORD, Viewer
from servers import free_port, wait_for

FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"


def certificate_of(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


class Mailbox:
    """A mail server that takes mail over STARTTLS with a password."""

    def __init__(self, context):
        self.taken = []
        self.controller = Controller(
            self,
            hostname="127.0.0.1",
            port=free_port(),
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=lambda server, session, envelope, mechanism, data: AuthResult(success=(data.login, data.password) == (b"portal", b"mail-secret"), handled=False),
        )
        self.controller.start()
        self.port = self.controller.port

    async def handle_DATA(self, server, session, envelope):
        if "full@example.org" in envelope.rcpt_tos:
            return "452 mailbox full"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.taken.append((envelope.rcpt_tos[0], mail["subject"], mail.get_content(), mail["message-id"]))
        return "250 OK"

    def to(self, address):
        return [mail for mail in self.taken if mail[0] == address]


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what it gets; fails at /failing, and hangs at /hanging."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        path = self.path.partition("?")[0]
        if path == "/hanging":
            self.server.stop.wait(60)
            return
        self.send_response(500 if path == "/failing" else 200)
        # So that TLS needs no end of its own to tell where the answer ends.
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


class Portal(dict):
    def __init__(self, folder, mailbox):
        self.folder, self.log = folder, open(folder / "log", "a+")
        port = free_port()
        own = {name: value for name, value in os.environ.items() if not name.startswith("VALETKEY_")}
        self.settings = {
            **own,
            "VALETKEY_DATA_DIR": str(folder / "data"),
            "VALETKEY_LISTEN": f"127.0.0.1:{port}",
            "VALETKEY_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "VALETKEY_LOG": "info",
            "VALETKEY_RUN_CONTENT": "off",
            "VALETKEY_PRIVATE_HOSTS": "localhost",
            "VALETKEY_CA_FILE": str(folder / "ca.pem"),
            "VALETKEY_SMTP_HOST": "localhost",
            "VALETKEY_SMTP_PORT": str(mailbox.port),
            "VALETKEY_SMTP_USER": "portal",
            "VALETKEY_SMTP_PASSWORD": "mail-secret",
            "VALETKEY_MAIL_FROM": "Valetkey <portal@example.org>",
        }
        super().__init__(portal=f"http://127.0.0.1:{port}")
        made = self.command("admin", "create", "ada", "--password-stdin", "--api-key", "--email", "ada@example.org", input=PASSWORD)
        self.key = made.stdout.strip()
        self.start()

    def command(self, *arguments, input=None, **more):
        return subprocess.run([BINARY, *arguments], env={**self.settings, **more}, input=input, capture_output=True, text=True, check=True)

    def start(self, **more):
        self.process = subprocess.Popen([BINARY, "serve"], env={**self.settings, **more}, stdout=subprocess.DEVNULL, stderr=self.log)

        def answers():
            try:
                return requests.get(f"{self['portal']}/__ping__", timeout=2).ok
            except requests.RequestException:
                return False

        wait_for(answers)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(40) == 0

    def api(self, method, path, **json_body):
        answer = requests.request(method, f"{self['portal']}/__api__/v1/{path}", headers={"Authorization": f"Key {self.key}"}, json=json_body or None)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def sql(self, text, *values):
        with sqlite3.connect(self.folder / "data/valetkey.db", timeout=30) as database:
            return database.execute(text, values).fetchall()


def post(browser, path, form, at="/notifications"):
    """Sends the form of a page whose action is `path`, with these values."""
    page = browser.http.get(browser.demo["portal"] + at)
    text = next(part for part in re.findall(r"<form[^>]*method=\"post\".*?</form>", page.text, re.S) if f'action="{path}"' in part)
    hidden = [(html.unescape(name), html.unescape(value)) for name, value in re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', text)]
    return browser.http.post(browser.demo["portal"] + path, data=[*hidden, *form])


def browser_of(portal, name, agent):
    viewer = Viewer.__new__(Viewer)
    viewer.demo, viewer.username, viewer.http = portal, name, requests.Session()
    viewer.http.headers.update({"Accept": "text/html", "User-Agent": agent})
    viewer.send(viewer.http.get(f"{portal['portal']}/login"), {"username": name, "password": PASSWORD})
    return viewer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notifications")
    # Mail server and receiver have certificates of the company's own authority, the one in `ca_file`.
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = certificate_of(authority)
    mailbox = Mailbox(context)
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True, do_handshake_on_connect=False)
    receiver.daemon_threads = True
    receiver.got, receiver.stop = [], threading.Event()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    portal = Portal(folder, mailbox)
    yield portal, mailbox, receiver
    receiver.stop.set()
    portal.stop()
    mailbox.controller.stop()
    receiver.shutdown()
    log = (folder / "log").read_text()
    assert "mail-secret" not in log and "whsec_" not in log, "a secret stands in the log"


def test_a_mail_and_a_signed_call_arrive_whatever_other_receivers_do(world):
    portal, mailbox, receiver = world
    ada = browser_of(portal, "ada", FIREFOX)
    page = post(ada, "/notifications/test", [])
    assert "A test goes to ada@example.org" in page.text
    to, subject, text, message_id = wait_for(lambda: mailbox.to("ada@example.org"))[0]
    assert subject == "A test of notifications" and f"{portal['portal']}/notifications" in text and message_id.endswith("@example.org>")

    base = f"https://localhost:{receiver.server_port}"
    keys = {}
    for name in ("hanging", "failing", "good"):
        shown = post(ada, "/notifications/webhooks", [("name", name), ("url", f"{base}/{name}?secret=abc"), ("kinds", "new_device"), ("kinds", "access_requested")])
        keys[name] = re.search(r"whsec_[A-Za-z0-9+/=]+", html.unescape(shown.text)).group(0)
    page = ada.http.get(f"{portal['portal']}/notifications").text
    assert "secret=abc" not in page and "whsec_" not in page, "what is secret is shown once"
    assert "Enter a name" in post(ada, "/notifications/webhooks", [("name", ""), ("url", "ftp://x"), ("kinds", "new_device")]).text

    # A second browser: told by mail, and to all three.
    browser_of(portal, "ada", CHROME)
    path, headers, body = wait_for(lambda: [got for got in receiver.got if got[0] == "/good?secret=abc"])[0]
    checked = standardwebhooks.Webhook(keys["good"]).verify(body, headers)
    assert checked["type"] == "new_device" and "Chrome on Linux" in checked["data"]["title"]
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(keys["failing"]).verify(body, headers)
    wait_for(lambda: [mail for mail in mailbox.to("ada@example.org") if "Chrome on Linux" in mail[1]])
    wait_for(lambda: [got for got in receiver.got if got[0].startswith("/failing")])
    page = wait_for(lambda: (text := ada.http.get(f"{portal['portal']}/notifications").text) and "Tried 1 times" in text and "it answered 500" in text and text)
    assert "Delivered" in page
    # The one that hangs is waited for by nobody else.
    started = time.monotonic()
    count = len(receiver.got)
    post(ada, re.search(r"(/notifications/webhooks/[0-9a-f-]+/test)(?!.*/test)", page, re.S).group(1), [])
    wait_for(lambda: [got for got in receiver.got[count:] if json.loads(got[2])["type"] == "test"])
    print(f"a test call beside one that hangs: {time.monotonic() - started:.1f} s")
    assert time.monotonic() - started < 8
    # A known browser is no news.
    told = len(mailbox.to("ada@example.org"))
    browser_of(portal, "ada", CHROME)
    time.sleep(4)
    assert len(mailbox.to("ada@example.org")) == told


def test_administrators_choose_and_people_switch_off(world):
    portal, mailbox, _ = world
    portal.api("POST", "users", username="pia", password=PASSWORD, email="pia@example.org", user_role="publisher")
    portal.api("POST", "users", username="vito", password=PASSWORD, email="vito@example.org", user_role="viewer")
    ada, pia, vito = (browser_of(portal, name, FIREFOX) for name in ("ada", "pia", "vito"))
    pia_id = portal.sql("SELECT guid FROM people WHERE username = 'pia'")[0][0]
    refused = post(ada, "/notifications", [("mailed", "access_requested"), ("addresses_access_requested", "no-address")])
    assert "no-address is no mail address" in refused.text and refused.status_code == 422
    saved = post(ada, "/notifications", [("mailed", "access_requested"), ("addresses_access_requested", "team@example.org, full@example.org")])
    assert "Saved who is told what" in saved.text
    item = portal.api("POST", "content", name="numbers", title="Numbers", owner_guid=pia_id)["guid"]
    portal.sql("UPDATE content SET owner = ? WHERE guid = ?", pia_id, item)
    asked = post(vito, f"/access/{item}", [], at=f"/access/{item}")
    assert asked.ok
    for address in ("pia@example.org", "team@example.org"):
        assert wait_for(lambda: mailbox.to(address))[0][1] == "vito asks to open Numbers"
    wait_for(lambda: "452" in ada.http.get(f"{portal['portal']}/notifications").text)
    # New devices are not mailed any more, and vito wants none at all.
    browser_of(portal, "pia", CHROME)
    switched = post(vito, "/account/mail", [], at="/account")
    assert "You get no mail any more" in switched.text
    wait_for(lambda: portal.sql("SELECT count(*) FROM notices WHERE kind = 'new_device' AND spread")[0][0] >= 2)
    assert [mail[1] for mail in mailbox.to("pia@example.org")] == ["vito asks to open Numbers"]


def test_what_nobody_does_is_found_at_the_next_look(world):
    portal, mailbox, _ = world
    portal.api(
        "POST",
        "oauth/integrations",
        name="Warehouse",
        template="custom",
        config={"client_id": "c", "client_secret": "s", "authorization_uri": "https://idp.example.org/a", "token_uri": "https://idp.example.org/t"},
    )
    ada = browser_of(portal, "ada", FIREFOX)
    post(ada, "/notifications", [("mailed", kind) for kind in ("secret_expiring", "backup_overdue", "audit_log_changed", "api_key_unused")])
    portal.stop()
    soon, long_ago = int((time.time() + 6 * 86400) * 1000), int((time.time() - 200 * 86400) * 1000)
    portal.sql("UPDATE integrations SET secret_expires_at = ?", soon)
    portal.sql("UPDATE people SET created_at = ?", long_ago)
    portal.sql("INSERT INTO api_keys (person, name, role, key_hash, created_at) SELECT guid, 'forgotten', 'viewer', 'x', ? FROM people WHERE username = 'ada'", long_ago)
    portal.sql("UPDATE audit SET detail = 'nothing happened' WHERE number = (SELECT min(number) FROM audit WHERE block IS NOT NULL)")
    portal.start()
    wanted = {
        "Warehouse: the client secret ends within 7 days",
        "There is no backup of the last two days",
        "The audit log was changed",
        "Your API key forgotten was not used for 180 days",
    }
    wait_for(lambda: wanted <= {mail[1] for mail in mailbox.to("ada@example.org")})


def test_a_wrong_password_of_the_mail_server_is_said_and_found_by_the_doctor(world):
    portal, mailbox, _ = world
    portal.stop()
    portal.start(VALETKEY_SMTP_PASSWORD="another")
    ada = browser_of(portal, "ada", FIREFOX)
    told = len(mailbox.taken)
    post(ada, "/notifications/test", [])
    wait_for(lambda: "535" in ada.http.get(f"{portal['portal']}/notifications").text)
    assert len(mailbox.taken) == told
    report = subprocess.run([BINARY, "doctor", "--json"], env={**portal.settings, "VALETKEY_SMTP_PASSWORD": "another"}, capture_output=True, text=True)
    found = {line["code"]: line for line in json.loads(report.stdout)}
    assert found["mail"]["verdict"] == "bad" and found["mail"]["setting"] == "smtp_host", report.stdout
    report = subprocess.run([BINARY, "doctor", "--json"], env=portal.settings, capture_output=True, text=True)
    found = {line["code"]: line for line in json.loads(report.stdout)}
    assert found["mail"]["verdict"] == "good", report.stdout
    assert found["webhook"]["verdict"] in ("good", "warning", "bad")
