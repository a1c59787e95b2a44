// The pages at the size of a company: 2,000 people, 1,000 content items, 300 integrations, 40 groups; names in four scripts, some
// of 200 letters. Every list and picker is searched, sorted, paged and looked at, wide and narrow, light and dark, with and without
// script. Prints a table: bytes, elements, height and time of each.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { binary, browser, look, signIn } from "./harness.mjs";

const PASSWORD = "a long enough sentence";
const folder = mkdtempSync(join(tmpdir(), "valetkey-company-"));
const rows = [];
let chromium, server, base, key;

const SEED = `
import sqlite3, sys, uuid
db = sqlite3.connect(sys.argv[1], timeout=30)
owner, = db.execute("SELECT guid FROM people").fetchone()
now = 1764000000000
names = ["Jürgen Müßiggang", "Анна Петрова", "山田 太郎", "ליאורה כהן", "Zoë O'Neill", "A" * 100]
for number in range(2000):
    first = f"{names[number % 6]} {number}"
    db.execute("INSERT INTO people (guid, username, username_key, email, first_name, last_name, role, locked, created_at, updated_at, active_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (str(uuid.uuid4()), f"person{number}", f"person{number}", f"person{number}@example.org", first, "B" * 100 if number % 6 == 5 else "", "publisher" if number % 10 == 0 else "viewer", number % 100 == 7, now, now, now + number if number % 3 else None))
columns = [row[1] for row in db.execute("PRAGMA table_info(content)") if row[1] != "number"]
model = dict(zip(columns, db.execute(f"SELECT {', '.join(columns)} FROM content LIMIT 1").fetchone()))
for number in range(1000):
    row = {**model, "guid": str(uuid.uuid4()), "name": f"item-{number}", "slug": f"item-{number}", "title": f"{names[number % 6][:60]} report {number}"}
    db.execute(f"INSERT INTO content ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", [row[column] for column in columns])
columns = [row[1] for row in db.execute("PRAGMA table_info(integrations)") if row[1] != "number"]
model = dict(zip(columns, db.execute(f"SELECT {', '.join(columns)} FROM integrations LIMIT 1").fetchone()))
for number in range(300):
    row = {**model, "guid": str(uuid.uuid4()), "name": f"Warehouse {number}", "description": f"For team {number % 7}"}
    db.execute(f"INSERT INTO integrations ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", [row[column] for column in columns])
# One viewer with 60 consents, of which 20 were not used for long; and an item to which 500 people consented.
integration, = db.execute("SELECT guid FROM integrations WHERE name = 'Warehouse 5'").fetchone()
items = [row[0] for row in db.execute("SELECT guid FROM content ORDER BY number LIMIT 60")]
people = [row[0] for row in db.execute("SELECT guid FROM people ORDER BY number LIMIT 501")]
def connect(person):
    db.execute("INSERT INTO connections (guid, person, integration, state, state_at, scopes, generation, connected_at, created_at, updated_at) VALUES (?, ?, ?, 'active', ?, 'a', 1, ?, ?, ?)", (str(uuid.uuid4()), person, integration, now, now, now, now))
def consent(person, item, used):
    db.execute("INSERT INTO consents (guid, person, content, integration, scopes, created_at, last_used_at, uses) VALUES (?, ?, ?, ?, 'a', ?, ?, 3)", (str(uuid.uuid4()), person, item, integration, now, used))
for person in people: connect(person)
for number, item in enumerate(items): consent(owner, item, None if number < 20 else int(sys.argv[2]))
for person in people[1:]: consent(person, items[0], now)
db.executemany("INSERT INTO activity_hours (hour, kind, content, integration, times, last_at) VALUES (?, ?, ?, ?, ?, ?)",
    [((int(sys.argv[2]) // 3600000 - hour) * 3600000, kind, items[0], integration, 1 + (hour * 7) % 40, int(sys.argv[2]) - hour * 3600000) for hour in range(24 * 399) for kind in ("exchanged", "not_consented") if kind == "exchanged" or hour % 5 == 0])
for number in range(40):
    db.execute("INSERT INTO groups (guid, name, name_key, created_at) VALUES (?, ?, ?, ?)", (str(uuid.uuid4()), f"Team {number}", f"team {number}", now))
db.commit()
`;

before(async () => {
  const port = await new Promise((done) => {
    const socket = createServer().listen(0, "127.0.0.1", () => {
      const { port } = socket.address();
      socket.close(() => done(port));
    });
  });
  base = `http://127.0.0.1:${port}`;
  const env = { ...process.env, VALETKEY_DATA_DIR: folder, VALETKEY_LISTEN: `127.0.0.1:${port}`, VALETKEY_PRIVATE_HOSTS: "127.0.0.1" };
  key = execFileSync(binary, ["admin", "create", "ada", "--password-stdin", "--api-key"], { input: PASSWORD, env, stdio: ["pipe", "pipe", "ignore"] }).toString().trim();
  server = spawn(binary, ["serve"], { env, stdio: "ignore" });
  for (let tries = 0; tries < 200 && !(await fetch(`${base}/__ping__`).then((answer) => answer.ok, () => false)); tries++) await new Promise((done) => setTimeout(done, 100));
  await api("POST", "content", { name: "first", title: "First" });
  const config = { client_id: "c", client_secret: "s3cret-of-the-test", authorization_uri: "https://idp.example.org/a", token_uri: "https://idp.example.org/t", scopes: "a" };
  await api("POST", "oauth/integrations", { name: "First", template: "custom", config });
  execFileSync("python3", ["-c", SEED, join(folder, "valetkey.db"), String(Date.now())]);
  chromium = await browser();
});
after(async () => {
  await chromium?.close();
  server?.kill();
  rmSync(folder, { recursive: true, force: true });
  console.log(`| page | bytes | elements | height at 1280 px | at 360 px | ms |\n| --- | --- | --- | --- | --- | --- |\n${rows.join("\n")}`);
});

const api = async (method, path, body) => {
  const answer = await fetch(`${base}/__api__/v1/${path}`, { method, headers: { Authorization: `Key ${key}` }, body: JSON.stringify(body) });
  assert.ok(answer.ok, await answer.clone().text());
  return answer.json();
};

async function person(options = {}) {
  const context = await chromium.newContext({ viewport: { width: 1280, height: 820 }, ...options });
  context.setDefaultTimeout(15000);
  const page = await context.newPage();
  await signIn(page, base, "ada", PASSWORD);
  return page;
}

/** Opens a page, measures it, and checks that it stays small and within its width. */
async function measure(page, narrow, name, path) {
  await page.goto(`${base}${path}`);
  const began = performance.now();
  const answer = await page.goto(`${base}${path}`);
  const bytes = (await answer.body()).length, took = performance.now() - began;
  const { elements, height } = await page.evaluate(() => ({ elements: document.querySelectorAll("*").length, height: document.documentElement.scrollHeight }));
  await look(page, `company-${name}`);
  await narrow.goto(`${base}${path}`);
  const small = await narrow.evaluate(() => ({ height: document.documentElement.scrollHeight, width: document.documentElement.scrollWidth }));
  await look(narrow, `company-${name}-narrow-dark`, { scripted: false });
  rows.push(`| ${path.split("?")[0].replace(/[0-9a-f-]{36}/, "…")} | ${bytes.toLocaleString("en")} | ${elements} | ${height} | ${small.height} | ${took.toFixed(0)} |`);
  assert.ok(bytes < 100_000, `${path}: ${bytes} bytes`);
  assert.ok(small.width <= 360, `${path}: ${small.width} px wide on a narrow screen`);
}

test("lists are short pages that are searched, filtered, sorted and turned", async () => {
  const page = await person(), narrow = await person({ javaScriptEnabled: false, viewport: { width: 360, height: 740 }, colorScheme: "dark" });
  for (const [name, path] of [["people", "/people"], ["content", "/content"], ["integrations", "/integrations"], ["groups", "/groups"], ["audit", "/audit"], ["uses", "/audit/uses"]]) await measure(page, narrow, name, path);
  for (const reader of [page, narrow]) {
    await reader.goto(`${base}/people`);
    assert.match(await reader.textContent("main"), /2,001 people/);
    await reader.fill("#find", "jurgen mussig");
    await reader.click("text=Show >> nth=0");
    // Neither the accent nor “ß” must be typed.
    assert.match(await reader.textContent("main"), /334 of 2,001 people/);
    await reader.fill("#find", "jurgen");
    await reader.selectOption("#state", "locked");
    await reader.click("main button:has-text('Show')");
    assert.match(await reader.textContent("main"), /\d of 2,001 people/);
    assert.match(reader.url(), /find=jurgen/);
    await reader.click("text=Show all");
    // “2” before “10”, and pages that follow one another.
    await reader.goto(`${base}/integrations`);
    const names = () => reader.$$eval("tbody td:first-child a", (links) => links.map((link) => link.textContent.trim()));
    assert.deepEqual((await names()).slice(0, 4), ["First", "Warehouse 0", "Warehouse 1", "Warehouse 2"]);
    await reader.click("text=Next page");
    assert.equal((await names())[0], "Warehouse 49");
    await reader.click("text=First page");
    await reader.click("thead a:has-text('Name')").catch(async () => reader.goto(`${base}/integrations?sort=name&order=desc`));
    assert.equal((await names())[0], "Warehouse 299");
  }
  await page.goto(`${base}/content`);
  await page.fill("#find", "ЯПЕТРОВА анна".slice(1));
  await page.click("main button:has-text('Show')");
  assert.match(await page.textContent("main"), /167 of 1,001 content items/);
  await page.context().close();
  await narrow.context().close();
});

test("choosing one of many is a search, with and without script", async () => {
  for (const options of [{}, { javaScriptEnabled: false, viewport: { width: 360, height: 740 }, colorScheme: "dark" }]) {
    const page = await person(options), scripted = options.javaScriptEnabled !== false, suffix = scripted ? "" : "-narrow-dark";
    const narrow = await person({ javaScriptEnabled: false, viewport: { width: 360, height: 740 } });
    await page.goto(`${base}/groups?find=team+7`);
    await page.click("tbody a:has-text('Team 7')");
    const group = new URL(page.url()).pathname;
    if (scripted) await measure(page, narrow, "group", group);
    await page.goto(`${base}${group}`);
    await page.fill("#find-members", "person1234");
    await page.click("text=Search >> nth=-1");
    await look(page, `company-picker${suffix}`, { scripted });
    if (!(await page.$("input[name=person]"))) assert.fail(await page.textContent("main"));
    await page.check("input[name=person]");
    await page.click("text=Add to the group");
    assert.match(await page.textContent(".flash"), /Added to the group/);
    // Taken out again, for the second round.
    await page.click("button:has-text('Remove')");
    await page.goto(`${base}/content?find=report+42`);
    const settings = await page.getAttribute("tbody a[href^='/content-settings/']", "href");
    if (scripted) await measure(page, narrow, "content-settings", settings);
    await page.goto(`${base}${settings}`);
    await page.fill("#find-integration-title", "warehouse 123");
    await page.click("form[aria-label='Search integrations'] button");
    await page.check("input[name=integration]");
    await look(page, `company-integration-picker${suffix}`, { scripted });
    await page.click("text=Save integration");
    assert.match(await page.textContent(".flash"), /Viewers are asked/);
    // What is attached stays shown, whatever is searched for.
    assert.equal(await page.isChecked("input[name=integration]"), true);
    await page.uncheck("input[name=integration]");
    await page.click("text=Save integration");
    assert.match(await page.textContent(".flash"), /no integration/);
    await page.fill("#find-access-title", "person77");
    await page.click("form[aria-label='Search people and groups'] button");
    await page.check("input[name=person] >> nth=0");
    await page.click("text=Add to the list");
    assert.match(await page.textContent(".flash"), /Added to the list/);
    await page.goto(`${base}/integrations?find=warehouse+7`);
    const integration = await page.getAttribute("tbody a", "href");
    if (scripted) await measure(page, narrow, "integration", integration);
    await page.context().close();
    await narrow.context().close();
  }
});

test("sixty consents are searched and ended together; an item with five hundred, and a year of it, stay short pages", async () => {
  const page = await person(), narrow = await person({ javaScriptEnabled: false, viewport: { width: 360, height: 740 }, colorScheme: "dark" });
  await measure(page, narrow, "consents", "/consents");
  assert.match(await page.textContent("main"), /60 consents/);
  for (const reader of [page, narrow]) {
    await reader.goto(`${base}/consents`);
    await reader.fill("#find", "report 42");
    await reader.click("main button:has-text('Show')");
    assert.match(await reader.textContent("main"), /1 of 60 consents/);
  }
  await page.goto(`${base}/consents`);
  await page.click("text=Next page");
  assert.equal(await page.locator(".panel-row .strong").count(), 10);
  await page.goto(`${base}/consents`);
  await page.click("button:has-text('not used for 90 days')");
  assert.match(await page.textContent("h1"), /Revoke 20 consents\?/);
  await page.click("button.destructive");
  assert.match(await page.textContent(".flash"), /Revoked 20 consents/);
  await page.goto(`${base}/content?find=First`);
  const settings = await page.getAttribute("tbody a[href^='/content-settings/']", "href");
  await measure(page, narrow, "content-consents", `${settings}/consents`);
  await measure(page, narrow, "content-activity", `${settings}/activity?range=year`);
  assert.match(await page.textContent("main"), /in the last 400 days; most/);
  // Some of them end together; and somebody is let into several items, found by a search, without script.
  await page.goto(`${base}${settings}/consents?find=person12`);
  for (const box of await page.locator("input[name=consent]").all()) await box.check();
  await page.click("button:has-text('End') >> nth=-1");
  assert.match(await page.textContent("h1"), /^End \d+ consents\?$/);
  await page.click("button.destructive");
  assert.match(await page.textContent(".flash"), /Ended \d+ consents/);
  await narrow.goto(`${base}/content?find=report+7`);
  await narrow.check("input[name=content] >> nth=0");
  await narrow.check("input[name=content] >> nth=1");
  await narrow.click("text=Let somebody in");
  await narrow.fill("#find-who", "team 12");
  await narrow.click("button:has-text('Search')");
  await look(narrow, "company-let-in-narrow-dark", { scripted: false });
  await narrow.check("input[name=person]");
  await narrow.click("button:has-text('Let in')");
  assert.match(await narrow.textContent(".flash"), /Let in to 2 content items/);
  await page.goto(`${base}/integrations?find=warehouse+5`);
  const integration = await page.getAttribute("tbody a:has-text('Warehouse 5')", "href");
  await measure(page, narrow, "connected", `${integration}/connected`);
  assert.match(await page.textContent("main"), /501 people/);
  await measure(page, narrow, "integration-activity", `${integration}/activity?range=month`);
  await page.context().close();
  await narrow.context().close();
});

test("a combobox is used with the keyboard alone", async () => {
  const page = await person();
  await page.goto(`${base}/groups?find=team+8`);
  await page.click("tbody a:has-text('Team 8')");
  await page.focus("#find-members");
  await page.keyboard.type("person1500");
  await page.waitForSelector("#find-members[aria-expanded=true]");
  assert.match(await page.textContent("[role=option]"), /person1500/);
  await look(page, "company-combobox");
  await page.keyboard.press("Escape");
  assert.equal(await page.getAttribute("#find-members", "aria-expanded"), "false");
  await page.keyboard.press("ArrowDown");
  await page.waitForSelector("#find-members[aria-expanded=true]");
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.getAttribute("#find-members", "aria-activedescendant"), "find-members-list-0");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.name), "person");
  for (let tabs = 0; tabs < 5 && !(await page.evaluate(() => document.activeElement.textContent.includes("Add to the group"))); tabs++) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".flash");
  assert.match(await page.textContent(".flash"), /Added to the group/);
  // Neither another site nor an app of the same origin gets anything: they do not know the token.
  const refused = await page.request.post(`${base}/choices`, { form: { what: "people", find: "a", csrf: "guess" } });
  assert.equal(refused.status(), 403);
  await page.context().close();
});

test("steps that cannot be taken back are asked about", async () => {
  const page = await person();
  await page.goto(`${base}/people?find=person15%40`);
  await page.click("tbody a");
  await page.click("button:has-text('Lock')");
  assert.match(await page.textContent("h1"), /^Lock .*\?$/);
  await look(page, "company-lock");
  await page.click("button.destructive");
  assert.match(await page.textContent(".flash"), /Locked/);
  await page.goto(`${base}/groups?find=team+39`);
  await page.click("tbody a");
  await page.click("button:has-text('Delete')");
  await look(page, "company-group-delete");
  assert.match(await page.textContent("main"), /Their accounts stay/);
  await page.click("button.destructive");
  assert.match(await page.textContent(".flash"), /Deleted Team 39/);
  await page.context().close();
});
