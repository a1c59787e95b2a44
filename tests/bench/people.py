"""An organisation at work: viewers with open tabs, exchanges, sign-ins, consents, pages and edits. What they cost, and what more would.

  people.py SECONDS BINARY SEED POSTGRES [VIEWERS [DATABASE]]

One node on SQLite, then three on PostgreSQL (tests/postgres start, newly: pg_stat_statements has room for the statements of one run),
or only the DATABASE that is named. VIEWERS 5000 unless said. Each
viewer has a WebSocket through the portal to an app that runs in this program, and sends one message a minute; the app exchanges the
viewer's token for each, at any node, as behind a balancer. Session tokens live a minute instead of an hour, so that sockets hold
theirs beyond their end, as those of old tabs do. The other acts are in HOURLY; when a consent is revoked, the portal closes the tab,
which comes back once the consent is given again. On each database a run with a fifth of the viewers comes first and predicts the one
with all of them. SECONDS is the window of each; take 120 or another multiple of 60, since much happens once a minute,
and 1000 viewers or more.
"""
import asyncio
import os
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys

from portal import database
from town import HOURLY, Town

SECONDS, BINARY, SEED, POSTGRES = int(sys.argv[1]), *sys.argv[2:5]
VIEWERS = int(sys.argv[5]) if len(sys.argv) > 5 else 5_000
ONLY = sys.argv[6] if len(sys.argv) > 6 else ""
BROWSERS = 25
IDLE, SETTLE = 20, 75  # seconds: a window without viewers; and until the tokens of the tabs are older than they live
# What a node, the database and its write transactions can do, for the sizing; the last is what results.md has for title edits.
NODE_CORES, NODE_MB, DATABASE_CORES, WRITES = 2, 8192, 8, 1_700
ROUND_TRIP = 0.0005  # seconds between a node and the database, where they are not on one machine


async def run(name, place, nodes, viewers, with_revokes):
    """One portal with so many people: a window at rest, one at work, and how soon a revoke counts."""
    town = Town(BINARY, SEED, name, place, nodes, viewers)
    if place:
        town.sql("CREATE EXTENSION pg_stat_statements")
    try:
        await town.settle_in()
        print(f"{name}: {viewers:,} viewers are there", file=sys.stderr)
        rest = await town.window(IDLE)
        await town.open_tabs()
        opened = town.read()["mb"]
        for viewer in random.sample(town.viewers, min(BROWSERS, viewers)):
            await town.arrive(viewer)
        for kind in HOURLY:
            town.spawn(kind, town.keep_doing(kind), None)
        town.spawn("", town.watch_itself(), None)
        await asyncio.gather(asyncio.sleep(SETTLE), town.warm_up())
        work = await town.window(SECONDS)
        revokes = {where: await town.revoke_times(where == "another node") for where in ("the same node", "another node")[:nodes] if with_revokes}
    finally:
        await town.close()
    return {"viewers": viewers, "nodes": nodes, "rest": rest, "opened": opened, "work": work, "revokes": revokes, "tally": town.tally}


def table(*rows):
    lines = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    print("\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n", flush=True)


def short(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def each_viewer(run, what):
    """What one viewer adds in a second."""
    return (run["work"]["rates"][what] - run["rest"]["rates"][what]) / run["viewers"]


def predicted(run, what, viewers, nodes):
    return run["rest"]["rates"][what] / run["nodes"] * nodes + each_viewer(run, what) * viewers


def tab_mb(run):
    """Memory that a viewer takes, on the viewer's node."""
    return (sum(run["work"]["mb"]) - sum(run["rest"]["mb"])) / run["viewers"]


def report_acts(run):
    tally, work = run["tally"], run["work"]
    print(f"{run['viewers']:,} viewers, {work['seconds']:.0f} s; this program took {100 * work['own']:.0f} % of one core.\n")
    rows = [("act", "done", "refused", "p50 ms", "p99 ms")]
    for kind in sorted({*tally.took, *tally.refused}):
        took, reasons = sorted(tally.took[kind]), tally.refused[kind].most_common(5)
        times = (short(statistics.median(took)), short(took[-(-99 * len(took) // 100) - 1])) if took else ("–", "–")
        rows.append((kind, f"{len(took):,}", ", ".join(f"{count} × {reason}" for reason, count in reasons) or 0, *times))
    table(*rows)
    print("From the answer to a revoke to the first refused exchange, beside all this:\n")
    table(("asked at", "revokes", "median ms", "longest ms"), *((where, len(took), short(statistics.median(took or [0])), short(max(took, default=0))) for where, took in run["revokes"].items()))
    nodes = zip(work["cpu"], run["rest"]["mb"], run["opened"], work["mb"])
    table(("node", "CPU s/s", "MB at rest", "MB when the tabs were open", "MB at the end"), *((number, *map(short, values)) for number, values in enumerate(nodes, 1)))


def report_costs(small, full):
    """What the run with a fifth of the viewers said about this one, and the constants."""
    rows = [("a second", "at rest", f"{small['viewers']:,} viewers", f"predicted for {full['viewers']:,}", "measured", "measured / predicted")]
    for what, found in full["work"]["rates"].items():
        guess = predicted(small, what, full["viewers"], full["nodes"])
        rows.append((what, *map(short, (full["rest"]["rates"][what], small["work"]["rates"][what], guess, found)), f"{found / guess:.2f}" if guess else "–"))
    guess, found = sum(small["rest"]["mb"]) + tab_mb(small) * full["viewers"], sum(full["work"]["mb"])
    table(*rows, ("(MB of the nodes)", *map(short, (sum(full["rest"]["mb"]), sum(small["work"]["mb"]), guess, found)), f"{found / guess:.2f}"))
    exchanges = len(full["tally"].took["exchange"]) / full["work"]["seconds"]
    rows = [("constant", "a node at rest, an hour", "a viewer, an hour", "an exchange, with all else that its viewer does")]
    for what, rate in full["rest"]["rates"].items():
        viewer = each_viewer(full, what)
        rows.append((what, *map(short, (3600 * rate / full["nodes"], 3600 * viewer, viewer * full["viewers"] / exchanges))))
    table(*rows)
    print(f"Memory: {short(sum(full['rest']['mb']) / full['nodes'])} MB a node, {short(1024 * tab_mb(full))} kB a viewer with an open tab.\n")


def report_database(run):
    work, minutes = run["work"], run["viewers"] * run["work"]["seconds"] / 60
    rates = work["rates"]
    print(f"{rates['statements'] * work['seconds']:,.0f} statements in {work['seconds']:.0f} s took {100 * rates['time of statements, s']:.1f} % of the time of one core, with planning; the database's processes used {100 * rates['CPU of the database, s']:.1f} %.\n")
    rows = [("statement", "calls", "a viewer-minute", "rows", "total ms", "mean ms")]
    for calls, ms, count, text in work["statements"][:10]:
        text = re.sub(r"SELECT .{60,}? FROM", "SELECT … FROM", text.replace("|", "¦"), count=1)
        rows.append((f"`{text[:140]}{'…' if len(text) > 140 else ''}`", f"{calls:,}", short(calls / minutes), f"{count:,}", short(ms), f"{ms / calls:.3f}"))
    table(*rows)
    written = sorted(((name, *counts, sum(counts)) for name, counts in work["rows"].items() if any(counts)), key=lambda row: -row[-1])
    table(("rows of", "inserted", "updated", "deleted", "a viewer-minute"), *((*row[:-1], short(row[-1] / minutes)) for row in written))


def report_sizes(run):
    """What runs out first. A node's jobs write their rows one after the other, and every ten seconds again."""
    rows = [("viewers", "nodes", f"CPU of a node, of {NODE_CORES} cores", f"memory of a node, of {NODE_MB // 1024} GiB", f"time of statements, of {DATABASE_CORES} cores", f"write transactions, of {WRITES:,}/s", "a node's round of jobs, of 10 s", "first")]
    for viewers, nodes in ((viewers, nodes) for viewers in (10_000, 100_000) for nodes in (3, 10, 50)):
        rounds = each_viewer(run, "time of these, s") + ROUND_TRIP * each_viewer(run, "writes of the rounds")
        parts = {"CPU of the nodes": predicted(run, "CPU of the nodes, s", viewers, nodes) / nodes / NODE_CORES, "memory": (sum(run["rest"]["mb"]) / run["nodes"] + tab_mb(run) * viewers / nodes) / NODE_MB,
                 "statements": predicted(run, "time of statements, s", viewers, nodes) / DATABASE_CORES, "write transactions": predicted(run, "write transactions", viewers, nodes) / WRITES, "rounds of jobs": rounds * viewers / nodes}
        first = max(parts, key=parts.get)
        rows.append((f"{viewers:,}", nodes, *(f"{100 * part:.1f} %" for part in parts.values()), first if parts[first] < 1 else f"{first}: too little"))
    table(*rows)
    print(f"Linear from {run['nodes']} nodes and {run['viewers']:,} viewers, {1000 * ROUND_TRIP} ms to the database and back. Not in it: what a node remembers is bounded, and each of more nodes sees the same viewer less often.\n")


commit = subprocess.run(["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
print(f"Commit {commit}, {os.cpu_count()} cores, {platform.machine()}, everything on one machine, this program included. A viewer in an hour: 60 messages with an exchange each, {', '.join(f'{times} × {kind}' for kind, times in HOURLY.items())}.\n")
for name, nodes in (("SQLite", 1), ("PostgreSQL", 3)):
    if ONLY not in ("", name):
        continue
    small, full = (asyncio.run(run(f"{name}-{viewers}", database(POSTGRES) if nodes > 1 else None, nodes, viewers, viewers == VIEWERS)) for viewers in (VIEWERS // 5, VIEWERS))
    print(f"## {name}, {nodes} node{'s' if nodes > 1 else ''}\n")
    report_acts(full)
    report_costs(small, full)
    if nodes > 1:
        report_database(full)
        report_sizes(full)
