// Real Streamlit as content: the page, its WebSocket, the header of the handshake, the exchange with posit-sdk.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { browser, demo, root, signIn } from "./harness.mjs";

const PASSWORD = "valetkey-demo";
let here, chromium, streamlit, content;

const freePort = () => new Promise((done) => { const socket = createServer().listen(0, "127.0.0.1", () => { const { port } = socket.address(); socket.close(() => done(port)); }); });

before(async () => {
  [here, chromium] = await Promise.all([demo(), browser()]);
  const bo = here.accounts.find((account) => account.username === "bo");
  const api = async (path, method, body) => (await fetch(`${here.portal}/__api__/v1/${path}`, { method, headers: { Authorization: `Key ${bo.api_key}` }, body: JSON.stringify(body) }));
  const port = await freePort();
  content = await (await api("content", "POST", { name: "streamlit", title: "Streamlit app", access_type: "logged_in", upstream_url: `http://127.0.0.1:${port}` })).json();
  await api(`content/${content.guid}/oauth/integrations/associations`, "PUT", [{ oauth_integration_guid: here.integrations[0].guid }]);
  streamlit = spawn(process.env.PYTHON ?? "python3", ["-m", "streamlit", "run", join(root, "tests/clients/streamlit_app.py"), "--server.port", String(port), "--server.address", "127.0.0.1", "--server.headless", "true", "--browser.gatherUsageStats", "false"], {
    stdio: "ignore",
    env: { ...process.env, CONNECT_SERVER: here.portal, CONNECT_API_KEY: bo.api_key, CONNECT_CONTENT_GUID: content.guid, POSIT_PRODUCT: "CONNECT", RSTUDIO_PRODUCT: "CONNECT", DATABRICKS_HOST: here.workspace },
  });
  for (let tries = 0; tries < 120; tries++) {
    if (await fetch(`http://127.0.0.1:${port}/_stcore/health`).then((answer) => answer.ok, () => false)) return;
    await new Promise((done) => setTimeout(done, 500));
  }
  throw new Error("Streamlit did not start");
});
after(async () => {
  streamlit?.kill();
  await chromium?.close();
  await here?.stop();
});

test("two people in one Streamlit process are themselves, and a lost session closes the socket", async () => {
  const pages = [];
  for (const name of ["vera", "viktor"]) {
    const page = await (await chromium.newContext()).newPage();
    await signIn(page, here.portal, name, PASSWORD);
    await page.goto(content.content_url);
    await page.click("text=Continue to Microsoft");
    await page.fill("#password", PASSWORD);
    await page.click("#signin");
    await page.click("#accept");
    await page.waitForSelector(`h1:has-text("Hello ${name}@example.org")`, { timeout: 60000 });
    pages.push([name, page]);
  }
  for (const [name, page] of pages) {
    await page.click("text=Ask again");
    await page.waitForSelector(`text=Still ${name}@example.org`, { timeout: 30000 });
  }
  const [, page] = pages[0];
  const closed = page.waitForEvent("console", { predicate: (message) => /WebSocket/.test(message.text()), timeout: 20000 }).catch(() => null);
  const other = await page.context().newPage();
  await other.goto(`${here.portal}/content`);
  await other.click("summary");
  await other.click("text=Sign out");
  await closed;
  const status = await other.evaluate((url) => fetch(url).then((answer) => answer.status), content.content_url).catch(() => 401);
  assert.equal(status, 401);
});
