"""Every alert of `valetkey files alerts.yml` fires when its fault is injected into a server that a real Prometheus scrapes, and
none fires before. The dashboard asks only for measures that there are. Needs Debian's prometheus.

The short run leaves out faults that take long; TEST_LONG=1 injects all of them. In the copy of the rules each `for:` is one second, and Prometheus looks every second: what is measured is how long a fault takes to
be seen."""
import contextlib
import http.server
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import yaml

from conftest import BINARY, PASSWORD, ROOT, Viewer
from test_deploy import manifest, packed

RULES = ROOT / "templates/operation/alerts.yml"
DASHBOARD = ROOT / "templates/operation/dashboard.json"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(condition, seconds=60, every=0.2):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every)
    return found


def rules():
    return yaml.safe_load(RULES.read_text())["groups"][0]["rules"]


def test_rules_and_dashboard_ask_for_measures_that_there_are(tmp_path):
    assert subprocess.run(["promtool", "check", "rules", str(RULES)]).returncode == 0
    known = set(re.findall(r'"(valetkey_\w+)"', (ROOT / "src/measures.rs").read_text()))
    expressions = [rule["expr"] for rule in rules()]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        expressions += [target["expr"].replace("$__rate_interval", "1m").replace("$job", "valetkey") for target in panel.get("targets", [])]
    for expression in expressions:
        for name in re.findall(r"valetkey_\w+", expression):
            assert re.sub("_(bucket|sum|count)$", "", name) in known, name
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]}]}))
    assert subprocess.run(["promtool", "check", "rules", str(file)]).returncode == 0


def test_a_backup_is_overdue_after_two_days(tmp_path):
    file = tmp_path / "unit.yml"
    series = [{"series": 'valetkey_backup_age_seconds{instance="a"}', "values": "86400+3600x48"}, {"series": 'valetkey_build_info{instance="a"}', "values": "1+0x48"}]
    alert = {"exp_labels": {"alertname": "ValetkeyBackupOverdue", "severity": "warning", "instance": "a"}, "exp_annotations": next(rule["annotations"] for rule in rules() if rule["alert"] == "ValetkeyBackupOverdue")}
    expected = [{"eval_time": "20h", "alertname": "ValetkeyBackupOverdue", "exp_alerts": []}, {"eval_time": "30h", "alertname": "ValetkeyBackupOverdue", "exp_alerts": [alert]}]
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1h", "tests": [{"interval": "1h", "input_series": series, "alert_rule_test": expected}]}))
    assert subprocess.run(["promtool", "test", "rules", str(file)]).returncode == 0


class Provider(http.server.BaseHTTPRequestHandler):
    """An identity provider that fails as `server.mode` says."""

    def do_GET(self):
        query = dict(part.split("=", 1) for part in self.path.partition("?")[2].split("&") if part)
        if "redirect_uri" not in query:
            return self.send_error(404)
        self.send_response(302)
        self.send_header("Location", f"{requests.utils.unquote(query['redirect_uri'])}?code=c&state={query['state']}")
        self.end_headers()

    def do_POST(self):
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        # What a sign-in brings does not last: the first exchange refreshes.
        is_refresh = "grant_type=refresh_token" in form
        mode = self.server.mode if is_refresh else "ok"
        if mode == "drop":
            self.close_connection = True
            return
        if mode == "lock":
            self.server.lock()
        refusals = {"503": (503, "temporarily_unavailable"), "invalid_client": (401, "invalid_client"), "invalid_grant": (400, "invalid_grant")}
        status, word = refusals.get(mode, (200, None))
        answer = {"error": word} if word else {"access_token": os.urandom(8).hex(), "token_type": "Bearer", "expires_in": 3600 if is_refresh else 2, "refresh_token": os.urandom(8).hex()}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class App(http.server.BaseHTTPRequestHandler):
    """Tells the session token that it gets."""

    def do_GET(self):
        body = (self.headers["Posit-Connect-User-Session-Token"] or "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


class Lab:
    def __init__(self, folder):
        self.folder, port, self.metrics = folder, free_port(), free_port()
        self.portal = f"http://127.0.0.1:{port}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("VALETKEY_") or name == "VALETKEY_RUN_UV"}
        self.settings = {
            **own,
            "VALETKEY_DATA_DIR": str(folder / "data"),
            "VALETKEY_LISTEN": f"127.0.0.1:{port}",
            "VALETKEY_PUBLIC_URL": self.portal,
            "VALETKEY_METRICS_LISTEN": f"127.0.0.1:{self.metrics}",
            "VALETKEY_TRUSTED_PROXIES": "127.0.0.1",
            "VALETKEY_PRIVATE_HOSTS": "127.0.0.1",
            "VALETKEY_RUN_CONTENT": "none",
            "VALETKEY_LOG": "warn",
        }
        self.provider, self.provider_url = serving(Provider)
        self.provider.mode, self.provider.lock = "ok", self.lock
        self.app, self.app_url = serving(App)
        self.locked = None
        self.log = open(folder / "log", "w")
        self.key = self.command("admin", "create", "ada", "--password-stdin", "--api-key", input=PASSWORD).strip()
        self.start()
        self.command("backup", str(folder / "backup.db"))
        for name in ("vera", "viktor", "vito"):
            self.api("POST", "users", username=name, password=PASSWORD, user_role="viewer", email=f"{name}@example.org")
        self.items, self.integrations = {}, {}
        self.prometheus()

    def command(self, *arguments, input=None):
        return subprocess.run([BINARY, *arguments], env=self.settings, input=input, capture_output=True, text=True, check=True).stdout

    def start(self):
        self.server = subprocess.Popen([BINARY, "serve"], env=self.settings, stdout=subprocess.DEVNULL, stderr=self.log)
        wait_for(lambda: self.ping())

    def ping(self):
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.portal}/__ping__", timeout=2).ok

    def stop(self):
        self.server.terminate()
        assert self.server.wait(60) == 0

    def api(self, method, path, data=None, **body):
        answer = requests.request(method, f"{self.portal}/__api__/v1/{path}", headers={"Authorization": f"Key {self.key}"}, json=body or None, data=data, timeout=60)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def sql(self, text, *values):
        with contextlib.closing(sqlite3.connect(self.folder / "data/valetkey.db", timeout=30)) as database, database:
            return database.execute(text, values).fetchall()

    def lock(self):
        """Holds the database's write lock until `unlock`."""
        if self.locked is None:
            self.locked = sqlite3.connect(self.folder / "data/valetkey.db", timeout=30, isolation_level=None, check_same_thread=False)
            self.locked.execute("BEGIN IMMEDIATE")

    def unlock(self):
        if self.locked is not None:
            self.locked.close()
            self.locked = None

    def item(self, name):
        """An item with an integration of its own, and the session tokens of its viewers."""
        integration = self.api(
            "POST", "oauth/integrations", name=name, template="custom",
            config={"client_id": "c", "client_secret": "s", "authorization_uri": f"{self.provider_url}/a", "token_uri": f"{self.provider_url}/t", "scopes": "read"},
        )["guid"]
        item = self.api("POST", "content", name=name, access_type="logged_in", upstream_url=self.app_url)["guid"]
        request = requests.put(f"{self.portal}/__api__/v1/content/{item}/oauth/integrations/associations", headers={"Authorization": f"Key {self.key}"}, json=[{"oauth_integration_guid": integration}])
        assert request.ok, request.text
        tokens = []
        for viewer in ("vera", "viktor", "vito"):
            page = Viewer(self.__dict__, viewer).open(f"{self.portal}/content/{item}/")
            assert page.status_code == 200 and page.text.startswith("ey"), page.text[:300]
            tokens.append(page.text)
        self.provider.mode = "ok"
        # A token that is still good is handed out while its provider fails.
        time.sleep(3)
        return item, integration, tokens

    def exchange(self, token):
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token, "subject_token_type": "urn:posit:connect:user-session-token"}
        return requests.post(f"{self.portal}/__api__/v1/oauth/integrations/credentials", headers={"Authorization": f"Key {self.key}"}, data=form, timeout=60)

    def prometheus(self):
        self.prometheus_url = f"http://127.0.0.1:{(port := free_port())}"
        quick = yaml.safe_load(RULES.read_text())
        for rule in quick["groups"][0]["rules"]:
            if "for" in rule:
                rule["for"] = "1s"
        (self.folder / "rules.yml").write_text(yaml.safe_dump(quick))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self.folder / "rules.yml")],
            "scrape_configs": [{"job_name": "valetkey", "static_configs": [{"targets": [f"127.0.0.1:{self.metrics}"]}]}],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        arguments = [f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
        self.scraper = subprocess.Popen(["prometheus", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def scraped():
            with contextlib.suppress(requests.RequestException):
                return self.ask("valetkey_ready")

        wait_for(scraped)

    def ask(self, expression):
        return requests.get(f"{self.prometheus_url}/api/v1/query", params={"query": expression}, timeout=5).json()["data"]["result"]

    def firing(self):
        alerts = requests.get(f"{self.prometheus_url}/api/v1/alerts", timeout=5).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def close(self):
        self.unlock()
        for process in (self.scraper, self.server):
            process.kill()
            process.wait()
        self.provider.shutdown()
        self.app.shutdown()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alerts")
    made = Lab(folder)
    yield made
    made.close()


# — Faults, each for the alert that it is named after; in the order in which they are injected. —


def provider_paused(lab):
    _, _, tokens = lab.item("paused")
    lab.provider.mode = "503"
    for token in tokens:
        refused = lab.exchange(token)
        assert refused.status_code == 503, refused.text


def provider_refuses_this_portal(lab):
    _, _, tokens = lab.item("refused")
    # One before, so that the counter is there: an increase needs two values.
    lab.provider.mode = "invalid_client"
    lab.exchange(tokens[0])
    wait_for(lambda: lab.ask('valetkey_provider_requests_total{outcome="administrator"}'))
    time.sleep(2)
    lab.exchange(tokens[1])


def grants_lost(lab):
    _, _, tokens = lab.item("lost")
    lab.provider.mode = "drop"
    lab.exchange(tokens[0])
    lab.provider.mode = "invalid_grant"
    wait_for(lambda: (lab.exchange(tokens[0]), lab.sql("SELECT count(*) FROM connections WHERE cause = 'rotation_lost'")[0][0])[1], every=1)


def tokens_wait_for_database(lab):
    _, _, tokens = lab.item("spooled")
    lab.provider.mode = "lock"
    with contextlib.suppress(requests.RequestException):
        lab.exchange(tokens[0])


def database_slow(lab):
    # Still locked: work waits behind work that waits for the lock.
    def write(number):
        with contextlib.suppress(requests.RequestException):
            requests.post(f"{lab.portal}/__api__/v1/groups", headers={"Authorization": f"Key {lab.key}"}, json={"name": f"group {number}"}, timeout=60)

    with ThreadPoolExecutor(96) as pool:
        list(pool.map(write, range(192)))


def not_ready(lab):
    # Still locked: no heartbeat is written for 35 s.
    wait_for(lambda: "ValetkeyNotReady" in lab.firing(), 90)


def secret_expires(lab):
    lab.unlock()
    lab.provider.mode = "ok"
    lab.sql("UPDATE integrations SET secret_expires_at = ? WHERE name = 'lost'", int((time.time() + 3 * 86400) * 1000))


def content_fails(lab):
    wait_for(lambda: requests.get(f"{lab.portal}/__health__", timeout=5).ok)
    item = lab.api("POST", "content", name="dead", access_type="all", upstream_url="http://127.0.0.1:9")["guid"]
    for _ in range(40):
        requests.get(f"{lab.portal}/content/{item}/", timeout=20)
        time.sleep(0.1)


def processes_do_not_start(lab):
    item = lab.api("POST", "content", name="broken")["guid"]
    for number in range(5):
        archive = packed({"app.py": f"raise SystemExit({number})"}, manifest())
        bundle = lab.api("POST", f"content/{item}/bundles", data=archive)["id"]
        task = lab.api("POST", f"content/{item}/deploy", bundle_id=bundle)["task_id"]
        wait_for(lambda: lab.api("GET", f"tasks/{task}?wait=1")["finished"], 120)


def changes_are_slow(lab):
    # Another process writes while this one stands still.
    lab.server.send_signal(signal.SIGSTOP)
    subprocess.run([BINARY, "admin", "link", "vera"], env=lab.settings, capture_output=True, check=True)
    lab.sql("INSERT INTO changes (process, subjects) VALUES ('another', 'everything')")
    time.sleep(3)
    lab.server.send_signal(signal.SIGCONT)
    wait_for(lab.ping)
    time.sleep(2)
    lab.sql("INSERT INTO changes (process, subjects) VALUES ('another', 'everything')")


def passwords_queue(lab):
    def sign_in(number):
        browser = requests.Session()
        browser.headers.update({"Accept": "text/html", "X-Forwarded-For": f"10.{number % 250}.{number // 250}.1"})
        with contextlib.suppress(requests.RequestException):
            page = browser.get(f"{lab.portal}/login", timeout=60)
            token = re.search(r'name="csrf" value="([^"]*)"', page.text).group(1)
            browser.post(f"{lab.portal}/login", data={"csrf": token, "username": f"nobody{number}", "password": "wrong password"}, timeout=120)

    pool = ThreadPoolExecutor(200)
    for number in range(400):
        pool.submit(sign_in, number)
    wait_for(lambda: "ValetkeyPasswordsQueue" in lab.firing(), 120)
    pool.shutdown(wait=True, cancel_futures=True)


def leak_alarm(lab):
    item, _, tokens = lab.item("leaking")
    wait_for(lambda: lab.sql("SELECT count(*) FROM visits WHERE content = ?", item)[0][0], 60)
    lab.sql("UPDATE visits SET here = FALSE, seen_at = seen_at - 1200000, since = since - 1200000 WHERE content = ?", item)
    assert lab.exchange(tokens[0]).ok


def disk_low(lab):
    """A data folder on a disk of its own, that fills."""
    if os.geteuid():
        pytest.skip("only root makes a disk")
    lab.stop()
    disk = lab.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "valetkey-test", str(disk)], check=True)
    lab.mounted = disk
    before = lab.settings["VALETKEY_DATA_DIR"]
    lab.settings["VALETKEY_DATA_DIR"] = str(disk / "data")
    lab.start()
    (disk / "filler").write_bytes(os.urandom(84 << 20))
    wait_for(lambda: "ValetkeyDiskLow" in lab.firing(), 60)
    lab.server.kill()
    lab.server.wait()
    subprocess.run(["umount", "-l", str(disk)], check=True)
    lab.settings["VALETKEY_DATA_DIR"] = before
    lab.start()


def backup_overdue(lab):
    # As if none had ever been written.
    lab.sql("DELETE FROM meta WHERE name = 'backed_up_at'")


def audit_log_changed(lab):
    lab.stop()
    lab.sql("UPDATE audit SET detail = 'nothing' WHERE number = (SELECT min(number) FROM audit WHERE block > 0)")
    lab.start()


def down(lab):
    lab.server.kill()
    lab.server.wait()


# Those that take long to be seen.
LONG = {tokens_wait_for_database, database_slow, not_ready, passwords_queue, leak_alarm, processes_do_not_start, disk_low}
FAULTS = [provider_paused, provider_refuses_this_portal, grants_lost, tokens_wait_for_database, database_slow, not_ready, secret_expires, content_fails, processes_do_not_start, changes_are_slow, passwords_queue, leak_alarm, disk_low, backup_overdue, audit_log_changed, down]


def alert_of(fault):
    return "Valetkey" + "".join(word.capitalize() for word in fault.__name__.split("_"))


def test_each_alert_fires_when_its_fault_is_there(lab):
    assert {alert_of(fault) for fault in FAULTS} == {rule["alert"] for rule in rules()}, "each rule has a fault"
    time.sleep(5)
    assert lab.firing() == set(), "nothing is wrong yet"
    table = []
    for fault in FAULTS:
        if fault in LONG and not os.environ.get("TEST_LONG"):
            continue
        alert = alert_of(fault)
        started = time.monotonic()
        fault(lab)
        injected = time.monotonic()
        # Those that a fault waits for itself may be over again.
        if fault not in (not_ready, passwords_queue, disk_low):
            wait_for(lambda: alert in lab.firing(), 120)
        table.append(f"| {alert} | {fault.__name__.replace('_', ' ')} | {time.monotonic() - injected:.0f} s after {injected - started:.0f} s |")
        print(table[-1], flush=True)
        lab.provider.mode = "ok" if lab.locked is None else lab.provider.mode
