"""A portal and its people for benchmarks and soaks: viewers with open tabs, browsers without script, an app that exchanges tokens."""
import asyncio
import base64
import collections
import hashlib
import html
import json
import os
import pathlib
import random
import re
import secrets
import sqlite3
import subprocess
import time
import urllib.parse
import uuid

from portal import FORM, Portal

PER_ITEM, PUBLISHERS, REVOKES = 50, 3, 20
HOURLY = {"page of the app": 6, "sign-in": 1.5, "page /content": 3, "page /consents": 3, "consent revoked and given": 0.7, "title edit": 0.3}
ROUND = re.compile(r"(INSERT|UPDATE|DELETE).*\b(held_tokens|visits|token_uses|exchange_hours|uses|used_at|seen_at)\b")  # what jobs write every ten seconds
TUPLES = re.compile(r"\((?:\$\d+(?:, )?)+\)(?:, \((?:\$\d+(?:, )?)+\))*")  # of a statement with many rows, which has a text for each number of them
PASSWORD = "long enough"  # ada's, in portal.py
CREDENTIALS = "/__api__/v1/oauth/integrations/credentials"
MESSAGE, REPLY = bytes([0x82, 0x80 | 58, 0, 0, 0, 0]) + bytes(58), bytes([0x82, 58]) + bytes(58)
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\nX-Token: %b\r\n\r\n" + b"x" * 1024
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
os.environ |= {"VALETKEY_TRUSTED_PROXIES": "127.0.0.1", "VALETKEY_SESSION_TOKEN_MINUTES": "1"}  # sign-ins come from addresses of their own


class Wires:
    """Requests over kept connections, with as little work for each as Python allows."""

    def __init__(self, tls):
        self.tls, self.kept = tls, collections.defaultdict(list)

    async def ask(self, port, method, path, fields, body=b""):
        """Status, head and body. A kept connection that the server closed in this very moment is worth another one."""
        out = request(method, path, {**fields, "Content-Length": len(body)}) + body
        while self.kept[port]:
            try:
                return await self.send(port, self.kept[port].pop(), out)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
        return await self.send(port, await asyncio.open_connection("127.0.0.1", port, ssl=self.tls), out)

    async def send(self, port, wire, out):
        reader, writer = wire
        try:
            writer.write(out)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            body, size = await reader.readexactly(int(length.group(1))) if length else b"", 0 if length or b" 204 " in head[:14] else 1
            while size:  # in chunks
                size = int(await reader.readline(), 16)
                body += (await reader.readexactly(size + 2))[:size]
        except BaseException:
            writer.close()
            raise
        self.kept[port].append(wire)
        return int(head[9:12]), head.decode(), body.decode()


def request(method, path, fields):
    return "".join([f"{method} {path} HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in fields.items()), "\r\n"]).encode()


class Tally:
    """How long each kind of act took, and why some were refused; only during the window."""

    def __init__(self):
        self.counts, self.took, self.refused = False, collections.defaultdict(list), collections.defaultdict(collections.Counter)

    def note(self, kind, began, refusal=None):
        if self.counts and refusal:
            self.refused[kind][refusal] += 1
        elif self.counts:
            self.took[kind].append(1000 * (time.monotonic() - began))


class App(asyncio.Protocol):
    """The app behind the portal: a page of 1 KiB, and a WebSocket that exchanges its viewer's token for each message."""

    def __init__(self, town):
        self.town, self.head, self.viewer = town, b"", None

    def connection_made(self, wire):
        self.wire = wire

    def data_received(self, data):
        if self.viewer and data[0] == 0x88:
            self.wire.close()
        elif self.viewer:
            self.town.spawn("exchange", self.reply())
        else:
            self.head += data
            while b"\r\n\r\n" in self.head:
                head, self.head = self.head.split(b"\r\n\r\n", 1)
                token, tab = re.search(rb"(?i)\r\nposit-connect-user-session-token: (\S+)", head).group(1), re.match(rb"GET /tab/(\d+)", head)
                if tab:
                    self.viewer = self.town.tabs[int(tab.group(1))]
                    self.viewer.token = token.decode()
                self.wire.write(UPGRADED if tab else PAGE % token)

    async def reply(self):
        await self.town.exchange(self.viewer, self.viewer.token, random.choice(self.town.ports))
        self.wire.write(REPLY)


class Viewer(asyncio.Protocol):
    """A viewer and the open tab: a WebSocket to the app through the portal, opened again when it is closed."""

    def __init__(self, town, number, item, person, name):
        self.town, self.number, self.item, self.person, self.name = town, number, item, person, name
        self.cookie, self.port, self.loop = secrets.token_urlsafe(32), town.ports[number % len(town.ports)], asyncio.get_running_loop()
        self.token = self.wire = self.asked = None
        self.is_open = self.asks = False

    def fields(self):
        return {"Host": self.town.content_host, "Origin": f"{self.town.portal.scheme}://{self.town.content_host}", "Cookie": f"{self.town.cookie_prefix}{content_cookie(self.item.guid)}={self.cookie}"}

    def open(self):
        if not self.town.over:
            self.began, self.head = time.monotonic(), b""
            self.town.spawn("tab opened", self.loop.create_connection(lambda: self, "127.0.0.1", self.port, ssl=self.town.portal.tls))

    def connection_made(self, wire):
        self.wire = wire
        wire.write(request("GET", f"/content/{self.item.guid}/tab/{self.number}", {**self.fields(), **UPGRADE}))

    def data_received(self, data):
        note, was_open = self.town.tally.note, self.is_open
        if not was_open:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return
            head, data = self.head.split(b"\r\n\r\n", 1)
            self.is_open = head.startswith(b"HTTP/1.1 101") and not data.startswith(b"\x88")
            if self.is_open:
                note("tab opened", self.began)
                if not self.asks:
                    self.asks = True
                    self.loop.call_later(random.uniform(0, self.town.pause), self.ask)
            elif not data.startswith(b"\x88"):
                note("tab opened", self.began, head[9:12].decode())
        if data.startswith(b"\x88"):
            note("tab closed by the portal" if was_open else "tab opened", self.began, f"close code {int.from_bytes(data[2:4], 'big')}")
            self.wire.close()
        elif data and self.asked:
            note("message in a tab, there and back", self.asked)
            self.asked = None

    def connection_lost(self, _):
        self.is_open, self.asked = False, None
        self.loop.call_later(random.uniform(*self.town.reopens), self.open)

    def ask(self):
        if self.is_open:
            if self.asked:
                self.town.tally.note("message in a tab, there and back", None, "no answer until the next one")
            self.asked = time.monotonic()
            self.wire.write(MESSAGE)
        self.loop.call_later(self.town.pause, self.ask)


class Browser:
    """A browser without script, whose requests reach any node. Each has an address of its own."""

    def __init__(self, town, viewer=None):
        self.town, self.viewer, self.jars = town, viewer, collections.defaultdict(dict)
        self.fields = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin",
                       "Content-Type": "application/x-www-form-urlencoded", "X-Forwarded-For": f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"}

    async def go(self, url, form=None, port=None):
        """One request: where it leads if it redirects, else None; the page; the head."""
        at = urllib.parse.urlsplit(url)
        host, path = at.netloc or self.town.portal_host, at.path + (f"?{at.query}" if at.query else "")
        fields = {"Host": host, **self.fields, "Cookie": "; ".join(f"{name}={value}" for name, value in self.jars[host].items())}
        method, body = ("GET", b"") if form is None else ("POST", urllib.parse.urlencode(form).encode())
        status, head, page = await self.town.wires.ask(port or random.choice(self.town.ports), method, path, fields, body)
        self.jars[host].update(re.findall(r"(?i)\r\nset-cookie: ([^=]+)=([^;\r]*)", head))
        if status not in (200, 303):
            raise RuntimeError(f"{status} of {re.sub('[0-9a-f-]{36}', '…', at.path)}")
        place = re.search(r"(?i)\r\nlocation: (\S+)", head)
        return place and urllib.parse.urljoin(f"{self.town.portal.scheme}://{host}{path}", place.group(1)), page, head

    async def follow(self, url):
        for _ in range(9):
            url, page, head = await self.go(url)
            if url is None:
                return page, head
        raise RuntimeError("too many redirects")

    async def submit(self, page, action, values, port=None, kind=None):
        """Posts a form of a page; where that leads, and the time of the answer."""
        form = next((part for part in re.findall(r"<form (.*?)</form>", page, re.S) if f'action="{action}"' in part), "")
        hidden = {html.unescape(name): html.unescape(value) for name, value in re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', form)}
        began = time.monotonic()
        where, _, _ = await self.go(action, {**hidden, **values}, port)
        if where is None:
            raise RuntimeError(f"a form of /{action.split('/')[1]} came back")
        if kind:
            self.town.tally.note(kind, began)
        return where, time.monotonic()

    async def sign_in(self, name, path):
        page, _ = await self.follow(f"/login?next={path}")
        return (await self.submit(page, "/login", {"username": name, "password": PASSWORD}, kind="sign-in: the password"))[0]

    async def revoke(self, port=None):
        """Takes the viewer's consent back; the time of the answer."""
        page, _ = await self.follow("/consents")
        action = re.search(r'href="(/consents/[0-9a-f-]{36}/revoke)"', page)
        if not action:
            raise RuntimeError("no consent to revoke")
        page, _ = await self.follow(action.group(1))
        return (await self.submit(page, action.group(1), {}, port, "consent revoked"))[1]

    async def give(self):
        page, _ = await self.follow(f"/consents/new?content={self.viewer.item.guid}")
        where, _ = await self.submit(page, "/consents/new", {}, kind="consent given")
        await self.follow(where)


Item = collections.namedtuple("Item", "guid key")


class Town:
    """A portal, its people, and what they do."""

    def __init__(self, binary, seed, name, place, nodes, count, pause=60, tls=False, reopens=(1, 3)):
        self.place, self.portal, self.tally, self.count = place, Portal(binary, seed, name, place, nodes, tls), Tally(), count
        self.wires, self.cookie_prefix = Wires(self.portal.tls), "__Host-" if tls else ""
        self.pause = pause  # seconds between two messages of a tab
        self.reopens = reopens  # after so many seconds, at least and at most, a tab that was closed is opened again
        self.ports, self.over, self.tasks, self.viewers, self.tabs, self.browsers = self.portal.ports, False, set(), [], [], collections.deque(maxlen=200)
        self.portal_host, self.content_host = self.portal.host, f"localhost:{self.ports[0]}"

    def sql(self, text):
        if self.place:
            out = subprocess.run(["psql", self.place, "-qAt", "-F", "\x1f", "-v", "ON_ERROR_STOP=1"], input=text, capture_output=True, text=True, check=True).stdout
            return [line.split("\x1f") for line in out.rstrip("\n").split("\n")]
        with sqlite3.connect(pathlib.Path(self.portal.settings[0]["VALETKEY_DATA_DIR"]) / "valetkey.db", timeout=20) as file:
            return file.execute(text).fetchall()

    def spawn(self, kind, act, limit=30):
        """Lets something happen; what goes wrong is a refusal of its kind."""
        async def run():
            try:
                await asyncio.wait_for(act, limit)
            except Exception as error:
                self.tally.note(kind, None, str(error) or type(error).__name__)
        task = asyncio.get_running_loop().create_task(run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def api(self, key, method, path, body):
        fields = {"Host": self.portal_host, "Authorization": f"Key {key}", "Content-Type": "application/json"}
        status, _, text = await self.wires.ask(random.choice(self.ports), method, f"/__api__/v1/{path}", fields, json.dumps(body).encode())
        if status >= 300:
            raise RuntimeError(f"{status} of {method}")
        return json.loads(text) if text else None

    async def settle_in(self):
        """Publishers with keys of their own, their items, and viewers with a consent, a browser session and a content session each."""
        self.app = await asyncio.get_running_loop().create_server(lambda: App(self), "127.0.0.1", 0)
        upstream, keys, tokens, items = f"http://127.0.0.1:{self.app.sockets[0].getsockname()[1]}", [], [], {}
        for name in (f"publisher{number}" for number in range(PUBLISHERS)):
            self.portal.api("POST", "users", {"username": name, "email": f"{name}@example.org", "password": PASSWORD, "user_role": "publisher"})
            browser = Browser(self)
            page, _ = await browser.follow(await browser.sign_in(name, "/account/keys"))
            page, _ = await browser.follow((await browser.submit(page, "/account/keys", {"name": "apps", "user_role": "publisher"}))[0])
            keys.append(re.search(r"vk_[\w-]+", page).group(0))
        for start in range(0, self.count, PER_ITEM):
            key, count = keys[start // PER_ITEM % PUBLISHERS], min(PER_ITEM, self.count - start)
            guid = (await self.api(key, "POST", "content", {"name": f"item-{start}", "access_type": "logged_in"}))["guid"]
            # Publishers may not enter one another's addresses; an administrator may.
            await asyncio.to_thread(self.portal.api, "PATCH", f"content/{guid}", {"upstream_url": upstream})
            await self.api(key, "PUT", f"content/{guid}/oauth/integrations/associations", [{"oauth_integration_guid": self.portal.integration}])
            items[guid], self.portal.content = Item(guid, key), guid
            tokens += await asyncio.to_thread(self.portal.seed, count, count)
        names, rows, self.items = dict(self.sql("SELECT guid, username FROM people")), [], list(items.values())
        for number, token in enumerate(tokens):
            claims = claims_of(token)
            viewer = Viewer(self, number, items[claims["content"]], claims["sub"], names[claims["sub"]])
            self.viewers.append(viewer)
            self.tabs.append(viewer)
            rows.append((claims, viewer.cookie))
        self.sql(content_sessions(rows))
        self.sql("UPDATE people SET password_hash = (SELECT password_hash FROM people WHERE username = 'ada') WHERE username LIKE 'seeded%'")

    async def open_tabs(self):
        for viewer in self.viewers:
            viewer.open()
            await asyncio.sleep(0.005)
        for _ in range(300):
            if all(viewer.is_open for viewer in self.viewers):
                return
            await asyncio.sleep(0.2)
        raise SystemExit(f"only {sum(viewer.is_open for viewer in self.viewers)} tabs are open")

    async def warm_up(self):
        """Every node has met every viewer: with one exchange a minute at any of them that takes long."""
        for viewer in self.viewers:
            for port in self.ports:
                await self.exchange(viewer, viewer.token, port)

    async def exchange(self, viewer, token, port):
        """None, or why it was refused."""
        began = time.monotonic()
        fields = {"Host": self.portal_host, "Authorization": f"Key {viewer.item.key}", "Content-Type": "application/x-www-form-urlencoded"}
        status, _, body = await self.wires.ask(port, "POST", CREDENTIALS, fields, (FORM + token).encode())
        refusal = None if status == 200 else f"{status} {(json.loads(body).get('payload') or {}).get('reason', '')}"
        self.tally.note("exchange", began, refusal)
        return refusal

    async def arrive(self, viewer):
        """A browser without cookies: the form, the password, and the redirects to the app."""
        browser = Browser(self, viewer)
        where, began = await browser.sign_in(viewer.name, f"/content/{viewer.item.guid}/"), time.monotonic()
        _, head = await browser.follow(where)
        if "x-token" not in head.lower():
            raise RuntimeError("the way to the app ends elsewhere")
        self.tally.note("sign-in: from there to the app", began)
        self.browsers.append(browser)

    async def act(self, kind):
        viewer, began = random.choice(self.viewers), time.monotonic()
        if kind == "sign-in":
            return await self.arrive(viewer)
        if kind == "consent revoked and given":
            browser = self.browsers.popleft()  # nobody else's meanwhile
            await browser.revoke()
            await asyncio.sleep(1)
            await browser.give()
            return self.browsers.append(browser)
        if kind == "page of the app":
            status, *_ = await self.wires.ask(viewer.port, "GET", f"/content/{viewer.item.guid}/", viewer.fields())
            if status != 200:
                raise RuntimeError(str(status))
        elif kind == "title edit":
            item = random.choice(self.items)
            await self.api(item.key, "PATCH", f"content/{item.guid}", {"title": f"title {random.randrange(10**6)}"})
        else:
            await random.choice(self.browsers).follow(kind[5:])
        self.tally.note(kind, began)

    async def keep_doing(self, kind):
        while True:
            await asyncio.sleep(random.expovariate(HOURLY[kind] * self.count / 3600))
            self.spawn(kind, self.act(kind))

    async def watch_itself(self):
        """How late this program is: what it measures is no better."""
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self.tally.note("(this program's own delay)", due)

    async def revoke_times(self, elsewhere):
        """From the answer to a revoke to the first refused exchange, in ms, with a token that is valid by itself."""
        took = []
        while len(took) < REVOKES and self.browsers:
            browser, port = self.browsers.popleft(), self.ports[len(took) % len(self.ports)]
            asked = self.ports[(len(took) + elsewhere) % len(self.ports)]
            _, head = await browser.follow(f"{self.portal.scheme}://{self.content_host}/content/{browser.viewer.item.guid}/")
            token = re.search(r"(?i)\r\nx-token: (\S+)", head)
            if not token or await self.exchange(browser.viewer, token.group(1), asked):
                continue  # the same viewer just revoked in another browser
            began = await browser.revoke(port)
            while not (refusal := await self.exchange(browser.viewer, token.group(1), asked)):
                pass
            took.append(1000 * (time.monotonic() - began))
            assert "not_consented" in refusal, refusal
            await asyncio.sleep(0.5)  # until all nodes know: else they would send the browser to and fro
            await browser.give()
            self.browsers.append(browser)
        return took

    def read(self):
        """Counters of now: CPU seconds, MB, rows, and statements since the last reset."""
        pids = [process.pid for process in self.portal.processes]
        now = {"at": time.monotonic(), "own": time.process_time(), "cpu": [cpu(pid) for pid in pids], "mb": [memory(pid) for pid in pids], "database": {}, "rows": {}, "statements": []}
        if self.place:
            assert self.sql("SELECT dealloc FROM pg_stat_statements_info") == [["0"]], "pg_stat_statements.max is too small"
            now["database"] = {pid: cpu(int(pid)) for pid, in self.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")}
            now["rows"] = {name: [int(count) for count in counts] for name, *counts in self.sql("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables")}
            sums = collections.defaultdict(lambda: [0, 0, 0])
            for calls, ms, rows, text in json.loads(self.sql("""SELECT coalesce(json_agg(json_build_array(calls, total_exec_time + total_plan_time, rows, query)), '[]')
                    FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query NOT LIKE '%pg_stat%'""")[0][0]):
                text = TUPLES.sub("(…)", " ".join(text.replace('"', "").split()))
                sums[text] = [old + new for old, new in zip(sums[text], (calls, ms, rows))]
            now["statements"] = sorted(((*values, text) for text, values in sums.items()), key=lambda row: -row[1])
        return now

    async def window(self, seconds):
        """What happens in a while; rates are a second's, of the whole installation."""
        if self.place:
            self.sql("SELECT pg_stat_statements_reset(0, (SELECT oid FROM pg_database WHERE datname = current_database()), 0)")
        before = await asyncio.to_thread(self.read)
        self.tally.counts = True
        await asyncio.sleep(seconds)
        self.tally.counts = False
        after = await asyncio.to_thread(self.read)
        took, said = after["at"] - before["at"], after["statements"]
        nodes = [new - old for new, old in zip(after["cpu"], before["cpu"])]
        rows = {name: [new - old for new, old in zip(counts, before["rows"].get(name, [0, 0, 0]))] for name, counts in after["rows"].items()}
        sums = {"CPU of the nodes, s": sum(nodes)}
        if self.place:
            rounds = [(calls, ms) for calls, ms, _, text in said if ROUND.match(text)]
            sums |= {"statements": sum(calls for calls, *_ in said), "time of statements, s": sum(ms for _, ms, *_ in said) / 1000,
                     "CPU of the database, s": sum(used - before["database"].get(pid, 0) for pid, used in after["database"].items()),
                     "rows written": sum(map(sum, rows.values())), "write transactions": sum(calls for calls, *_, text in said if text.startswith("COMMIT")),
                     "writes of the rounds": sum(calls for calls, _ in rounds), "time of these, s": sum(ms for _, ms in rounds) / 1000}
        return {"seconds": took, "rates": {what: value / took for what, value in sums.items()}, "rows": rows, "statements": said, "mb": after["mb"], "cpu": [used / took for used in nodes], "own": (after["own"] - before["own"]) / took}

    async def close(self):
        self.over = True
        for viewer in self.viewers:
            if viewer.wire:
                viewer.wire.close()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        self.app.close()
        await asyncio.to_thread(self.portal.stop)


def claims_of(token):
    """What a session token says."""
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def content_sessions(pairs):
    """The statement that stores a session at content for each session token's claims and cookie."""
    rows = (f"('{hashlib.sha256(cookie.encode()).hexdigest()}', '{claims['sid']}', '{claims['sub']}', '{claims['content']}', {1000 * claims['iat']})" for claims, cookie in pairs)
    return f"INSERT INTO content_sessions (key_hash, session, person, content, created_at) VALUES {', '.join(rows)}"


def content_cookie(guid):
    """The name of an item's session cookie, as `http::sessions` builds it."""
    return "valetkey-s" + base64.urlsafe_b64encode(uuid.UUID(guid).bytes[10:]).decode()


def cpu(pid):
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:  # a connection that ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024
