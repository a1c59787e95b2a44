// An app that is uploaded in the browser: its build, its pages, its viewer; with and without script.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { browser, demo, look, person as signedIn, root } from "./harness.mjs";

const NARROW = { javaScriptEnabled: false, viewport: { width: 360, height: 740 }, colorScheme: "dark" };
const sample = (...names) => names.map((name) => join(root, "tests/bundles/flask", name));
let here, chromium;

before(async () => {
  [here, chromium] = await Promise.all([demo(), browser()]);
});
after(async () => {
  await chromium?.close();
  await here?.stop();
});

const person = (name, options = {}) => signedIn(chromium, here.portal, name, { viewport: { width: 1280, height: 820 }, ...options });

/** Waits until the page says how the deploy ended. */
async function ended(page, base) {
  for (let tries = 0; tries < 90; tries++) {
    // The page itself may load anew at this moment, since the deploy has ended.
    await page.goto(`${base}/runs`).catch((error) => { if (!/ERR_ABORTED/.test(error.message)) throw error; });
    const word = await page.textContent("#task-title ~ p .status");
    if (!/Under way/.test(word)) return word;
    await page.waitForTimeout(1000);
  }
  throw new Error("the deploy does not end");
}

test("files are uploaded, built, opened and replaced without a word of configuration", async () => {
  const page = await person("bo");
  await page.goto(`${here.portal}/content`);
  await page.click("text=Add content");
  await look(page, "content-new-upload");
  await page.click("button.primary");
  assert.match(await page.textContent(".summary"), /Choose a folder/);
  await page.fill("#title", "Uploaded here");
  await page.check("[name=access_type][value=logged_in]");
  await page.setInputFiles("#files", sample("app.py", "requirements.txt"));
  assert.match(await page.textContent("[data-chosen]"), /2 files/);
  await page.click("button.primary");
  const base = page.url().replace("/runs", "");
  assert.match(await ended(page, base), /Done/);
  assert.match(await page.textContent("main"), /Flask or another WSGI app/);
  await look(page, "content-runs");
  const guid = base.split("/").at(-1);

  const vera = await person("vera");
  await vera.goto(`${here.portal}/content/${guid}/`);
  await vera.waitForSelector("text=hello from flask");
  assert.match(await vera.textContent("body"), /viewer: vera/);

  // A version that does not start leaves the one before.
  await page.setInputFiles("#files", { name: "app.py", mimeType: "text/plain", buffer: Buffer.from("import flask_that_is_missing\nfrom flask import Flask\n") });
  await page.click("text=Upload and deploy");
  assert.match(await ended(page, base), /Failed/);
  assert.match(await page.textContent("main"), /flask_that_is_missing/);
  await look(page, "content-runs-failed");
  await vera.reload();
  await vera.waitForSelector("text=hello from flask");

  // Variables are write-only; processes are replaced.
  await page.fill("#name", "GREETING");
  await page.fill("#value", "hello-from-a-variable");
  await page.click("text=Set variable");
  assert.match(await page.textContent(".flash"), /Set GREETING/);
  assert.doesNotMatch(await page.content(), /hello-from-a-variable/);
  await page.goto(`${base}/logs`);
  await look(page, "content-logs");

  const narrow = await person("bo", NARROW);
  for (const path of ["runs", "logs"]) {
    await narrow.goto(`${base}/${path}`);
    await look(narrow, `content-${path}-narrow-dark`, { scripted: false });
  }
  for (const way of ["upload", "command", "elsewhere"]) {
    await narrow.goto(`${here.portal}/content/new?way=${way}`);
    await look(narrow, `content-new-${way}-narrow-dark`, { scripted: false });
  }
  // Without script the same form works.
  await narrow.goto(`${base}/runs`);
  await narrow.setInputFiles("#files", sample("app.py", "requirements.txt"));
  await narrow.click("text=Upload and deploy");
  assert.match(await ended(narrow, base), /Done/);
});

test("dashboard addresses that rsconnect prints lead to the pages", async () => {
  const page = await person("bo");
  const guid = here.content[0].guid;
  for (const [address, expected] of [[`#/apps/${guid}`, `/content-settings/${guid}/runs`], [`#/apps/${guid}/logs`, `/content-settings/${guid}/logs`]]) {
    await page.goto(`${here.portal}/account`);
    await page.goto(`${here.portal}/connect/${address}`);
    await page.waitForURL(`${here.portal}${expected}`);
  }
});
