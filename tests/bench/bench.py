"""Measures the exchange against an empty handler, the proxy against nginx, start-up and memory. One upstream, one run."""
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import parts

SECONDS, BINARY = sys.argv[1], sys.argv[2]
CONNECTIONS = "32"


def wrk(url, script=None, headers=(), pid=None):
    command = ["wrk", "-t", "2", "-c", CONNECTIONS, "-d", f"{SECONDS}s"]
    for header in headers:
        command += ["-H", header]
    if script:
        command += ["-s", script]
    before = cpu(pid) if pid else 0
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    used = cpu(pid) - before if pid else 0
    assert "Non-2xx" not in out, out
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    total = int(re.search(r"(\d+) requests in", out).group(1))
    return rate, (used * 1e6 / total if pid else None)


def cpu(pid):
    total = 0.0
    pids = [pid] if not isinstance(pid, list) else pid
    for one in pids:
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


folder = pathlib.Path(tempfile.mkdtemp())
with parts.upstream() as workers, parts.demo(BINARY) as here:
    idle, pid, key = memory(here["pid"]), here["pid"], parts.key(here)
    cookie, url = parts.open_content(here)
    answer = urllib.request.urlopen(urllib.request.Request(url, headers={"Cookie": cookie}))
    token = answer.headers["X-Token"]
    script = folder / "exchange.lua"
    form = urllib.parse.urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token", "subject_token": token})
    script.write_text(f'wrk.method="POST"\nwrk.body="{form}"\nwrk.headers["Authorization"]="Key {key}"\nwrk.headers["Content-Type"]="application/x-www-form-urlencoded"\n')
    empty, empty_cpu = wrk(f"{here['portal']}/__ping__", pid=pid)
    exchange, exchange_cpu = wrk(f"{here['portal']}/__api__/v1/oauth/integrations/credentials", str(script), pid=pid)
    direct, direct_cpu = wrk(parts.APP, pid=workers)
    plain, plain_cpu = wrk(parts.PLAIN, pid=workers)
    ours, ours_cpu = wrk(url, headers=[f"Cookie: {cookie}"], pid=pid)
    loaded = memory(pid)

settings = {**os.environ, "VALETKEY_DATA_DIR": str(folder / "data"), "VALETKEY_LISTEN": "127.0.0.1:18703", "VALETKEY_LOG": "error"}
subprocess.run([BINARY, "admin", "create", "a", "--password-stdin"], input="long enough\n", text=True, env=settings, check=True, capture_output=True)
began = time.monotonic()
server = subprocess.Popen([BINARY, "serve"], env=settings, stdout=subprocess.DEVNULL)
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:18703/login").read()
        break
    except OSError:
        time.sleep(0.005)
started = time.monotonic() - began
time.sleep(1)
serving = memory(server.pid)
server.terminate()
server.wait(40)

commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
print(f"Commit {commit}, {os.cpu_count()} cores, {platform.machine()}, wrk with {CONNECTIONS} connections for {SECONDS} s each, everything on one machine.\n")
print("| what | requests/s | CPU µs/request | ratio | goal |")
print("| --- | --- | --- | --- | --- |")
print(f"| empty handler (`/__ping__`) | {empty:,.0f} | {empty_cpu:.1f} | 1 | |")
print(f"| exchange, live token, everything checked | {exchange:,.0f} | {exchange_cpu:.1f} | {exchange / empty:.2f} of the empty handler | ≥ 0.5 |")
print(f"| upstream directly (nginx, 1 KiB) | {direct:,.0f} | {direct_cpu:.1f} | | |")
print(f"| nginx `proxy_pass` | {plain:,.0f} | {plain_cpu - direct_cpu:.1f} (without the upstream) | 1 | |")
print(f"| our proxy, session, access and consent checked | {ours:,.0f} | {ours_cpu:.1f} | {ours / plain:.2f} of nginx | ≥ 0.5 |")
print(f"\nStart to first page on an existing database: {started:.2f} s (goal: under 1). Idle memory: `serve` {serving:.0f} MB, the whole demo {idle:.0f} MB (goal: under 50), after the load {loaded:.0f} MB.")
