"""Writes beside many sockets that open at once, as after a restart: the longest write, which a refresh would wait for as well.

  reconnect.py BINARY SEED [POSTGRES]

2,000 viewers with a WebSocket each. All of them are cut and open again within a moment, three times. Meanwhile titles are edited
one after the other: each edit is a transaction of its own, as the commit of a refresh is. Before that, the same edits alone.
"""
import asyncio
import os
import platform
import resource
import subprocess
import sys
import time

from portal import database
from town import Town

BINARY, SEED = sys.argv[1:3]
POSTGRES = sys.argv[3] if len(sys.argv) > 3 else None
SOCKETS, ROUNDS, ALONE = 2000, 3, 50
# Also for the portal, which inherits the limit.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


async def edits(town, over):
    """How long each edit takes, in ms, until `over` says so."""
    took = []
    while not over(took):
        began, item = time.monotonic(), town.items[len(took) % len(town.items)]
        await town.api(item.key, "PATCH", f"content/{item.guid}", {"title": f"title {len(took)}"})
        took.append(1000 * (time.monotonic() - began))
    return took


async def reopen(town):
    """Cuts all sockets; returns after how many seconds all of them are open again."""
    for viewer in town.viewers:
        viewer.is_open = False
        viewer.wire.abort()
    began = time.monotonic()
    while not all(viewer.is_open for viewer in town.viewers):
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def main():
    town = Town(BINARY, SEED, "reconnect", database(POSTGRES) if POSTGRES else None, 1, SOCKETS, pause=3600, reopens=(1, 1))
    try:
        await town.settle_in()
        await town.open_tabs()
        alone = await edits(town, lambda took: len(took) == ALONE)
        rounds = []
        for _ in range(ROUNDS):
            opening = asyncio.ensure_future(reopen(town))
            took = await edits(town, lambda _: opening.done())
            rounds.append((opening.result(), took))
    finally:
        await town.close()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"{SOCKETS:,} sockets, {'PostgreSQL' if POSTGRES else 'SQLite'}, {commit}, {os.cpu_count()} cores, {platform.machine()}.\n")
    print("| | all open after, s | writes | median ms | longest ms |\n| --- | --- | --- | --- | --- |")
    for name, seconds, took in [("alone", "", alone), *((f"round {number + 1}", f"{seconds:.1f}", took) for number, (seconds, took) in enumerate(rounds))]:
        print(f"| {name} | {seconds} | {len(took)} | {sorted(took)[len(took) // 2]:.1f} | {max(took):.1f} |")
    return any(max(took) > 1000 for _, took in rounds)


sys.exit(asyncio.run(main()))
