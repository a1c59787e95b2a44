"""What others notice while an item with many consents is deleted, and an integration with many connections.

  endings.py BINARY SEED POSTGRES [CONSENTS, default 10000]

One node on SQLite, one on PostgreSQL. Twenty times a second a title is edited elsewhere: how long that takes before, and while things
end; when the first exchange is refused; how long until all is gone. Goal: 99th percentile of the edits below 100 ms.
"""
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

from portal import Portal, database

BINARY, SEED, POSTGRES = sys.argv[1:4]
COUNT = int(sys.argv[4]) if len(sys.argv) > 4 else 10_000


class Edits:
    """Edits a title twenty times a second, and notes how long each took."""

    def __init__(self, portal):
        self.portal, self.took, self.over = portal, [], False
        self.item = portal.api("POST", "content", {"name": "edited", "access_type": "logged_in"})["guid"]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        while not self.over:
            began, number = time.monotonic(), number + 1
            self.portal.api("PATCH", f"content/{self.item}", {"title": f"title {number}"})
            self.took.append(1000 * (time.monotonic() - began))
            time.sleep(max(0, 0.05 - (time.monotonic() - began)))

    def stop(self):
        self.over = True
        self.thread.join()


def p99(values):
    return sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)] if values else 0


def measure(name, place, what):
    portal = Portal(BINARY, SEED, f"endings-{name}-{what.split()[0]}", place)
    token = portal.seed(COUNT, 1)[0]
    assert portal.exchange(token, portal.ports[0]) == 200
    edits = Edits(portal)
    time.sleep(5)
    before, edits.took = edits.took, []
    path = f"content/{portal.content}" if what.startswith("item") else f"oauth/integrations/{portal.integration}"
    began, refused = time.monotonic(), []

    def watch():
        while portal.exchange(token, portal.ports[0]) == 200:
            pass
        refused.append(1000 * (time.monotonic() - began))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        portal.api("DELETE", path)
    except urllib.request.HTTPError as error:
        assert error.code in (202, 409), error  # it goes on
    answered = time.monotonic() - began
    watching.join()
    # Until the last one is gone: their records are written afterwards.
    for _ in range(600):
        try:
            portal.api("GET", path)
        except urllib.request.HTTPError:
            break
        time.sleep(0.2)
    while portal.count_left(what) > 0:
        time.sleep(0.2)
    gone = time.monotonic() - began
    edits.stop()
    portal.stop()
    print(f"| {name} | {what} | {p99(before):.0f} | {statistics.median(edits.took):.1f} | {p99(edits.took):.0f} | {max(edits.took):.0f} | {refused[0]:.0f} | {answered:.1f} | {gone:.1f} |", flush=True)


def count_left(self, what):
    """Consents whose end has no audit record yet, or connections that are left."""
    query = "SELECT count(*) FROM connections" if what.startswith("integration") else f"SELECT {COUNT} - count(*) FROM audit WHERE action = 'consent_revoked' AND detail LIKE 'of %'"
    if self.settings[0].get("VALETKEY_DATABASE_URL"):
        out = subprocess.run(["psql", self.settings[0]["VALETKEY_DATABASE_URL"], "-qAt", "-c", query], capture_output=True, text=True, check=True).stdout
        return int(out)
    import sqlite3
    with sqlite3.connect(pathlib.Path(self.settings[0]["VALETKEY_DATA_DIR"]) / "valetkey.db", timeout=20) as file:
        return file.execute(query).fetchone()[0]


Portal.count_left = count_left
commit = subprocess.run(["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
print(f"Commit {commit}, {os.cpu_count()} cores, {platform.machine()}, {COUNT:,} consents or connections, everything on one machine. Edits of a title elsewhere, 20 a second.\n")
print("| database | deleted | edits before, p99 ms | meanwhile, p50 | p99 | longest | first refused exchange, ms | answer after s | all gone and recorded after s |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
for name, address in (("SQLite", None), ("PostgreSQL", POSTGRES)):
    for what in ("item", "integration"):
        measure(name, database(POSTGRES) if address else None, what)
