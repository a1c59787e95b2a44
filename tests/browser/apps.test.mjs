// The apps of the publisher's handbook as real content, Streamlit in both generations of its server: the page, its WebSocket, the header, the exchange with posit-sdk, two viewers each.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { agree, browser, demo, python, root, signIn } from "./harness.mjs";

const PASSWORD = "valetkey-demo";
const file = (name) => join(root, `tests/apps/${name}_app.py`);
const commands = {
  streamlit: (port) => ["-m", "streamlit", "run", file("streamlit"), "--server.port", port, "--server.address", "127.0.0.1", "--server.headless", "true", "--browser.gatherUsageStats", "false"],
  "streamlit-1.56": (port) => commands.streamlit(port),
  shiny: (port) => ["-m", "shiny", "run", "--port", port, file("shiny")],
  dash: () => [file("dash")],
  flask: (port) => ["-m", "flask", "--app", file("flask"), "run", "--port", port],
  gradio: () => [file("gradio")],
  fastapi: (port) => ["-m", "uvicorn", "--port", port, "--app-dir", join(root, "tests/apps"), "fastapi_app:app"],
};
let here, chromium;
const running = [], contents = {}, viewers = {};

const freePort = () => new Promise((done) => { const socket = createServer().listen(0, "127.0.0.1", () => { const { port } = socket.address(); socket.close(() => done(port)); }); });
const account = (name) => here.accounts.find((one) => one.username === name);

before(async () => {
  [here, chromium] = await Promise.all([demo(), browser()]);
  const bo = account("bo");
  const api = (path, method, body) => fetch(`${here.portal}/__api__/v1/${path}`, { method, headers: { Authorization: `Key ${bo.api_key}` }, body: JSON.stringify(body) });
  await Promise.all(Object.entries(commands).map(async ([name, command]) => {
    const port = String(await freePort());
    const content = await (await api("content", "POST", { name, title: `${name} app`, access_type: "logged_in", upstream_url: `http://127.0.0.1:${port}` })).json();
    contents[name] = content;
    await api(`content/${content.guid}/oauth/integrations/associations`, "PUT", [{ oauth_integration_guid: here.integrations[0].guid }]);
    const environment = { CONNECT_SERVER: here.portal, CONNECT_API_KEY: bo.api_key, CONNECT_CONTENT_GUID: content.guid, POSIT_PRODUCT: "CONNECT", RSTUDIO_PRODUCT: "CONNECT", DATABRICKS_HOST: here.workspace, DATABRICKS_WAREHOUSE_ID: "demo", PORT: port, GRADIO_ANALYTICS_ENABLED: "False" };
    // Beside the newest one, which stands where the others do.
    if (name === "streamlit-1.56") Object.assign(environment, { PYTHONPATH: join(root, "target/streamlit-1.56"), STREAMLIT_GLOBAL_DEVELOPMENT_MODE: "false" });
    running.push(spawn(python, command(port), { stdio: ["ignore", "ignore", process.env.TEST_APPS_LOG ? "inherit" : "ignore"], env: { ...process.env, ...environment } }));
    for (let tries = 0; tries < 240; tries++) {
      if (await fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false)) return;
      await new Promise((done) => setTimeout(done, 500));
    }
    throw new Error(`${name} did not start`);
  }));
  for (const name of ["vera", "viktor"]) {
    viewers[name] = await (await chromium.newContext()).newPage();
    await signIn(viewers[name], here.portal, name, PASSWORD);
  }
});
after(async () => {
  for (const app of running) app.kill();
  await chromium?.close();
  await here?.stop();
});

for (const name of Object.keys(commands)) {
  test(`${name}: two people in one process are themselves`, async () => {
    for (const [viewer, page] of Object.entries(viewers)) {
      await page.goto(contents[name].content_url);
      await agree(page);
      await page.waitForSelector(`h1:has-text("Hello ${viewer}@example.org")`, { timeout: 60000 });
      // Their own rows, and nobody else's.
      const [own, others] = viewer === "vera" ? ["1204", "880"] : ["880", "1204"];
      await page.waitForSelector(`text=${own}`);
      assert.ok(!(await page.textContent("body")).includes(others), `${viewer} sees ${others}`);
    }
  });
}

test("the handbook shows the apps that were tested", () => {
  const handbook = readFileSync(join(root, "templates/help/publisher.md"), "utf8");
  for (const name of Object.keys(commands).filter((name) => !name.includes("-"))) assert.ok(handbook.includes(readFileSync(file(name), "utf8").trim()), name);
});

test("signing out closes the socket of an open app within seconds", async () => {
  const page = viewers.vera;
  const socket = page.waitForEvent("websocket");
  await page.goto(contents.streamlit.content_url);
  const closed = (await socket).waitForEvent("close", { timeout: 10000 });
  await page.waitForSelector("h1:has-text('Hello vera')");
  const other = await page.context().newPage();
  await other.goto(`${here.portal}/content`);
  await other.click("summary");
  await other.click("text=Sign out");
  await closed;
});
