"""Starts the demo, and walks viewers through it as a browser without script would."""
import html
import http.server
import json
import os
import pathlib
import re
import subprocess
import threading

import pytest
import requests

# What an app behind the portal has in its environment; the SDK switches on it.
os.environ["POSIT_PRODUCT"] = os.environ["RSTUDIO_PRODUCT"] = "CONNECT"

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TEST_BIN", str(ROOT / "target/debug/valetkey"))
PASSWORD = "valetkey-demo"


class Demo(dict):
    def account(self, username):
        return next(account for account in self["accounts"] if account["username"] == username)

    def key(self, username):
        return {"Authorization": f"Key {self.account(username)['api_key']}"}

    def api(self, path):
        return f"{self['portal']}/__api__/{path}"


@pytest.fixture(scope="session")
def demo():
    process = subprocess.Popen([BINARY, "demo", "--json", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = []
    threading.Thread(target=lambda: log.extend(process.stderr), daemon=True).start()
    yield Demo(json.loads(process.stdout.readline()), log=log)
    process.terminate()
    assert process.wait(40) == 0, "SIGTERM ends the demo cleanly"
    written = "".join(log)
    for secret in ("Authorization", "eyJ", "vk_", "demo-refresh", "demo~"):
        assert secret not in written, f"{secret} stands in the log"


class Viewer:
    """Follows links and sends forms, with cookies; nothing else."""

    def __init__(self, demo, username):
        self.demo, self.username = demo, username
        self.http = requests.Session()
        self.http.headers["Accept"] = "text/html"
        page = self.http.get(f"{demo['portal']}/login")
        self.send(page, {"username": username, "password": PASSWORD})

    def send(self, page, values, form=0):
        """Fills the n-th form of a page and sends it."""
        forms = [part for part in re.findall(r"<form method=\"post\"(.*?)</form>", page.text, re.S) if "/logout" not in part and "/theme" not in part]
        text = forms[form]
        action = html.unescape(re.search(r'action="([^"]*)"', text).group(1))
        hidden = {html.unescape(name): html.unescape(value) for name, value in re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', text)}
        return self.http.post(requests.compat.urljoin(page.url, action), data={**hidden, **values})

    def open(self, url):
        """Opens content, agreeing to whatever is asked on the way."""
        page = self.http.get(url)
        for _ in range(8):
            if "/consents/new" in page.url:
                page = self.send(page, {})
            elif "oauth2/v2.0" in page.url and 'id="password"' in page.text:
                page = self.send(page, {"username": f"{self.username}@example.org", "password": PASSWORD})
            elif 'id="accept"' in page.text:
                page = self.send(page, {"choice": "accept"})
            else:
                return page
        raise AssertionError(f"no way through: {page.url}")


@pytest.fixture(scope="session")
def viewer(demo):
    known = {}

    def make(username):
        if username not in known:
            known[username] = Viewer(demo, username)
        return known[username]

    return make


class App(http.server.BaseHTTPRequestHandler):
    """The least of apps: answers with the headers it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"path": self.path, "headers": self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "app=1; Path=/; Domain=example.org")
        self.send_header("Set-Cookie", "valetkey=stolen; Path=/")
        self.send_header("Clear-Site-Data", '"cookies"')
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def app():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
