"""The proxy beside others, on the same upstream in one run: nginx, Apache with mod_auth_openidc signed in, JupyterHub's
configurable-http-proxy, and ours with session, access and consent checked. Large bodies, WebSockets, memory, and requests while
tokens are exchanged and refreshed.

  proxies.py SECONDS BINARY SOCKETS

SOCKETS is the example `sockets`. Needs nginx, apache2 with libapache2-mod-auth-openidc, wrk, curl, node with the packages of
tests/package.json, and npm for configurable-http-proxy.
"""
import http.client
import json
import os
import pathlib
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import parts

SECONDS, BINARY, SOCKETS = sys.argv[1:4]
ROOT = pathlib.Path(__file__).resolve().parents[2]
UPSTREAM, NGINX, APACHE, CHP, CHP_API, IDP, ECHO = 18711, 18712, 18713, 18714, 18715, 18716, 18717
folder = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
folder.chmod(0o755)
running = []


def start(*command, **options):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    running.append(process)
    return process


def wait(port):
    for _ in range(200):
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=2).connect()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


def tree(pid):
    """A process with all below it."""
    below = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [pid, *(one for child in below for one in tree(int(child)))]


def cpu(pids):
    total = 0.0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except FileNotFoundError:
            pass
    return total


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1))


def wrk(url, pids, headers=()):
    command = ["wrk", "-t", "2", "-c", "32", "-d", f"{SECONDS}s"]
    for header in headers:
        command += ["-H", header]
    before = cpu(pids)
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    used = cpu(pids) - before
    assert "Non-2xx" not in out, f"{url}: {out}"
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), used * 1e6 / int(re.search(r"(\d+) requests in", out).group(1))


def upstream():
    (folder / "up").mkdir()
    (folder / "up").chmod(0o777)
    with open(folder / "large", "wb") as file:
        file.truncate(100 * 2**20)
    (folder / "large").chmod(0o644)
    (folder / "nginx.conf").write_text(f"""
worker_processes 2; daemon off; pid {folder}/pid; error_log /dev/null; worker_rlimit_nofile 30000; user root;
events {{ worker_connections 12000; }}
http {{ access_log off; keepalive_requests 10000000; sendfile on; client_max_body_size 0; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  map $http_upgrade $upgraded {{ default upgrade; "" ""; }}
  upstream app {{ server 127.0.0.1:{UPSTREAM}; keepalive 64; keepalive_requests 10000000; }}
  server {{ listen 127.0.0.1:{UPSTREAM};
    location / {{ return 200 "{'x' * 1024}"; }}
    location /large {{ root {folder}; }}
    location /up/ {{ root {folder}; dav_methods PUT; }} }}
  server {{ listen 127.0.0.1:{NGINX}; proxy_http_version 1.1; proxy_set_header Host $host; proxy_request_buffering off;
    location /ws {{ proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgraded; proxy_read_timeout 1h; proxy_pass http://127.0.0.1:{ECHO}; }}
    location / {{ proxy_set_header Connection ""; proxy_pass http://app; }} }}
}}
""")
    web = start("nginx", "-c", str(folder / "nginx.conf"))
    wait(NGINX)
    workers = tree(web.pid)[1:]
    return workers


def apache():
    """Signed in, by the provider's own pages; the cookie."""
    modules = "/usr/lib/apache2/modules"
    names = ["mpm_event", "authz_core", "authn_core", "authz_user", "auth_openidc", "proxy", "proxy_http"]
    (folder / "apache.conf").write_text("\n".join([
        f"ServerRoot {folder}", "ServerName 127.0.0.1", f"Listen 127.0.0.1:{APACHE}", f"PidFile {folder}/apache.pid", "ErrorLog /dev/null", "User www-data", "Group www-data",
        *(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names),
        "KeepAlive On", "MaxKeepAliveRequests 0", "StartServers 2", "ThreadsPerChild 64", "MaxRequestWorkers 128",
        f"OIDCProviderMetadataURL http://127.0.0.1:{IDP}/.well-known/openid-configuration", "OIDCClientID bench", "OIDCClientSecret a-long-secret-of-the-benchmark",
        f"OIDCRedirectURI http://127.0.0.1:{APACHE}/callback", "OIDCCryptoPassphrase a-passphrase-of-the-benchmark", "OIDCCookieSameSite Off", "OIDCSessionInactivityTimeout 36000",
        "<Location />", "AuthType openid-connect", "Require valid-user", "</Location>",
        f"ProxyPass /callback !", f"ProxyPass / http://127.0.0.1:{UPSTREAM}/ keepalive=On", ""]))
    start("node", str(ROOT / "tests/bench/idp.mjs"), str(IDP), f"http://127.0.0.1:{APACHE}/callback", cwd=ROOT / "tests")
    wait(IDP)
    web = start("apache2", "-f", str(folder / "apache.conf"), "-DFOREGROUND")
    wait(APACHE)
    viewer = parts.Viewer()
    page = viewer.get(f"http://127.0.0.1:{APACHE}/")
    assert page[1].startswith("xxxx"), page[1][:300]
    request = urllib.request.Request(f"http://127.0.0.1:{APACHE}/")
    viewer.jar.add_cookie_header(request)
    return web, request.get_header("Cookie")


def chp():
    place = ROOT / "target/bench-node"
    if not (place / "node_modules/configurable-http-proxy").exists():
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(place), "configurable-http-proxy"], check=True)
    program = start("node", str(place / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"), "--ip", "127.0.0.1", "--port", str(CHP), "--api-port", str(CHP_API), "--default-target", f"http://127.0.0.1:{UPSTREAM}", "--log-level", "error")
    wait(CHP)
    return program


class Portal:
    def __init__(self, here):
        self.here, self.guid = here, here["content"][0]["guid"]
        viewer = parts.Viewer()
        page = viewer.open(here["content"][0]["url"])
        request = urllib.request.Request(page[0])
        viewer.jar.add_cookie_header(request)
        self.cookie, self.url = request.get_header("Cookie"), page[0]
        self.place = urllib.parse.urlsplit(self.url)

    def behind(self, address):
        patch = urllib.request.Request(f"{self.here['portal']}/__api__/v1/content/{self.guid}", json.dumps({"upstream_url": address}).encode(), {"Authorization": f"Key {parts.key(self.here)}"}, method="PATCH")
        urllib.request.urlopen(patch).read()
        time.sleep(0.5)


def rates(portal, pids, workers):
    front, cookie = apache()
    node = chp()
    direct, direct_cpu = wrk(f"http://127.0.0.1:{UPSTREAM}/", workers)
    found = {}
    for turn in range(3):
        for name, url, own, headers in (
            ("nginx `proxy_pass`", f"http://127.0.0.1:{NGINX}/", None, []),
            ("ours: session, access and consent checked", portal.url, pids, [f"Cookie: {portal.cookie}"]),
            ("Apache, mod_auth_openidc, signed in", f"http://127.0.0.1:{APACHE}/", tree(front.pid), [f"Cookie: {cookie}"]),
            ("configurable-http-proxy", f"http://127.0.0.1:{CHP}/", [node.pid], []),
        ):
            rate, micros = wrk(url, own or workers, headers)
            found.setdefault(name, []).append((rate, micros if own else micros - direct_cpu))
    median = {name: (statistics.median(rate for rate, _ in all), statistics.median(micros for _, micros in all)) for name, all in found.items()}
    ours = median["ours: session, access and consent checked"][0]
    print("| proxy | requests/s | CPU µs/request | ours against it | goal |\n| --- | --- | --- | --- | --- |")
    goals = {"nginx `proxy_pass`": "≥ 0.75", "Apache, mod_auth_openidc, signed in": "≥ 4", "configurable-http-proxy": "≥ 8", "ours: session, access and consent checked": "≤ 28 µs"}
    for name, (rate, micros) in median.items():
        print(f"| {name} | {rate:,.0f} | {micros:.1f} | {ours / rate:.2f} | {goals[name]} |")
    print(f"\nMedians of three turns. The upstream directly: {direct:,.0f}/s.\n")


def bodies(portal, pid):
    def curl(url, *more):
        out = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{speed_download} %{speed_upload} %{http_code}", *more, url], capture_output=True, text=True, check=True).stdout.split()
        assert out[2] in ("200", "201", "204"), out
        return max(float(out[0]), float(out[1])) / 2**20

    print("| 100 MB | nginx MB/s | ours MB/s | ratio | goal | memory before / most, MB |\n| --- | --- | --- | --- | --- | --- |")
    for what in ("down", "up"):
        path = "large" if what == "down" else "up/x"
        more = [] if what == "down" else ["-T", str(folder / "large")]
        theirs, mine = [], []
        before, most = memory(pid), 0
        for _ in range(5):
            theirs.append(curl(f"http://127.0.0.1:{NGINX}/{path}", *more))
            mine.append(curl(f"{portal.url}{path}", "-H", f"Cookie: {portal.cookie}", *more))
            most = max(most, memory(pid))
        ratio = statistics.median(mine) / statistics.median(theirs)
        print(f"| {what} | {statistics.median(theirs):,.0f} | {statistics.median(mine):,.0f} | {ratio:.2f} | ≥ 0.8 | {before / 1024:.0f} / {most / 1024:.0f} |")
    print()


def sockets(portal, pid):
    start(SOCKETS, "serve", str(ECHO))
    wait(ECHO)
    portal.behind(f"http://127.0.0.1:{ECHO}")
    place = portal.place
    own = [f"Host: {place.netloc}", f"Origin: {place.scheme}://{place.netloc}", f"Cookie: {portal.cookie}"]
    address = f"127.0.0.1:{place.port}"

    def echo(where, path, fields):
        out = subprocess.run([SOCKETS, "echo", where, path, "32", SECONDS, *fields], capture_output=True, text=True, check=True).stdout.split()
        return int(out[0]), int(out[1])

    theirs, mine = [], []
    for _ in range(3):
        theirs.append(echo(f"127.0.0.1:{NGINX}", "/ws", ["Host: x"]))
        mine.append(echo(address, place.path, own))
    theirs, mine = sorted(theirs)[1], sorted(mine)[1]
    print("| WebSocket echo of 64 bytes, 32 sockets | round trips/s | p99 µs | of nginx | goal |\n| --- | --- | --- | --- | --- |")
    print(f"| nginx | {theirs[0]:,} | {theirs[1]:,} | 1 | |\n| ours | {mine[0]:,} | {mine[1]:,} | {mine[0] / theirs[0]:.2f} | ≥ 0.85 |\n")
    before = memory(pid)
    resting = []
    for _ in range(5):
        resting.append(subprocess.Popen([SOCKETS, "rest", address, place.path, "1000", *own], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in resting:
        assert process.stdout.readline() == "open\n"
    time.sleep(3)
    used = cpu([pid])
    time.sleep(5)
    used = (cpu([pid]) - used) / 5
    after = memory(pid)
    print(f"5,000 sockets at rest: {(after - before) / 5000:.1f} kB each (goal: under 20), {100 * used:.1f} % of one core.\n")
    for process in resting:
        process.communicate("\n")


def storm(portal, here, data):
    """Requests one after the other, idle and while 200 exchanges a second and refreshes go on."""
    portal.behind(f"http://127.0.0.1:{UPSTREAM}")
    place = portal.place

    def latencies(seconds):
        wire = http.client.HTTPConnection("127.0.0.1", place.port)
        took, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            wire.request("GET", place.path, headers={"Host": place.netloc, "Cookie": portal.cookie})
            answer = wire.getresponse()
            answer.read()
            assert answer.status == 200
            took.append(1000 * (time.monotonic() - began))
            time.sleep(0.002)
        took.sort()
        return took[len(took) // 2], took[len(took) * 99 // 100]

    headers = portal_token(portal)
    form = urllib.parse.urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token", "subject_token": headers})
    stop, counts = threading.Event(), {"exchanges": 0, "refreshes": 0, "failed": 0}

    def exchanging():
        wire = http.client.HTTPConnection(urllib.parse.urlsplit(here["portal"]).netloc)
        while not stop.is_set():
            wire.request("POST", "/__api__/v1/oauth/integrations/credentials", form, {"Authorization": f"Key {parts.key(here)}", "Content-Type": "application/x-www-form-urlencoded"})
            answer = wire.getresponse()
            answer.read()
            counts["exchanges"] += 1
            counts["failed"] += answer.status != 200
            time.sleep(0.02)

    def expiring():
        file = sqlite3.connect(data / "valetkey.db", timeout=20, isolation_level=None)
        while not stop.is_set():
            file.execute("UPDATE connections SET access_expires_at = 1000, updated_at = 500")
            file.execute("INSERT INTO changes (process, subjects) VALUES ('test', 'everything')")
            counts["refreshes"] += 1
            time.sleep(0.2)

    latencies(2)
    rows = []
    for _ in range(3):
        stop.clear()
        idle = latencies(float(SECONDS))
        threads = [threading.Thread(target=exchanging, daemon=True) for _ in range(4)] + [threading.Thread(target=expiring, daemon=True)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        loaded = latencies(float(SECONDS))
        stop.set()
        for thread in threads:
            thread.join()
        rows.append((loaded[1] / idle[1], idle, loaded))
    ratio, idle, loaded = sorted(rows)[1]
    print("| a proxied request | p50 ms | p99 ms | p99 of idle | goal |\n| --- | --- | --- | --- | --- |")
    print(f"| idle | {idle[0]:.2f} | {idle[1]:.2f} | 1 | |\n| with exchanges and refreshes | {loaded[0]:.2f} | {loaded[1]:.2f} | {ratio:.2f} | < 2 |\n")
    seconds = 3 * (float(SECONDS) + 0.5)
    print(f"Meanwhile {counts['exchanges'] / seconds:.0f} exchanges and {counts['refreshes'] / seconds:.0f} expiries of every token a second; {counts['failed']} exchanges failed.")


def portal_token(portal):
    """The session token that an app sees."""
    import http.server

    seen = []

    class App(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers["Posit-Connect-User-Session-Token"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    portal.behind(f"http://127.0.0.1:{server.server_port}")
    urllib.request.urlopen(urllib.request.Request(portal.url, headers={"Cookie": portal.cookie})).read()
    server.shutdown()
    portal.behind(f"http://127.0.0.1:{UPSTREAM}")
    return seen[-1]


commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
print(f"Commit {commit}, {os.cpu_count()} cores, {platform.machine()}, {SECONDS} s each, everything on one machine; wrk with 32 connections and 1 KiB.\n")
data = folder / "data"
demo = subprocess.Popen([BINARY, "demo", "--json", "--listen", "127.0.0.1:0", "--data-dir", str(data)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "VALETKEY_LOG": "error"})
running.append(demo)
try:
    here = json.loads(demo.stdout.readline())
    portal = Portal(here)
    workers = upstream()
    portal.behind(f"http://127.0.0.1:{UPSTREAM}")
    wanted = sys.argv[4:] or ["rates", "bodies", "sockets", "storm"]
    if "rates" in wanted:
        rates(portal, [demo.pid], workers)
    if "bodies" in wanted:
        bodies(portal, demo.pid)
    if "sockets" in wanted:
        sockets(portal, demo.pid)
    if "storm" in wanted:
        storm(portal, here, data)
finally:
    for process in reversed(running):
        process.terminate()
    time.sleep(1)
    shutil.rmtree(folder, ignore_errors=True)
