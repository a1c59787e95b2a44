"""Servers of their own for a test (`valetkey serve`, not the demo), with a provider that signs everybody in."""
import contextlib
import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.parse

import requests
from conftest import BINARY, PASSWORD, Viewer

# In seconds: how long each step may take on a busy machine.
PATIENCE = 120


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(condition, what="it happens", seconds=PATIENCE):
    """What the condition gives once it is true. `what`: what is waited for, or a function that tells it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.1)
    return found


def end(process, patience=40):
    """Ends a process that this test started, also one that is suspended."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Provider(http.server.BaseHTTPRequestHandler):
    """Several providers by the first part of the path. Each signs everybody in, and answers refreshes as its fault says."""

    def do_GET(self):
        name, _, query = self.path.partition("?")
        if not name.endswith("/authorize"):
            return self.send_error(404)
        asked = dict(urllib.parse.parse_qsl(query))
        self.send_response(302)
        self.send_header("Location", f"{asked['redirect_uri']}?{urllib.parse.urlencode({'code': 'x', 'state': asked['state']})}")
        self.end_headers()

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        name = self.path.split("/")[1]
        self.server.asked.append({key.lower(): value for key, value in self.headers.items()})
        fault = self.server.faults.get(name) if form.get("grant_type") == "refresh_token" else None
        answered = fault() if fault else None
        if answered == "nothing":
            # HTTP/1.0: the connection ends with this request.
            return
        life = self.server.lives[name]
        status, body = answered or (200, {"access_token": os.urandom(8).hex(), "refresh_token": os.urandom(8).hex(), "token_type": "Bearer", "expires_in": life})
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


def provider():
    """A provider that works; `faults` and `lives` (of access tokens, in seconds) are by the first part of the path."""
    made = serving(Provider)
    made.faults, made.lives, made.asked = {}, {}, []
    return made


def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Server(dict):
    """`valetkey serve` on a folder of its own, with one administrator."""

    def __init__(self, folder, backup=True, **settings):
        port, self.metrics = free_port(), f"127.0.0.1:{free_port()}"
        super().__init__(portal=f"http://127.0.0.1:{port}")
        folder.mkdir(exist_ok=True)
        self.data, self.log = folder / "data", folder / "log"
        own = {name: value for name, value in os.environ.items() if not name.startswith("VALETKEY_")}
        self.settings = {
            **own,
            "VALETKEY_DATA_DIR": str(self.data),
            "VALETKEY_LISTEN": f"127.0.0.1:{port}",
            "VALETKEY_PUBLIC_URL": self["portal"],
            "VALETKEY_METRICS_LISTEN": self.metrics,
            "VALETKEY_PRIVATE_HOSTS": "127.0.0.1",
            "VALETKEY_LOG": "warn",
            "VALETKEY_RUN_CONTENT": "off",
            **settings,
        }
        self.key = {"Authorization": f"Key {self.administrator('ada')}"}
        if backup:
            self.command("backup", str(folder / "backup"))
        self.process = self.started_at = None
        self.viewers, self.lock = {}, threading.RLock()

    def command(self, *arguments, input=None):
        done = subprocess.run([BINARY, *arguments], env=self.settings, input=input, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def administrator(self, name):
        return self.command("admin", "create", name, "--password-stdin", "--api-key", input=f"{PASSWORD}\n").strip()

    def start(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen([BINARY, "serve"], env=self.settings, stdout=subprocess.DEVNULL, stderr=log)

        def answers():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"{self['portal']}/__ping__", timeout=5).ok

        wait_for(answers, "a server that answers")
        self.started_at = time.monotonic()

    def sql(self, text, *values):
        with contextlib.closing(sqlite3.connect(self.data / "valetkey.db", timeout=30)) as database, database:
            return database.execute(text, values).fetchall()

    def api(self, method, path, body=None):
        answer = requests.request(method, f"{self['portal']}/__api__/v1/{path}", headers=self.key, json=body, timeout=PATIENCE)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def viewer(self, name):
        """A viewer who is signed in. Made once: passwords are checked slowly on a busy machine."""
        with self.lock:
            if name not in self.viewers:
                self.api("POST", "users", {"username": name, "email": f"{name}@example.org", "password": PASSWORD, "user_role": "viewer"})
                self.viewers[name] = Viewer(self, name)
            return self.viewers[name]

    def item(self, name, upstream, **more):
        return self.api("POST", "content", {"name": name, "access_type": "logged_in", "upstream_url": upstream, **more})

    def exchange(self, token, **headers):
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token", "subject_token": token}
        return requests.post(f"{self['portal']}/__api__/v1/oauth/integrations/credentials", data=form, headers={**self.key, **headers}, timeout=PATIENCE)

    def connected(self, provider, app, name, viewers=1, life=1):
        """Viewers of an item who are connected to a provider of that name, whose access tokens live `life` seconds: the integration's
        GUID, the item, and a session token for each viewer."""
        provider.lives[name] = life
        place = f"http://127.0.0.1:{provider.server_port}/{name}"
        config = {"client_id": "c", "client_secret": "s", "authorization_uri": f"{place}/authorize", "token_uri": f"{place}/token", "scopes": "read"}
        made = self.api("POST", "oauth/integrations", {"name": name, "template": "custom", "config": config})
        item = self.item(name, app)
        self.api("PUT", f"content/{item['guid']}/oauth/integrations/associations", [{"oauth_integration_guid": made["guid"]}])
        tokens = []
        for username in ("vera", "viktor", "vito")[:viewers]:
            with self.lock:
                page = self.viewer(username).open(item["content_url"])
            tokens.append({key.lower(): value for key, value in page.json()["headers"]}["posit-connect-user-session-token"])
        return made["guid"], item, tokens
