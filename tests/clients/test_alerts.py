"""Alert rules and dashboard: they parse, they name metrics that exist, and every alert fires.

A real Prometheus scrapes real servers each second. A server that is well raises no alert; then each alert of the file is made
to fire by a fault of its own, all faults at once. The rules are those of `valetkey files alerts.yml`, with every `for` cut to a
second; what `for` and days change is checked by `promtool test rules`. Needs Debian's package prometheus; the fault of the full
disk mounts a small file system, which needs root.
"""
import concurrent.futures
import contextlib
import datetime
import http.client
import http.server
import io
import json
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse

import pytest
import requests
import uv
import yaml
from conftest import ROOT, App, Viewer
from servers import PATIENCE, Server, end, free_port, provider, serving, wait_for

FILES = ROOT / "templates/operation"
RULES = [rule for group in yaml.safe_load((FILES / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
DAY = 86400

pytestmark = pytest.mark.skipif(not (shutil.which("prometheus") and shutil.which("promtool")), reason="needs Debian's package prometheus")


class Prometheus:
    """Scrapes the servers of the job `valetkey`, and evaluates the rules."""

    def __init__(self, folder, cleanup):
        self.url, self.targets, self.lock, self.scraped = f"http://127.0.0.1:{free_port()}", folder / "targets.json", threading.Lock(), []
        folder.mkdir()
        self.write_targets()
        rules = folder / "rules.yml"
        short = [{**rule, **({"for": "1s"} if "for" in rule else {})} for rule in RULES]
        rules.write_text(yaml.safe_dump({"groups": [{"name": "valetkey", "rules": short}]}))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "valetkey", "file_sd_configs": [{"files": [str(self.targets)], "refresh_interval": "1s"}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        place = self.url.removeprefix("http://")
        words = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={place}", "--log.level=warn"]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)
        cleanup.callback(end, self.process)

        def is_ready():
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"{self.url}/-/ready", timeout=5).ok

        wait_for(is_ready, "Prometheus")

    def write_targets(self):
        new = self.targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": self.scraped}]))
        new.rename(self.targets)

    def ask(self, path, **parameters):
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", f"{path} {parameters}: {answer}"
        return answer["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def scrape(self, server):
        """Scrapes this server from now on; returns when it did so three times."""
        with self.lock:
            self.scraped.append(server.metrics)
            self.write_targets()
        wait_for(lambda: self.query(f'sum_over_time(up{{instance="{server.metrics}"}}[1m]) >= 3'), "three scrapes of a server")

    def firing(self, server, alert=None, **labels):
        """The alerts of a server that fire."""
        wanted = {"instance": server.metrics, **({"alertname": alert} if alert else {}), **labels}
        return [found for found in self.ask("alerts")["alerts"] if found["state"] == "firing" and wanted.items() <= found["labels"].items()]


class Laboratory:
    """Everything that the faults need. What it starts ends with it."""

    def __init__(self, folder, cleanup):
        self.folder, self.cleanup, self.seconds = folder, cleanup, {}
        self.prometheus = Prometheus(folder / "prometheus", cleanup)
        self.provider = provider()
        cleanup.callback(self.provider.shutdown)
        app = serving(App)
        cleanup.callback(app.shutdown)
        self.app = f"http://127.0.0.1:{app.server_port}"
        self.well = self.server("well", VALETKEY_RUN_CONTENT="none", VALETKEY_RUN_UV=uv.find_uv_bin())

    def server(self, name, folder=None, **settings):
        """A server that Prometheus scrapes."""
        made = Server(folder or self.folder / name, **settings)
        self.cleanup.callback(lambda: made.process and end(made.process))
        made.start()
        self.prometheus.scrape(made)
        return made

    def connected(self, server, name, **more):
        return server.connected(self.provider, self.app, name, **more)

    def begin(self, alert, server):
        """Waits until an alert does not fire; returns the time, for the fault that follows."""
        wait_for(lambda: not self.prometheus.firing(server, alert), f"{alert} does not fire before its fault")
        return time.monotonic()

    def fires(self, alert, server, since, again=lambda: None, **labels):
        """Waits until an alert fires, and repeats what leads to it meanwhile."""

        def found():
            again()
            return self.prometheus.firing(server, alert, **labels)

        texts = wait_for(found, f"{alert} fires")[0]["annotations"]
        self.seconds[alert] = time.monotonic() - since
        assert set(texts) == {"summary", "action"} and not re.search(r"<no value>|<error|\{\{|NaN", str(texts)), texts

    def ends(self, alert, server):
        wait_for(lambda: not self.prometheus.firing(server, alert), f"{alert} ends with its fault")


# — The faults. Each function leads to the alerts that stand above it, in order. —

FAULTS = {}


def leads_to(**faults):
    def register(run):
        FAULTS.update({alert: (what, run) for alert, what in faults.items()})
        return run

    return register


@leads_to(ValetkeyChangesAreSlow="the server is suspended for 3 s while another process writes", ValetkeyDown="SIGKILL")
def suspended_then_killed(lab):
    server = lab.server("suspended")

    def change():
        server.sql("INSERT INTO changes (process, subjects) VALUES ('another', 'everything')")

    def is_suspended():
        states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()]
        return set(states) == {"T"}

    def suspend():
        server.process.send_signal(signal.SIGSTOP)
        wait_for(is_suspended, "all threads are suspended")
        change()
        time.sleep(3)
        server.process.send_signal(signal.SIGCONT)
        time.sleep(2)

    # Learnt at once. A rate needs a value to begin with.
    change()
    wait_for(lambda: lab.prometheus.query(f'valetkey_invalidation_delay_seconds_count{{instance="{server.metrics}"}}'), "a change is learnt")
    lab.fires("ValetkeyChangesAreSlow", server, lab.begin("ValetkeyChangesAreSlow", server), suspend)
    since = lab.begin("ValetkeyDown", server)
    server.process.kill()
    server.process.wait()
    lab.fires("ValetkeyDown", server, since)


@leads_to(
    ValetkeyDatabaseSlow="another process holds the write lock, again and again for 3 s",
    ValetkeyTokensWaitForDatabase="another process holds the write lock from the answer to a refresh on",
    ValetkeyNotReady="the same, longer than three heartbeats",
)
def locked(lab):
    server = lab.server("locked")
    _, item, [token] = lab.connected(server, "locked")
    database = sqlite3.connect(server.data / "valetkey.db", timeout=30, isolation_level=None, check_same_thread=False)
    held, over = threading.Event(), threading.Event()

    def write(number):
        while not over.is_set():
            with contextlib.suppress(requests.RequestException):
                requests.patch(f"{server['portal']}/__api__/v1/content/{item['guid']}", headers=server.key, json={"title": str(number)}, timeout=30)

    def hold_for_a_while():
        database.execute("BEGIN IMMEDIATE")
        time.sleep(3)
        database.execute("ROLLBACK")

    def hold():
        if not held.is_set():
            database.execute("BEGIN IMMEDIATE")
            held.set()

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        try:
            since = lab.begin("ValetkeyDatabaseSlow", server)
            for number in range(20):
                pool.submit(write, number)
            lab.fires("ValetkeyDatabaseSlow", server, since, hold_for_a_while)
        finally:
            over.set()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        try:
            for alert in ("ValetkeyTokensWaitForDatabase", "ValetkeyNotReady"):
                lab.begin(alert, server)
            lab.provider.faults["locked"] = hold
            pool.submit(server.exchange, token)
            assert held.wait(PATIENCE), "the provider is asked for a refresh"
            since = time.monotonic()
            waiting = [pool.submit(lab.fires, alert, server, since) for alert in ("ValetkeyTokensWaitForDatabase", "ValetkeyNotReady")]
            [alert.result() for alert in waiting]
        finally:
            database.close()
    # Stored by themselves.
    lab.ends("ValetkeyTokensWaitForDatabase", server)
    lab.ends("ValetkeyNotReady", server)


@leads_to(ValetkeyDiskLow="the disk of the data folder is filled")
def full(lab):
    folder = lab.folder / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "valetkey-test", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"the fault of a full disk mounts a small file system, which needs root: {mounted.stderr.strip()}")
    # What is registered first ends last: the server ends before.
    lab.cleanup.callback(lambda: subprocess.run(["umount", str(folder)]).returncode and subprocess.run(["umount", "-l", str(folder)]))
    server = lab.server("full", folder=folder)
    since = lab.begin("ValetkeyDiskLow", server)
    room = shutil.disk_usage(folder).free
    with (folder / "filling").open("wb") as filling:
        for _ in range((room - (8 << 20)) >> 20):
            filling.write(bytes(1 << 20))
    lab.fires("ValetkeyDiskLow", server, since)
    # Less than 64 MiB.
    wait_for(lambda: lab.prometheus.firing(server, "ValetkeyNotReady"), "ValetkeyNotReady fires for a full disk")
    (folder / "filling").unlink()
    lab.ends("ValetkeyDiskLow", server)


@leads_to(ValetkeyGrantsLost="the answer to a refresh is lost, and with it the next refresh token")
def answer_lost(lab):
    _, _, [token] = lab.connected(lab.well, "lost")
    answers = iter(["nothing"])
    lab.provider.faults["lost"] = lambda: next(answers, (400, {"error": "invalid_grant"}))
    since = lab.begin("ValetkeyGrantsLost", lab.well)
    lab.fires("ValetkeyGrantsLost", lab.well, since, lambda: lab.well.exchange(token))


@leads_to(ValetkeyProviderPaused="the provider answers three viewers' refreshes with 503")
def provider_fails(lab):
    integration, _, tokens = lab.connected(lab.well, "failing", viewers=3)
    since = lab.begin("ValetkeyProviderPaused", lab.well)
    lab.provider.faults["failing"] = lambda: (503, {"error": "temporarily_unavailable"})
    lab.fires("ValetkeyProviderPaused", lab.well, since, lambda: [lab.well.exchange(token) for token in tokens], integration=integration)


@leads_to(ValetkeyProviderRefusesThisPortal="the provider answers a refresh with invalid_client")
def client_refused(lab):
    integration, _, [token] = lab.connected(lab.well, "refusing")
    since = lab.begin("ValetkeyProviderRefusesThisPortal", lab.well)
    lab.provider.faults["refusing"] = lambda: (401, {"error": "invalid_client"})
    lab.fires("ValetkeyProviderRefusesThisPortal", lab.well, since, lambda: lab.well.exchange(token), integration=integration)


@leads_to(ValetkeySecretExpires="an administrator enters a secret that ends in five days")
def secret_ends(lab):
    integration, _, _ = lab.connected(lab.well, "expiring", viewers=0)
    ada = Viewer(lab.well, "ada")
    address = f"{lab.well['portal']}/integrations/{integration}/secret"
    token = re.search(r'name="csrf" value="([^"]+)"', ada.http.get(address).text).group(1)
    since = lab.begin("ValetkeySecretExpires", lab.well)
    last = datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=5)
    saved = ada.http.post(address, data={"csrf": token, "client_secret": "another", "secret_expires": last.isoformat()})
    assert "Replaced the secret" in saved.text, saved.text[-3000:]
    lab.fires("ValetkeySecretExpires", lab.well, since, integration=integration)


@leads_to(ValetkeyContentFails="an item whose app does not listen")
def nothing_listens(lab):
    item = lab.well.item("silent", f"http://127.0.0.1:{free_port()}")
    since = lab.begin("ValetkeyContentFails", lab.well)
    lab.fires("ValetkeyContentFails", lab.well, since, lambda: requests.get(item["content_url"], headers=lab.well.key, timeout=PATIENCE))


@leads_to(ValetkeyProcessesDoNotStart="deploys of an app that ends at once")
def app_ends(lab):
    item = lab.well.api("POST", "content", {"name": "ends", "access_type": "logged_in"})
    manifest = {
        "version": 1,
        "metadata": {"appmode": "python-api", "entrypoint": "app"},
        "python": {"version": ".".join(map(str, sys.version_info[:3])), "package_manager": {"name": "none"}},
        "files": {},
    }

    def deploy(code):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, text in (("manifest.json", json.dumps(manifest)), ("app.py", code)):
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
        address = f"{lab.well['portal']}/__api__/v1/content/{item['guid']}/bundles"
        sent = requests.post(address, data=packed.getvalue(), headers={**lab.well.key, "Content-Type": "application/gzip"}, timeout=PATIENCE)
        assert sent.ok, sent.text
        task = lab.well.api("POST", f"content/{item['guid']}/deploy", {"bundle_id": sent.json()["id"]})["task_id"]
        return wait_for(lambda: (found := lab.well.api("GET", f"tasks/{task}")) and found["finished"] and found, "a deploy ends")

    started = deploy("def app(environ, start):\n    start('200 OK', [])\n    return [b'works']\n")
    assert started["code"] == 0, started
    since = lab.begin("ValetkeyProcessesDoNotStart", lab.well)
    lab.fires("ValetkeyProcessesDoNotStart", lab.well, since, lambda: deploy("raise SystemExit(1)\n"))


@leads_to(ValetkeyBackupOverdue="a server of which no backup was ever made", ValetkeyPasswordsQueue="sign-ins from 160 networks at the same time")
def neglected(lab):
    server = lab.server("neglected", backup=False, VALETKEY_TRUSTED_PROXIES="127.0.0.1")
    lab.fires("ValetkeyBackupOverdue", server, server.started_at)
    server.command("backup", str(lab.folder / "late-backup"))
    lab.ends("ValetkeyBackupOverdue", server)

    stranger = requests.Session()
    page = stranger.get(f"{server['portal']}/login", headers={"Accept": "text/html"})
    token = re.search(r'name="csrf" value="([^"]+)"', page.text).group(1)
    cookies = "; ".join(f"{name}={value}" for name, value in stranger.cookies.items())
    place, over = urllib.parse.urlsplit(server["portal"]), threading.Event()

    def guess(number):
        count = 0
        while not over.is_set():
            count += 1
            name = f"stranger-{number}-{count}"
            fields = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookies, "X-Forwarded-For": f"10.1.{number}.{count % 250 + 1}"}
            with contextlib.suppress(OSError, http.client.HTTPException):
                wire = http.client.HTTPConnection(place.netloc, timeout=PATIENCE)
                wire.request("POST", "/login", urllib.parse.urlencode({"csrf": token, "username": name, "password": "wrong"}), fields)
                wire.getresponse().read()
                wire.close()

    with concurrent.futures.ThreadPoolExecutor(160) as pool:
        since = lab.begin("ValetkeyPasswordsQueue", server)
        try:
            for number in range(160):
                pool.submit(guess, number)
            lab.fires("ValetkeyPasswordsQueue", server, since)
        finally:
            over.set()


@leads_to(ValetkeyAuditLogChanged="a sealed record is changed while the server is down", ValetkeyLeakAlarm="an app uses the token of a viewer who left an hour ago")
def changed_behind_its_back(lab):
    server = lab.server("changed")
    _, item, [token] = lab.connected(server, "leaking", life=3600)
    wait_for(lambda: server.sql("SELECT 1 FROM visits WHERE content = ?", item["guid"]), "the visit is recorded")
    wait_for(lambda: server.sql("SELECT 1 FROM audit WHERE block IS NOT NULL"), "the audit log is sealed")
    end(server.process)
    hour_ago = int((time.time() - 3600) * 1000)
    server.sql("UPDATE visits SET since = ?, seen_at = ?", hour_ago - 1000, hour_ago)
    since = lab.begin("ValetkeyAuditLogChanged", server)
    server.sql("UPDATE audit SET detail = 'nothing happened' WHERE number = (SELECT min(number) FROM audit WHERE block IS NOT NULL)")
    server.start()
    used = lab.begin("ValetkeyLeakAlarm", server)
    assert server.exchange(token).ok
    lab.fires("ValetkeyAuditLogChanged", server, since)
    lab.fires("ValetkeyLeakAlarm", server, used)


# — The tests. —


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with contextlib.ExitStack() as cleanup:
        yield Laboratory(tmp_path_factory.mktemp("alerts"), cleanup)


@pytest.fixture(scope="module")
def faults(lab):
    """All faults at once, each in a thread."""
    runs = {run for _, run in FAULTS.values()}
    with concurrent.futures.ThreadPoolExecutor(len(runs)) as pool:
        running = {run: pool.submit(run, lab) for run in runs}
        yield running
    width = max(map(len, FAULTS))
    print(f"\n\n{'alert':{width}}  seconds  fault")
    for alert, (what, _) in FAULTS.items():
        seconds = lab.seconds.get(alert)
        print(f"{alert:{width}}  {'      –' if seconds is None else f'{seconds:7.1f}'}  {what}")


def metrics_in(text):
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bvaletkey_\w+", text)}


def expressions():
    """All expressions of the dashboard, with Grafana's variables filled in."""

    def found(part):
        if isinstance(part, dict):
            yield from [part["expr"]] if "expr" in part else []
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
            yield from found(inner)

    for text in found(DASHBOARD):
        text = text.replace("$job", "valetkey").replace("$__rate_interval", "5m").replace("${datasource}", "prometheus")
        assert "$" not in text, f"an unknown variable: {text}"
        yield text


def promtool(*words):
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules_and_the_expressions_of_the_dashboard(tmp_path):
    assert f"{len(RULES)} rules found" in promtool("check", "rules", FILES / "alerts.yml")
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) and all(rule["labels"]["severity"] in ("critical", "warning") for rule in RULES)
    drawn = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": drawn}]}))
    assert drawn and f"{len(drawn)} rules found" in promtool("check", "rules", tmp_path / "dashboard.yml")


def test_every_fault_belongs_to_a_rule():
    assert set(FAULTS) == {rule["alert"] for rule in RULES}


def test_rules_and_dashboard_name_metrics_that_exist(lab):
    told = metrics_in(requests.get(f"http://{lab.well.metrics}/metrics", timeout=30).text)
    described = metrics_in("".join(re.findall(r'const \w+: &str = (".*?");', (ROOT / "src/measures.rs").read_text())))
    assert len(described) > 20
    for name in ("alerts.yml", "dashboard.json"):
        text = (FILES / name).read_text()
        assert metrics_in(text) and not (unknown := metrics_in(text) - told - described), f"{name}: {unknown}"


def test_what_takes_days_and_minutes(tmp_path):
    """The unchanged rules, with their `for`, on invented values."""
    tests, node = [], {"instance": "a", "job": "valetkey"}
    build, age = ('valetkey_%s{instance="a",job="valetkey"}' % name for name in ("build_info", "backup_age_seconds"))

    def expect(alert, series, *firing, **labels):
        """Whether the alert fires at these times."""
        rule = next(rule for rule in RULES if rule["alert"] == alert)
        texts = {key: re.sub(r"{{ \$labels\.(\w+) }}", lambda name: labels[name.group(1)], text) for key, text in rule["annotations"].items()}
        told = [{"exp_labels": {**rule["labels"], **node, **labels}, "exp_annotations": texts}]
        tests.append({
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": told if fires else []} for at, fires in firing],
        })

    expect("ValetkeyBackupOverdue", {build: "1x200", age: f"{2 * DAY - 3600}+60x200"}, ("59m", False), ("61m", False), ("119m", False), ("125m", True))
    expect("ValetkeyBackupOverdue", {build: "1x200"}, ("59m", False), ("60m", True))
    expect("ValetkeyBackupOverdue", {build: "1x200", age: "0+60x200"}, ("180m", False))
    # A provider that fails slowly: while one request tries it again, the node does not count as paused.
    paused = 'valetkey_provider_paused{instance="a",job="valetkey",integration="i"}'
    expect("ValetkeyProviderPaused", {paused: "1 0 1 1 0 1 0 0 1 0 1 1 0 0 1 0 1 0 1 1 0x30"}, ("9m", False), ("11m", True), ("30m", False), integration="i")
    expect("ValetkeyProviderPaused", {paused: "0 1 1 0x30"}, *((f"{minute}m", False) for minute in range(20)), integration="i")
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": [str(FILES / "alerts.yml")], "tests": tests}))
    promtool("test", "rules", tmp_path / "tests.yml")


def test_a_server_that_is_well_raises_no_alert(lab):
    quiet_since = time.monotonic()
    # The disk of this machine is not the server's fault.
    usage = shutil.disk_usage(lab.folder)
    allowed = {"ValetkeyDiskLow"} if usage.free / usage.total < 0.11 else set()

    def is_quiet():
        nonlocal quiet_since
        if firing := {alert["labels"]["alertname"] for alert in lab.prometheus.firing(lab.well)} - allowed:
            print(f"a server that is well: {firing}")
            quiet_since = time.monotonic()
        return time.monotonic() - quiet_since > 6

    # A scrape that a busy machine delays is an alert, too, and passes.
    wait_for(is_quiet, "six seconds without an alert", 60)
    instance = f'instance="{lab.well.metrics}"'
    assert lab.prometheus.query(f"valetkey_ready{{{instance}}} == 1") and lab.prometheus.query(f"valetkey_backup_age_seconds{{{instance}}} < 3600")


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_each_alert_fires(lab, faults, alert):
    assert alert in FAULTS, f"no fault leads to {alert}"
    _, run = FAULTS[alert]
    concurrent.futures.wait([faults[run]])
    last = [name for name, (_, other) in FAULTS.items() if other is run][-1]
    # What fails after an alert belongs to the next one of the same fault.
    if alert not in lab.seconds or alert == last:
        faults[run].result()
    assert alert in lab.seconds


def test_prometheus_evaluates_all_rules_and_draws_all_panels(lab, faults):
    concurrent.futures.wait(faults.values())
    rules = [rule for group in lab.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    empty = [text for text in expressions() if not lab.prometheus.query(text)]
    assert empty == []
