"""Two builds side by side, in turns: CPU per proxied request and per exchange of each.

python3 compare.py SECONDS BEFORE AFTER
python3 compare.py SECONDS BINARY --metrics    one build without metrics, and with metrics, as Prometheus asks for them

Several processes of each build run in turns: two processes of the same build differ by some percent.
"""
import contextlib
import itertools
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import parts

SECONDS, ROUNDS, PROCESSES = sys.argv[1], 9, 3
# How often Prometheus asks, by default.
SCRAPE = 15
METRICS_PORT = 9188
# Name of a column, binary, whether it has metrics.
VARIANTS = [("without metrics", sys.argv[2], False), ("with metrics", sys.argv[2], True)] if sys.argv[3] == "--metrics" else [("before", sys.argv[2], False), ("after", sys.argv[3], False)]
NAMES = [name for name, _, _ in VARIANTS]


def scrape():
    """As Prometheus does, for as long as this program runs."""
    while True:
        time.sleep(SCRAPE)
        for number in range(PROCESSES):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT + number}/metrics").read()


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(pid, url, *more):
    before = cpu(pid)
    out = subprocess.run(["wrk", "-t", "2", "-c", "32", "-d", f"{SECONDS}s", *more, url], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in out, out
    return (cpu(pid) - before) * 1e6 / int(re.search(r"(\d+) requests in", out).group(1))


taken = {name: {"proxied request": [], "exchange": []} for name in NAMES}
threading.Thread(target=scrape, daemon=True).start()
with contextlib.ExitStack() as stack:
    stack.enter_context(parts.upstream())
    ready = []
    for number, (name, binary, has_metrics) in itertools.product(range(PROCESSES), VARIANTS):
        here = stack.enter_context(parts.demo(binary, *(["--metrics-listen", f"127.0.0.1:{METRICS_PORT + number}"] if has_metrics else [])))
        cookie, url = parts.open_content(here)
        token = urllib.request.urlopen(urllib.request.Request(url, headers={"Cookie": cookie})).headers["X-Token"]
        form = urllib.parse.urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token", "subject_token": token})
        script = pathlib.Path(tempfile.mkdtemp()) / "exchange.lua"
        script.write_text(f'wrk.method="POST"\nwrk.body="{form}"\nwrk.headers["Authorization"]="Key {parts.key(here)}"\nwrk.headers["Content-Type"]="application/x-www-form-urlencoded"\n')
        ready.append((name, here, cookie, url, script))
    for number in range(ROUNDS):
        # The order changes: what runs second finds the machine warm.
        for name, here, cookie, url, script in ready[:: 1 if number % 2 else -1]:
            taken[name]["proxied request"].append(measure(here["pid"], url, "-H", f"Cookie: {cookie}"))
            taken[name]["exchange"].append(measure(here["pid"], f"{here['portal']}/__api__/v1/oauth/integrations/credentials", "-s", str(script)))

print(f"{PROCESSES} processes of each, {ROUNDS} rounds in turns, {SECONDS} s and 32 connections each; CPU µs of the portal's process: median (lowest).\n")
print(f"| what | {NAMES[0]} | {NAMES[1]} | difference of the medians |")
print("| --- | --- | --- | --- |")
for what in ("proxied request", "exchange"):
    before, after = (taken[name][what] for name in NAMES)
    print(f"| {what} | {statistics.median(before):.1f} ({min(before):.1f}) | {statistics.median(after):.1f} ({min(after):.1f}) | {statistics.median(after) - statistics.median(before):+.1f} ({statistics.median(after) / statistics.median(before) - 1:+.1%}) |")
