"""A crowd: 180 people at work with open tabs, and 20 clients that misbehave. The 180 notice nothing.

  crowd.py MINUTES BINARY SEED [POSTGRES]

One node that speaks TLS, on SQLite unless a PostgreSQL server is named. Half of the time only the 180 are there: what they see then is the measure.
Then the 20 come, each from an address of its own: half-sent heads, floods of requests, odd cookies, wrong passwords, WebSockets that
are reset, requests whose answers are not read, requests over HTTP/2 that are given up at once, TLS handshakes that are begun only;
and, in a run of five minutes or more by root, clients that disappear as a laptop does
whose lid is closed. When they have gone, memory, file descriptors and rows must be where they were. What a process needs once for each
kind of thing that it meets (the program's own pages in memory, room of its allocator, caches of the database) it has before the
measured time begins: the 20 come for a moment then, too.
The 20 are a process of their own, of the lowest priority: they stand for other machines, whose work must not be taken for a delay of
the portal.
Fails if one of the 180 sees an error, or waits more than twice as long (99th percentile) as before, beyond what this program's own delay
has grown, and 100 ms in a short run.
"""
import asyncio
import collections
import contextlib
import json
import logging
import os
import pathlib
import random
import socket
import statistics
import ssl
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "bench"))
from portal import database, folder  # noqa: E402
from town import UPGRADE, Town, memory, request  # noqa: E402

MINUTES, BINARY, SEED = float(sys.argv[1]), *(sys.argv[2:4] if len(sys.argv) > 3 else (None, None))
POSTGRES = sys.argv[4] if len(sys.argv) > 4 else None
GOOD, BAD, PAUSE = 180, 20, 5
# Addresses of clients that disappear: not this machine's but while one is there.
NOWHERE, HAS_NOWHERE = "10.77.0.0/16", MINUTES >= 5 and os.geteuid() == 0
# Seconds after the last misdeed: the longest deadline of a connection and what follows.
GRACE = 150 if HAS_NOWHERE else 75
# In a run of minutes a handful of times decide, and the machine may do other work meanwhile.
SLACK = 0 if MINUTES >= 5 else 100  # ms


# The connections of those that have disappeared: nobody closes them.
gone = []
# The beginning of a ClientHello of 512 bytes.
HALF_HELLO = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, RESET = 4, 1, 3  # kinds of frames (RFC 9113 section 6)
END_OF_STREAM, END_OF_HEADERS, CANCEL = 1, 4, 8


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def fields(pairs):
    """A field section in which nothing is compressed (RFC 7541 section 6.2.2); names and values below 127 bytes."""
    return b"".join(b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in pairs)


async def ip(*words):
    process = await asyncio.create_subprocess_exec("ip", *words)
    if await process.wait():
        raise OSError(f"ip {' '.join(words)} failed")


@contextlib.asynccontextmanager
async def nowhere():
    """What goes to addresses that this machine does not have right now is dropped."""
    if HAS_NOWHERE:
        await ip("route", "replace", "blackhole", NOWHERE)
    try:
        yield
    finally:
        if HAS_NOWHERE:
            await ip("route", "del", "blackhole", NOWHERE)


@contextlib.asynccontextmanager
async def address(host):
    """An address that this machine has for a moment."""
    await ip("address", "add", f"{host}/32", "dev", "lo")
    try:
        yield
    finally:
        await ip("address", "del", f"{host}/32", "dev", "lo")


class Nuisance:
    """A client that does one bad thing after the other, from an address of its own, as a viewer: who may be there, and misbehaves.

    `place`: where the portal is, `own`: the viewer's path, number of the tab, and fields of requests.
    """

    def __init__(self, number, place, own):
        self.number, self.host, self.port, self.portal_host = number, f"127.0.1.{number + 1}", place["port"], place["host"]
        self.certificate, self.tls = place["certificate"], ssl.create_default_context(cafile=place["certificate"])
        self.path, self.tab, self.fields = own["path"], own["tab"], own["fields"]
        self.acts = [self.half_heads, self.flood, self.odd_cookies, self.wrong_passwords, self.reset_sockets, self.deaf, self.given_up_streams, self.half_handshakes]
        if HAS_NOWHERE:
            self.acts.append(self.vanish)
        self.vanished, self.done = 0, collections.Counter()

    async def wire(self, host=None, tls=True):
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host or self.host, 0), ssl=self.tls if tls is True else tls)

    def page(self):
        return request("GET", self.path, self.fields)

    def upgrade(self):
        return request("GET", f"{self.path}tab/{self.tab}", {**self.fields, **UPGRADE})

    async def half_heads(self):
        wires = [await self.wire() for _ in range(10)]
        for reader, writer in wires:
            writer.write(self.page() + b"GET /half HTTP/1.1\r\nHos")
            await asyncio.wait_for(reader.read(100), 20)
        await asyncio.sleep(random.uniform(1, 15))
        for _, writer in wires:
            writer.close()

    async def flood(self):
        reader, writer = await self.wire()
        for _ in range(20):
            writer.write(self.page() * 16)
            await writer.drain()
            await asyncio.wait_for(reader.read(1 << 16), 20)
        writer.close()

    async def odd_cookies(self):
        reader, writer = await self.wire()
        head = self.page().replace(b"Cookie: ", b"Cookie: name=J\xfcrgen; \xff\xfe; =; ;;; valetkey-sAAAAAAAA=x; ")
        writer.write(head)
        await asyncio.wait_for(reader.read(100), 20)
        writer.close()

    async def wrong_passwords(self):
        for _ in range(5):
            reader, writer = await self.wire()
            body = b"username=seeded1&password=wrong&csrf=x"
            writer.write(request("POST", "/login", {"Host": self.portal_host, "Content-Type": "application/x-www-form-urlencoded", "Content-Length": len(body)}) + body)
            await asyncio.wait_for(reader.read(100), 30)
            writer.close()

    async def reset_sockets(self):
        for _ in range(5):
            reader, writer = await self.wire()
            writer.write(self.upgrade())
            await asyncio.wait_for(reader.read(100), 20)
            # Closed with RST: nothing is said any more.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def deaf(self):
        reader, writer = await self.wire()
        writer.transport.pause_reading()
        writer.write(self.page() * 500)
        await asyncio.sleep(random.uniform(1, 20))
        writer.transport.abort()

    async def given_up_streams(self):
        tls = ssl.create_default_context(cafile=self.certificate)
        tls.set_alpn_protocols(["h2"])
        reader, writer = await self.wire(tls=tls)
        page = [(":method", "GET"), (":scheme", "https"), (":path", self.path), (":authority", self.fields["Host"]), ("cookie", self.fields["Cookie"])]
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
        for stream in range(1, 2001, 2):
            if writer.transport.is_closing():
                return
            writer.write(frame(HEADERS, END_OF_STREAM | END_OF_HEADERS, stream, fields(page)) + frame(RESET, 0, stream, CANCEL.to_bytes(4, "big")))
            await writer.drain()
        while await asyncio.wait_for(reader.read(1 << 16), 20):
            pass  # until the portal has had enough of it
        writer.close()

    async def half_handshakes(self):
        wires = [await self.wire(tls=None) for _ in range(20)]
        for number, (_, writer) in enumerate(wires):
            writer.write(HALF_HELLO[:number])
        await asyncio.sleep(random.uniform(1, 8))
        for _, writer in wires:
            writer.close()

    async def vanish(self):
        """Its machine loses its address: what it has open says nothing more, not even that it has ended."""
        self.vanished += 1
        host = f"10.77.{self.vanished % 250}.{self.number + 1}"
        async with address(host):
            for start in (self.page(), self.upgrade(), self.page() + b"GET /half HTTP/1.1\r\nHos", self.page() * 200):
                reader, writer = await self.wire(host)
                writer.write(start)
                await asyncio.wait_for(reader.read(100), 20)
                gone.append(writer)

    async def run(self):
        while True:
            act = random.choice(self.acts)
            try:
                await asyncio.wait_for(act(), 60)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                pass  # refused or cut off: that is what it is there for
            self.done[act.__name__.replace("_", " ")] += 1
            await asyncio.sleep(random.uniform(0.5, 2))


class Page:
    """Each of the 180 loads the app's page now and then."""

    def __init__(self, town):
        self.town = town

    async def run(self):
        while True:
            await asyncio.sleep(random.expovariate(GOOD / 10))
            self.town.spawn("page of the app", self.town.act("page of the app"))


def rows(town):
    tables = [name for name, in town.sql("SELECT relname FROM pg_stat_user_tables" if town.place else "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")]
    return {table: int(town.sql(f'SELECT count(*) FROM "{table}"')[0][0]) for table in tables}


def state(town):
    pid = town.portal.processes[0].pid
    return {"MB": memory(pid), "file descriptors": len(os.listdir(f"/proc/{pid}/fd")), "threads": len(os.listdir(f"/proc/{pid}/task"))}


def percentile(values, part):
    return sorted(values)[max(0, -(-len(values) * part // 100) - 1)] if values else 0


async def phase(town, seconds):
    """What the 180 see for a while: times by kind, and errors."""
    town.tally.took.clear()
    town.tally.refused.clear()
    town.tally.counts = True
    await asyncio.sleep(seconds)
    town.tally.counts = False
    return {kind: list(took) for kind, took in town.tally.took.items()}, {kind: dict(why) for kind, why in town.tally.refused.items() if why}


async def misbehave():
    """In a process of its own: what is told on standard input, for some seconds; prints what was done."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # a peer that cuts one off is no news here
    os.nice(19)
    told = json.load(sys.stdin)
    nuisances = [Nuisance(number, told["place"], own) for number, own in enumerate(told["viewers"])]
    loops = [asyncio.ensure_future(nuisance.run()) for nuisance in nuisances]
    await asyncio.sleep(told["seconds"])
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    print(json.dumps(sum((nuisance.done for nuisance in nuisances), collections.Counter())))


async def let_misbehave(town, viewers, seconds):
    """Lets these viewers misbehave for a while; what they did."""
    place = {"port": town.ports[0], "host": town.portal_host, "certificate": str(folder / "certificate.pem")}
    told = {"place": place, "seconds": seconds, "viewers": [{"path": f"/content/{viewer.item.guid}/", "tab": viewer.number, "fields": viewer.fields()} for viewer in viewers]}
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(MINUTES), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    try:
        said, _ = await process.communicate(json.dumps(told).encode())
    finally:
        if process.returncode is None:
            process.kill()
    return json.loads(said)


async def main():
    seconds = MINUTES * 60
    town = Town(BINARY, SEED, "crowd", database(POSTGRES) if POSTGRES else None, 1, GOOD + BAD, PAUSE, tls=True)
    try:
        await town.settle_in()
        bad, town.viewers = town.viewers[:BAD], town.viewers[BAD:]
        await town.open_tabs()
        town.spawn("", Page(town).run(), None)
        town.spawn("", town.watch_itself(), None)
        await town.warm_up()
        await let_misbehave(town, bad, min(60, seconds / 8))
        await asyncio.sleep(min(GRACE, seconds / 4))
        start, start_rows = state(town), rows(town)
        quiet, quiet_errors = await phase(town, seconds / 2)
        before = state(town)
        most = {"MB": 0, "file descriptors": 0, "threads": 0}

        async def watch():
            while True:
                for what, value in state(town).items():
                    most[what] = max(most[what], value)
                await asyncio.sleep(2)

        watching = asyncio.ensure_future(watch())
        (loud, loud_errors), done = await asyncio.gather(phase(town, seconds / 2), let_misbehave(town, bad, seconds / 2))
        watching.cancel()
        await asyncio.sleep(GRACE)
        end, end_rows = state(town), rows(town)
    finally:
        await town.close()
    problems = []
    print(f"{MINUTES:g} minutes over TLS, on {'PostgreSQL' if POSTGRES else 'SQLite'}, {GOOD} people with a message every {PAUSE} s and a page now and then, {BAD} clients that misbehave in the second half.\n")
    print("| what the people see | quiet: times | p50 ms | p99 ms | beside the noise: times | p50 ms | p99 ms | errors |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    own = [percentile(seen.get("(this program's own delay)", []), 99) for seen in (quiet, loud)]
    allowed = max(0, own[1] - own[0]) + SLACK
    for kind in sorted({*quiet, *loud}):
        one, two = quiet.get(kind, []), loud.get(kind, [])
        errors = {**quiet_errors.get(kind, {}), **loud_errors.get(kind, {})}
        print(f"| {kind} | {len(one):,} | {statistics.median(one or [0]):.2f} | {percentile(one, 99):.2f} | {len(two):,} | {statistics.median(two or [0]):.2f} | {percentile(two, 99):.2f} | {errors or 0} |")
        if kind in ("exchange", "message in a tab, there and back", "page of the app") and percentile(two, 99) > 2 * percentile(one, 99) + allowed:
            problems.append(f"{kind}: p99 {percentile(two, 99):.1f} ms beside the noise, {percentile(one, 99):.1f} ms without")
    problems += [f"{kind}: {why}" for errors in (quiet_errors, loud_errors) for kind, why in errors.items()]
    print("\n| the process | at the start | before the noise | most | at the end |\n| --- | --- | --- | --- | --- |")
    for what in start:
        print(f"| {what} | {start[what]:.0f} | {before[what]:.0f} | {most[what]:.0f} | {end[what]:.0f} |")
    if end["MB"] > before["MB"] * 1.1 + 2:
        problems.append(f"memory: {before['MB']:.0f} MB before, {end['MB']:.0f} MB after")
    if end["file descriptors"] > before["file descriptors"] + 20:
        problems.append(f"file descriptors: {before['file descriptors']} before, {end['file descriptors']} after")
    changed = {table: (count, end_rows[table]) for table, count in start_rows.items() if end_rows[table] != count}
    print("\n| rows of | at the start | at the end |\n| --- | --- | --- |")
    for table, (one, two) in sorted(changed.items()):
        print(f"| {table} | {one} | {two} |")
    # The record of refusals, its blocks, the log of changes, wrong passwords (five minutes) and hourly counts grow by design.
    grows = {"audit", "audit_blocks", "changes", "sign_in_tries", "exchange_hours", "activity_hours", "token_uses", "visits", "held_tokens"}
    problems += [f"rows of {table}: {one} before, {two} after" for table, (one, two) in changed.items() if table not in grows and two > one + 2]
    print(f"\nMisdeeds: {', '.join(f'{count:,} × {act}' for act, count in sorted(done.items()))}.")
    for problem in problems:
        print(f"\nNOT KEPT: {problem}")
    print(f"\n{0 if problems else 1} passed, {1 if problems else 0} failed")
    return bool(problems)


async def watched():
    async with nowhere():
        return await main()


sys.exit(asyncio.run(watched() if BINARY else misbehave()))
