"""Two builds side by side, in turns: CPU per proxied request and per exchange of each.

python3 compare.py SECONDS BEFORE AFTER
python3 compare.py SECONDS BINARY --metrics    one build without metrics, and with metrics, as Prometheus asks for them
"""
import contextlib
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

SECONDS, ROUNDS = sys.argv[1], 9
# How often Prometheus asks, by default.
SCRAPE = 15
METRICS = "127.0.0.1:9188"
# Name of a column, binary, options.
VARIANTS = [("without metrics", sys.argv[2], []), ("with metrics", sys.argv[2], ["--metrics-listen", METRICS])] if sys.argv[3] == "--metrics" else [("before", sys.argv[2], []), ("after", sys.argv[3], [])]
NAMES = [name for name, _, _ in VARIANTS]


def scrape():
    """As Prometheus does, for as long as this program runs."""
    while True:
        time.sleep(SCRAPE)
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{METRICS}/metrics").read()


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
    for name, binary, options in VARIANTS:
        here = stack.enter_context(parts.demo(binary, *options))
        cookie, url = parts.open_content(here)
        token = urllib.request.urlopen(urllib.request.Request(url, headers={"Cookie": cookie})).headers["X-Token"]
        form = urllib.parse.urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token", "subject_token": token})
        script = pathlib.Path(tempfile.mkdtemp()) / "exchange.lua"
        script.write_text(f'wrk.method="POST"\nwrk.body="{form}"\nwrk.headers["Authorization"]="Key {parts.key(here)}"\nwrk.headers["Content-Type"]="application/x-www-form-urlencoded"\n')
        ready.append((name, here, cookie, url, script))
    for _ in range(ROUNDS):
        for name, here, cookie, url, script in ready:
            taken[name]["proxied request"].append(measure(here["pid"], url, "-H", f"Cookie: {cookie}"))
            taken[name]["exchange"].append(measure(here["pid"], f"{here['portal']}/__api__/v1/oauth/integrations/credentials", "-s", str(script)))

print(f"{ROUNDS} rounds in turns, {SECONDS} s and 32 connections each; CPU µs of the portal's process: median (lowest).\n")
print(f"| what | {NAMES[0]} | {NAMES[1]} | difference of the medians |")
print("| --- | --- | --- | --- |")
for what in ("proxied request", "exchange"):
    before, after = (taken[name][what] for name in NAMES)
    print(f"| {what} | {statistics.median(before):.1f} ({min(before):.1f}) | {statistics.median(after):.1f} ({min(after):.1f}) | {statistics.median(after) - statistics.median(before):+.1f} ({statistics.median(after) / statistics.median(before) - 1:+.1%}) |")
