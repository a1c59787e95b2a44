"""The exchange beside writes that have nothing to do with it, and writes beside each other.

  unrelated.py SECONDS BINARY SEED POSTGRES

A thousand viewers exchange in turn, each with a token of their own, while somebody edits titles of content items that nobody
opens. Then 60,000 viewers in turn, more than the caches hold, so that each exchange loads everything. Then many publishers edit
titles on three nodes at once, beside pgbench with the same statements. Ratios within one run.
"""
import concurrent.futures
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time

from portal import Portal, database, folder

SECONDS, BINARY, SEED, POSTGRES = int(sys.argv[1]), *sys.argv[2:5]
VIEWERS, COLD, WRITES = 1_000, 60_000, (1, 5, 50)
EXCHANGE = "/__api__/v1/oauth/integrations/credentials"


class Editor:
    """Edits titles at a rate; measures how long each edit takes."""

    def __init__(self, portal, rate):
        self.portal, self.rate, self.took, self.over = portal, rate, [], threading.Event()
        self.items = [portal.api("POST", "content", {"name": f"unrelated-{rate}-{number}", "access_type": "logged_in"})["guid"] for number in range(4)]
        self.pool = concurrent.futures.ThreadPoolExecutor(8)
        self.thread = threading.Thread(target=self.run)

    def edit(self, number):
        began = time.monotonic()
        self.portal.api("PATCH", f"content/{self.items[number % len(self.items)]}", {"title": f"title {number}"})
        self.took.append(1000 * (time.monotonic() - began))

    def run(self):
        began, number = time.monotonic(), 0
        while not self.over.wait(max(0, began + number / self.rate - time.monotonic())):
            self.pool.submit(self.edit, number)
            number += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.pool.shutdown()


def p99(values):
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else float("nan")


commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
print(f"Commit {commit}, {os.cpu_count()} cores, {platform.machine()}, wrk with 32 connections for {SECONDS} s each, everything on one machine; {VIEWERS:,} viewers in turn.\n")
cold = []
print("| database | unrelated writes/s | exchanges/s | of the rate without writes, before and after | write p50 ms | write p99 ms |")
print("| --- | --- | --- | --- | --- | --- |")
for name, place in (("SQLite", None), ("PostgreSQL", database(POSTGRES))):
    portal = Portal(BINARY, SEED, name, place)
    tokens = portal.seed(VIEWERS + COLD, VIEWERS + COLD)
    script = portal.script(tokens[:VIEWERS])
    portal.wrk(EXCHANGE, script, seconds=SECONDS)  # warms up
    # The machine is not always equally fast: each rate between two runs without writes.
    alone, *_ = portal.wrk(EXCHANGE, script, seconds=SECONDS)
    print(f"| {name} | 0 | {alone:,.0f} | 1.00 | – | – |")
    for rate in WRITES:
        with Editor(portal, rate) as editor:
            made, *_ = portal.wrk(EXCHANGE, script, seconds=SECONDS)
        after, *_ = portal.wrk(EXCHANGE, script, seconds=SECONDS)
        ratio, alone = made / statistics.mean((alone, after)), after
        print(f"| {name} | {len(editor.took) / SECONDS:.0f} | {made:,.0f} | {ratio:.2f} | {statistics.median(editor.took):.0f} | {p99(editor.took):.0f} |", flush=True)
    cold.append((name, alone, *portal.wrk(EXCHANGE, portal.script(tokens[VIEWERS:]), seconds=SECONDS)))
    portal.stop()

print("\n| database | exchanges/s, cached | exchanges/s, nothing cached | p50 | p99 |")
print("| --- | --- | --- | --- | --- |")
for name, alone, made, middle, late in cold:
    print(f"| {name} | {alone:,.0f} | {made:,.0f} | {middle} | {late} |", flush=True)

place = database(POSTGRES)
portal = Portal(BINARY, SEED, "writers", place, nodes=3)
items = [portal.api("POST", "content", {"name": f"own-{number}", "access_type": "logged_in"})["guid"] for number in range(300)]
lua = folder / "edit.lua"
lua.write_text(f"""
local items = {{{", ".join(f'"{guid}"' for guid in items)}}}
function init(args) math.randomseed(os.time() + tonumber(args[1] or 0)) end
function request()
  local guid = items[math.random(#items)]
  return wrk.format("PATCH", "/__api__/v1/content/" .. guid, {{["Host"] = "{portal.host}", ["Authorization"] = "Key {portal.key}", ["Content-Type"] = "application/json"}}, '{{"title": "title ' .. math.random(1000000) .. '"}}')
end
""")
runs = [subprocess.Popen(["wrk", "-t", "1", "-c", "8", "-d", f"{SECONDS}s", "-s", str(lua), f"http://127.0.0.1:{port}", "--", str(port)], stdout=subprocess.PIPE, text=True) for port in portal.ports]
outs = [run.communicate()[0] for run in runs]
ours = sum(float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)) for out in outs)
refused = sum(int(found.group(1)) for out in outs if (found := re.search(r"Non-2xx or 3xx responses: (\d+)", out)))
portal.stop()
statements = folder / "edit.sql"
statements.write_text("""\\set item random(1, 300)
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM content WHERE number = :item;
UPDATE content SET title = 'title ' || :item, updated_at = updated_at + 1 WHERE number = :item;
INSERT INTO audit (at, action, actor_name, subject, detail, address, correlation, outcome, proof) VALUES (1, 'content_changed', 'ada', 'x', '', '', '', 'done', '');
INSERT INTO changes (process, subjects) VALUES ('bench', 'content:x');
COMMIT;
""")
out = subprocess.run(["pgbench", "-n", "-c", "12", "-j", "2", "-T", str(SECONDS), "--max-tries=20", "-f", str(statements), place], capture_output=True, text=True)
theirs = float(re.search(r"tps = ([\d.]+)", out.stdout).group(1))
print(f"\nTitles edited on three nodes at once, 24 clients: {ours:,.0f}/s, {refused} refused; pgbench with the same statements, 12 clients: {theirs:,.0f}/s; ratio {ours / theirs:.2f}.")
