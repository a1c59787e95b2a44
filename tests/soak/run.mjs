// A soak: a Streamlit app that asks the provider every two seconds who its viewer is, in two people's open tabs, with access
// tokens of twenty seconds from a certified provider in strict rotation; the app restarts, and the portal restarts, in the middle.
//   node tests/soak/run.mjs [MINUTES, default 1]
// Passes if every answer is the viewer's own, answers never stop for longer than a restart takes, no page was loaded again, and
// the provider saw no refresh token twice.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { browser, python } from "../browser/harness.mjs";
import { PASSWORD, lab, sleep } from "../faults/lab.mjs";

const minutes = Number(process.argv[2] ?? 1);
const here = await lab({ viewers: 0, accessTokenSeconds: 20 });
const portal = `http://127.0.0.1:${here.front}`;

const app = join(mkdtempSync(join(tmpdir(), "valetkey-soak-")), "app.py");
writeFileSync(app, `
import os
import requests
import streamlit as st

EXCHANGE = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token"}
token = st.context.headers["Posit-Connect-User-Session-Token"]

@st.fragment(run_every=2)
def ask():
    st.session_state.asked = st.session_state.get("asked", 0) + 1
    try:
        answer = requests.post(os.environ["CONNECT_SERVER"] + "/__api__/v1/oauth/integrations/credentials", data={**EXCHANGE, "subject_token": token},
                               headers={"Authorization": "Key " + os.environ["CONNECT_API_KEY"]}, timeout=15)
        answer.raise_for_status()
        me = requests.get(os.environ["ISSUER"] + "/me", headers={"Authorization": "Bearer " + answer.json()["access_token"]}, timeout=15)
        me.raise_for_status()
        st.title(f"{me.json()['sub']} {st.session_state.asked}")
    except Exception as error:
        st.title(f"failed {st.session_state.asked} {type(error).__name__} {getattr(getattr(error, 'response', None), 'text', '')[:200]}")

ask()
`);
const freePort = await new Promise((done) => import("node:net").then(({ createServer }) => { const socket = createServer().listen(0, "127.0.0.1", () => { const { port } = socket.address(); socket.close(() => done(port)); }); }));
let streamlit;
const startApp = async () => {
  streamlit = spawn(python, ["-m", "streamlit", "run", app, "--server.port", String(freePort), "--server.address", "127.0.0.1", "--server.headless", "true", "--browser.gatherUsageStats", "false"],
    { stdio: "ignore", env: { ...process.env, CONNECT_SERVER: portal, CONNECT_API_KEY: here.adaKey, ISSUER: here.issuer } });
  for (let tries = 0; tries < 200; tries++) {
    if (await fetch(`http://127.0.0.1:${freePort}/_stcore/health`).then((answer) => answer.ok, () => false)) return;
    await sleep(200);
  }
  throw new Error("the app did not start");
};
await startApp();
const changed = await here.api("PATCH", `content/${here.content}`, { upstream_url: `http://127.0.0.1:${freePort}` });
assert.equal(changed.status, 200, changed.body);

const chromium = await browser();
const people = {};
for (const name of ["vera", "viktor"]) {
  const made = await here.api("POST", "users", { username: name, email: `${name}@example.org`, password: PASSWORD, user_role: "viewer" });
  assert.ok(made.status < 300, made.body);
  const page = await (await chromium.newContext()).newPage();
  await page.goto(`${portal}/login`);
  await page.fill("#username", name);
  await page.fill("#password", PASSWORD);
  await page.click("text=Sign in >> visible=true >> nth=-1");
  await page.goto(`${portal}/content/${here.content}/`);
  await page.click("form .primary");
  await page.waitForSelector(`h1:has-text("${name}")`, { timeout: 60000 });
  await page.evaluate(() => { window.since = performance.timeOrigin; });
  people[name] = { page, asked: 0, wrong: [], seenAt: Date.now(), longest: 0, last: "" };
}

const began = Date.now(), end = began + minutes * 60_000;
const at = { app: began + (end - began) * 0.35, portal: began + (end - began) * 0.65 };
let excused = 0;
while (Date.now() < end) {
  if (at.app && Date.now() > at.app) {
    at.app = 0;
    excused = Date.now() + 30_000;
    streamlit.kill("SIGKILL");
    await sleep(2000);
    await startApp();
    console.error("the app was restarted");
  }
  if (at.portal && Date.now() > at.portal) {
    at.portal = 0;
    excused = Date.now() + 30_000;
    const { code } = await here.kill(here.nodes[0], "SIGTERM");
    assert.equal(code, 0, "a clean end");
    await here.start(here.nodes[0]);
    console.error("the portal was restarted");
  }
  for (const [name, person] of Object.entries(people)) {
    const title = await person.page.textContent("h1").catch(() => "");
    if (!title || title === person.last) {
      person.longest = Math.max(person.longest, Date.now() - person.seenAt);
      continue;
    }
    person.last = title;
    person.longest = Math.max(person.longest, Date.now() - person.seenAt);
    person.seenAt = Date.now();
    if (title.startsWith("failed") && Date.now() < excused) continue;
    person.asked++;
    if (!title.startsWith(`${name}@example.org `)) person.wrong.push(title);
  }
  await sleep(500);
}
for (const [name, person] of Object.entries(people)) {
  assert.deepEqual(person.wrong, [], `${name}: every answer is the viewer's own`);
  assert.ok(person.asked > minutes * 60 / 5, `${name}: ${person.asked} answers in ${minutes} minutes`);
  assert.ok(Date.now() - person.seenAt < 15_000, `${name}: answers until the end`);
  assert.equal(await person.page.evaluate(() => window.since === performance.timeOrigin && window.since > 0), true, `${name}: no reload`);
}
assert.equal(here.seen.replays, 0, "no refresh token was used twice");
assert.ok(here.seen.refreshes >= minutes, `${here.seen.refreshes} refreshes`);
console.log("| minutes | person | answers, all their own | longest gap s | refreshes at the provider | replays |\n| --- | --- | --- | --- | --- | --- |");
for (const [name, person] of Object.entries(people)) console.log(`| ${minutes} | ${name} | ${person.asked} | ${(person.longest / 1000).toFixed(1)} | ${here.seen.refreshes} | ${here.seen.replays} |`);
await chromium.close();
streamlit.kill();
await here.stop();
console.log("\n1 passed, 0 failed");
process.exit(0);
