// Apps that stay open: `valetkey dev` as a developer uses it, an ended connection mended in a window of its own without a
// reload, two people on one Streamlit process, a session of the app's own that goes on only for its viewer, and the pages.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { agree, binary, browser, look, python, root, signIn } from "./harness.mjs";

const PASSWORD = "valetkey-demo";
let here, child, chromium;
const pages = {};
const account = (name) => here.accounts.find((one) => one.username === name);
const api = (name, path, method = "GET", body = undefined) =>
  fetch(`${here.portal}/__api__/v1/${path}`, { method, headers: { Authorization: `Key ${account(name).api_key}` }, body: body && JSON.stringify(body) });

// Counts, asks who the viewer is, and keeps both on the page: a reload would begin at one again.
const app = join(mkdtempSync(join(tmpdir(), "valetkey-app-")), "app.py");
writeFileSync(app, `
import os
import streamlit as st
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from posit.connect import Client
from posit.connect.external.databricks import ConnectStrategy

token = st.context.headers["Posit-Connect-User-Session-Token"]
st.session_state.asked = st.session_state.get("asked", 0) + 1
try:
    viewer = ConnectStrategy(client=Client(), user_session_token=token)
    name = WorkspaceClient(config=Config(host=os.environ["DATABRICKS_HOST"], credentials_strategy=viewer)).current_user.me().user_name
except Exception as error:
    name = f"nobody ({type(error).__name__})"
st.title(f"{name}, question {st.session_state.asked}")
st.button("Ask again")
`);

async function dev(...rest) {
  const child = spawn(binary, ["dev", "--json", "--listen", "127.0.0.1:0", ...rest], { stdio: ["ignore", "pipe", "ignore"] });
  // The app's own words come on the same stream.
  const here = await new Promise((done, failed) => {
    createInterface({ input: child.stdout }).on("line", (line) => line.startsWith('{"') && done(JSON.parse(line)));
    child.once("exit", (code) => failed(new Error(`dev ended with ${code}`)));
  });
  return { child, here };
}

before(async () => {
  ({ child, here } = await dev("--", python, "-m", "streamlit", "run", app, "--server.address", "127.0.0.1"));
  chromium = await browser();
  for (const name of ["vera", "viktor", "bo"]) {
    pages[name] = await (await chromium.newContext()).newPage();
    await signIn(pages[name], here.portal, name, PASSWORD);
  }
});
after(async () => {
  await chromium?.close();
  const ended = child && new Promise((done) => child.once("exit", done));
  child?.kill("SIGTERM");
  await ended;
});

test("valetkey dev runs the app, and two people in it are themselves", async () => {
  for (const name of ["vera", "viktor"]) {
    await pages[name].goto(here.content[0].url);
    await agree(pages[name]);
    await pages[name].waitForSelector(`h1:has-text("${name}@example.org, question 1")`, { timeout: 60000 });
  }
  for (const round of [2, 3]) {
    for (const name of ["vera", "viktor"]) {
      await pages[name].click("text=Ask again");
      await pages[name].waitForSelector(`h1:has-text("${name}@example.org, question ${round}")`);
    }
  }
});

test("an ended connection is mended in a window of its own, and the open app goes on without a reload", async () => {
  const changed = await api("bo", `content/${here.content[0].guid}`, "PATCH", { proxy: { reconnect_bar: true } });
  assert.equal(changed.status, 200, await changed.text());
  const page = pages.vera;
  await page.reload();
  await page.waitForSelector(`h1:has-text("vera@example.org, question 1")`);
  await page.evaluate(() => { window.stillHere = true; });
  // The connection ends while the app is open; the consent stays.
  const sessions = await (await api("vera", "oauth/sessions")).json();
  assert.equal((await api("vera", `oauth/sessions/${sessions[0].guid}`, "DELETE")).status, 204);
  // A consent taken back closes the socket; Streamlit says so, and the bar what to do.
  const button = page.locator("button:has-text('Reconnect')");
  await button.waitFor({ timeout: 30000 });
  await page.waitForSelector("[role=status]:has-text('This app needs you before it can go on.')");
  await page.screenshot({ path: join(root, "target/pictures/reconnect-bar.png") });
  const [popup] = await Promise.all([page.waitForEvent("popup"), button.click()]);
  await popup.waitForLoadState();
  await agree(popup);
  await button.waitFor({ state: "detached", timeout: 30000 });
  // It closes itself, unless the browser does not let it: then it says so.
  if (!popup.isClosed()) await popup.waitForSelector("h1:has-text('Connected')").catch((error) => { if (!popup.isClosed()) throw error; });
  if (!popup.isClosed()) await popup.close();
  // The app's own reconnect brings it back; its state is the viewer's own, so the count goes on or begins anew, without a reload.
  await page.waitForFunction(() => /vera@example.org, question \d+/.test(document.querySelector("h1")?.textContent ?? ""), undefined, { timeout: 60000 });
  await page.waitForFunction(() => !document.querySelector("[data-testid=stStatusWidget]")?.textContent?.includes("onnecting"), undefined, { timeout: 60000 });
  const before = await page.textContent("h1");
  await page.click("text=Ask again");
  await page.waitForFunction((text) => document.querySelector("h1").textContent !== text && document.querySelector("h1").textContent.startsWith("vera@"), before, { timeout: 60000 });
  assert.equal(await page.evaluate(() => window.stillHere), true, "no reload");
});

test("a Streamlit session goes on after a broken socket, for its own viewer only", async () => {
  const [vera, viktor] = [pages.vera, pages.viktor];
  const offered = { vera: [], viktor: [] };
  for (const [name, page] of [["vera", vera], ["viktor", viktor]]) {
    const session = await page.context().newCDPSession(page);
    await session.send("Network.enable");
    session.on("Network.webSocketWillSendHandshakeRequest", ({ request }) => offered[name].push(request.headers["Sec-WebSocket-Protocol"] ?? ""));
    await page.goto(here.content[0].url);
    await page.waitForSelector(`h1:has-text("${name}@example.org, question 1")`);
    await page.click("text=Ask again");
    await page.waitForSelector(`h1:has-text("question 2")`);
  }
  // Breaks every socket: the network goes away for a moment.
  await vera.context().setOffline(true);
  const changed = await api("bo", `content/${here.content[0].guid}`, "PATCH", { access_type: "acl" });
  assert.equal(changed.status, 200);
  await new Promise((done) => setTimeout(done, 2500));
  await api("bo", `content/${here.content[0].guid}`, "PATCH", { access_type: "logged_in" });
  await vera.context().setOffline(false);
  // Access went, and with it the consent: it is given again in another tab, and the open app comes back by itself.
  const tab = await vera.context().newPage();
  await tab.goto(here.content[0].url);
  await agree(tab);
  await tab.waitForSelector(`h1:has-text("vera@example.org")`);
  await tab.close();
  await vera.waitForFunction(() => !document.querySelector("[data-testid=stStatusWidget]")?.textContent?.includes("onnecting"), undefined, { timeout: 60000 });
  for (let tries = 0; tries < 60 && offered.vera.filter((line) => line.split(",").length > 2).length === 0; tries++) await new Promise((done) => setTimeout(done, 500));
  const named = offered.vera.map((line) => line.split(",").map((word) => word.trim())).filter((words) => words.length > 2);
  assert.ok(named.length > 0, `Streamlit names its session when it connects again: ${offered.vera}`);
  await vera.waitForFunction(() => document.querySelector("h1")?.textContent?.startsWith("vera@example.org"), undefined, { timeout: 60000 });
  await vera.click("text=Ask again");
  await vera.waitForFunction(() => Number(document.querySelector("h1")?.textContent?.match(/question (\d+)/)?.[1]) >= 3, undefined, { timeout: 60000 });
  // Viktor's browser names Vera's session: he gets one of his own. His consent went with his access, too.
  await viktor.goto(here.content[0].url);
  await agree(viktor);
  await viktor.waitForSelector(`h1:has-text("viktor@example.org")`);
  const stolen = named.at(-1)[2];
  const seen = await viktor.evaluate(async (id) => {
    const socket = new WebSocket(`${location.href.replace("http", "ws")}_stcore/stream`, ["streamlit", "x", id]);
    socket.binaryType = "arraybuffer";
    return new Promise((done) => {
      let text = "";
      // "Run the script" (BackMsg.rerun_script, empty), as Streamlit's own page says it.
      socket.onopen = () => socket.send(new Uint8Array([0x5a, 0x00]));
      socket.onmessage = ({ data }) => { text += new TextDecoder("latin1").decode(data); };
      setTimeout(() => { socket.close(); done(text); }, 3000);
      socket.onclose = ({ code }) => done(`closed ${code} ${text}`);
    });
  }, stolen);
  assert.ok(seen.includes("viktor@example.org"), `a session of his own: ${seen.slice(0, 200)}`);
  assert.ok(!seen.includes("vera@example.org") && !seen.includes(stolen), seen.slice(0, 500));
});

test("the publisher sees processes, limits and the warning, in words", async () => {
  const page = pages.bo;
  await page.goto(`${here.portal}/content-settings/${here.content[0].guid}`);
  await page.waitForSelector("h2:has-text('Process')");
  await page.click("text=How the portal carries it");
  await look(page, "content-settings-carried");
  const [first] = (await (await api("bo", `content/${here.content[0].guid}`)).json()).proxy.processes;
  await page.fill("#upstream_url", `${first.url}\nhttp://127.0.0.1:1`);
  await page.fill("#init_timeout", "soon");
  await page.click("text=Save settings");
  if (await page.locator("#password").count()) {
    await page.fill("#password", PASSWORD);
    await page.click("form .primary");
  }
  await page.waitForSelector("text=Enter a number of seconds");
  assert.equal(await page.inputValue("#upstream_url"), `${first.url}\nhttp://127.0.0.1:1`, "nothing typed is lost");
  await look(page, "content-settings-wrong");
  await page.fill("#init_timeout", "120");
  await page.click("text=Save settings");
  await page.waitForSelector("text=Saved");
  await page.waitForSelector("text=does not answer");
  await page.locator("button:has-text('Drain')").first().click();
  await page.waitForSelector("text=draining");
  await look(page, "content-settings-processes");
  await page.emulateMedia({ colorScheme: "dark" });
  await look(page, "content-settings-processes-dark");
});

test("valetkey dev stands in front of an app that runs already", async () => {
  const server = createServer((request, answer) => {
    const token = request.headers["posit-connect-user-session-token"];
    answer.setHeader("content-type", "text/html");
    answer.end(`<h1>${token ? "It has a token" : "It has none"}</h1>`);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const other = await dev("--upstream", `http://127.0.0.1:${server.address().port}`);
  try {
    const page = await (await chromium.newContext()).newPage();
    await signIn(page, other.here.portal, "vera", PASSWORD);
    await page.goto(other.here.content[0].url);
    await agree(page);
    await page.waitForSelector("h1:has-text('It has a token')");
  } finally {
    const ended = new Promise((done) => other.child.once("exit", done));
    other.child.kill("SIGTERM");
    await ended;
    server.close();
  }
});
