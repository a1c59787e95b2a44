"""Exchanges with few and with many connections stored, on SQLite and on PostgreSQL; how soon a revoke counts on each node.

  connections.py SECONDS BINARY SEED POSTGRES [MANY]

Viewers: a thousand, each with a session token of their own, in turn. Every exchange checks key, session, access, consent and
connection. SEED is the example `seed`, POSTGRES a server's address (tests/postgres start), MANY 200000 unless said.
"""
import os
import platform
import statistics
import subprocess
import sys
import time

from portal import Portal, database

SECONDS, BINARY, SEED, POSTGRES = sys.argv[1:5]
MANY = int(sys.argv[5]) if len(sys.argv) > 5 else 200_000
FEW = 1_000

commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
print(f"Commit {commit}, {os.cpu_count()} cores, {platform.machine()}, wrk with 32 connections for {SECONDS} s each, everything on one machine; {FEW:,} viewers in turn, each with a token of their own.\n")
print("| database | connections stored | exchanges/s | p50 | p99 | of the empty handler | of the rate with few |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for name, place in (("SQLite", None), ("PostgreSQL", database(POSTGRES))):
    portal = Portal(BINARY, SEED, name, place)
    script = portal.script(portal.seed(FEW, FEW))
    few = None
    for stored in (FEW, MANY):
        if stored > FEW:
            portal.seed(stored - FEW)
        portal.wrk("/__api__/v1/oauth/integrations/credentials", script, seconds=SECONDS)  # warms up
        empty, *_ = portal.wrk("/__ping__", seconds=SECONDS)
        rate, p50, p99 = portal.wrk("/__api__/v1/oauth/integrations/credentials", script, seconds=SECONDS)
        few = few or rate
        print(f"| {name} | {stored:,} | {rate:,.0f} | {p50} | {p99} | {rate / empty:.2f} | {rate / few:.2f} |", flush=True)
    portal.stop()

portal = Portal(BINARY, SEED, "nodes", database(POSTGRES), nodes=3)
tokens = portal.seed(60, 60)
guids = [session["guid"] for session in portal.api("GET", "oauth/sessions?all=true")]
print("\nTime from a revoke's answer to the first refused exchange, PostgreSQL, three nodes, 30 revokes each, exchanges without a pause:\n")
print("| asked at | median ms | longest ms |\n| --- | --- | --- |")
people = {token: guid for token, guid in zip(tokens, guids)}
for where, port in (("the same node", portal.ports[0]), ("another node", portal.ports[1])):
    took = []
    for token in tokens[:30] if where == "the same node" else tokens[30:]:
        assert portal.exchange(token, port) == 200
        portal.api("DELETE", f"oauth/sessions/{people[token]}")
        began = time.monotonic()
        while portal.exchange(token, port) == 200:
            pass
        took.append(1000 * (time.monotonic() - began))
    print(f"| {where} | {statistics.median(took):.0f} | {max(took):.0f} |", flush=True)
portal.stop()
