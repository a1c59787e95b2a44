"""Two builds side by side, in turns: CPU per proxied request and per exchange of each. python3 compare.py SECONDS BEFORE AFTER"""
import contextlib
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

import parts

SECONDS, BINARIES, ROUNDS = sys.argv[1], sys.argv[2:4], 9


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(pid, url, *more):
    before = cpu(pid)
    out = subprocess.run(["wrk", "-t", "2", "-c", "32", "-d", f"{SECONDS}s", *more, url], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in out, out
    return (cpu(pid) - before) * 1e6 / int(re.search(r"(\d+) requests in", out).group(1))


taken = {binary: {"proxied request": [], "exchange": []} for binary in BINARIES}
with contextlib.ExitStack() as stack:
    stack.enter_context(parts.upstream())
    ready = []
    for binary in BINARIES:
        here = stack.enter_context(parts.demo(binary))
        cookie, url = parts.open_content(here)
        token = urllib.request.urlopen(urllib.request.Request(url, headers={"Cookie": cookie})).headers["X-Token"]
        form = urllib.parse.urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token", "subject_token": token})
        script = pathlib.Path(tempfile.mkdtemp()) / "exchange.lua"
        script.write_text(f'wrk.method="POST"\nwrk.body="{form}"\nwrk.headers["Authorization"]="Key {parts.key(here)}"\nwrk.headers["Content-Type"]="application/x-www-form-urlencoded"\n')
        ready.append((binary, here, cookie, url, script))
    for _ in range(ROUNDS):
        for binary, here, cookie, url, script in ready:
            taken[binary]["proxied request"].append(measure(here["pid"], url, "-H", f"Cookie: {cookie}"))
            taken[binary]["exchange"].append(measure(here["pid"], f"{here['portal']}/__api__/v1/oauth/integrations/credentials", "-s", str(script)))

print(f"{ROUNDS} rounds in turns, {SECONDS} s and 32 connections each; CPU µs of the portal's process: median (lowest).\n")
print("| what | before | after | difference of the medians |")
print("| --- | --- | --- | --- |")
for what in ("proxied request", "exchange"):
    before, after = (taken[binary][what] for binary in BINARIES)
    print(f"| {what} | {statistics.median(before):.1f} ({min(before):.1f}) | {statistics.median(after):.1f} ({min(after):.1f}) | {statistics.median(after) - statistics.median(before):+.1f} |")
