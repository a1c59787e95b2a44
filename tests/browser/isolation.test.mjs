// Pages of one item, and of a sibling host of the portal, against another item: over TLS, in Chromium, which sends cookies to all
// hosts of one site. With a host for each item, and with content on the portal's own origin; two people, each in a profile of their own.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as http } from "node:http";
import { createServer as https } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { chromium } from "playwright-core";
import { binary, signIn } from "./harness.mjs";

const PASSWORD = "a long enough sentence";
const folder = mkdtempSync(join(tmpdir(), "valetkey-isolation-"));
const [certificate, key] = [join(folder, "certificate.pem"), join(folder, "key.pem")];
execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=example.org",
  "-addext", "subjectAltName=DNS:example.org,DNS:*.example.org,DNS:*.apps.example.org", "-keyout", key, "-out", certificate], { stdio: "ignore" });

const listen = (server) => new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));
const freePort = async () => {
  const server = http();
  const port = await listen(server);
  await new Promise((done) => server.close(done));
  return port;
};

/** An app that remembers what reached it; `/` is an empty page. */
async function app() {
  const seen = [];
  const server = http((request, response) => {
    const token = request.headers["posit-connect-user-session-token"];
    seen.push(`${request.method} ${request.url.split("?")[0]}${token ? " as a viewer" : ""}`);
    response.setHeader("content-type", "text/html").end("<!doctype html><title>app</title><h1>app</h1>");
  });
  server.on("upgrade", (request, socket) => {
    seen.push(`socket ${request.url}`);
    socket.destroy();
  });
  return { seen, server, url: `http://127.0.0.1:${await listen(server)}` };
}

/** The portal over TLS, with two items and two people; `content` says where items are. */
async function portal(content) {
  const port = await freePort();
  const data = mkdtempSync(join(folder, "data-"));
  const env = { ...process.env, VALETKEY_DATA_DIR: data, VALETKEY_LISTEN: `127.0.0.1:${port}`, VALETKEY_PUBLIC_URL: `https://portal.example.org:${port}`,
    VALETKEY_CONTENT_URL: content.replace("PORT", port), VALETKEY_TLS_CERTIFICATE_FILE: certificate, VALETKEY_TLS_KEY_FILE: key, VALETKEY_PRIVATE_HOSTS: "127.0.0.1" };
  const adaKey = execFileSync(binary, ["admin", "create", "ada", "--password-stdin", "--api-key"], { input: PASSWORD, env, stdio: ["pipe", "pipe", "ignore"] }).toString().trim();
  const child = spawn(binary, ["serve"], { env, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  child.stderr.on("data", (chunk) => (log += chunk));
  // Through curl, which looks names up as it is told.
  const api = (method, path, body) => JSON.parse(execFileSync("curl", ["-sk", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "--resolve", `portal.example.org:${port}:127.0.0.1`,
    "-X", method, "-H", `Authorization: Key ${adaKey}`, ...(body ? ["-d", JSON.stringify(body)] : []), `https://portal.example.org:${port}/__api__/v1/${path}`]).toString() || "{}");
  const items = [];
  for (const name of ["one", "two"]) {
    const behind = await app();
    const made = api("POST", "content", { name, access_type: "logged_in" });
    // Two processes, so that the browser is told which one is its own; nobody new gets the second.
    const processes = [{ url: behind.url }, { url: `${behind.url}/second`, draining: true }];
    const item = api("PATCH", `content/${made.guid}`, { proxy: { processes } });
    items.push({ ...behind, guid: made.guid, place: item.content_url });
  }
  for (const username of ["vera", "viktor"]) api("POST", "users", { username, password: PASSWORD, user_role: "viewer" });
  const stop = () => new Promise((done) => { child.once("exit", done); child.kill("SIGTERM"); items.forEach((item) => item.server.close()); });
  return { port, base: `https://portal.example.org:${port}`, items, stop, log: () => log };
}

/** A Chromium profile of its own, in which everybody below example.org is this machine. */
const profile = (name) => chromium.launchPersistentContext(join(folder, name), {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", ignoreHTTPSErrors: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP *.example.org 127.0.0.1, MAP example.org 127.0.0.1"],
});

/** Tries, from the page that is open, everything by which a page can make another place act. */
async function attack(page, target) {
  await page.evaluate(async (target) => {
    const quietly = (promise) => promise.catch(() => {});
    await quietly(fetch(`${target}by-fetch`, { method: "POST", mode: "no-cors", credentials: "include", body: "x" }));
    await quietly(fetch(`${target}by-read`, { mode: "no-cors", credentials: "include" }));
    navigator.sendBeacon(`${target}by-beacon`, "x");
    await new Promise((done) => {
      const image = new Image();
      image.onload = image.onerror = done;
      image.src = `${target}by-image`;
    });
    const frame = document.createElement("iframe");
    frame.name = "frame";
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, { method: "post", action: `${target}by-form`, target: "frame" });
    document.body.append(form);
    form.submit();
    const other = document.createElement("iframe");
    other.src = `${target}by-frame`;
    document.body.append(other);
    const socket = new WebSocket(`${target.replace("https:", "wss:")}by-socket`);
    await new Promise((done) => (socket.onclose = socket.onerror = done));
  }, target);
  await page.waitForTimeout(1500);
}

const reached = (item) => item.seen.filter((line) => line.includes("/by-"));

for (const [mode, content] of [["a host for each item", "https://*.apps.example.org:PORT"], ["content on the portal's origin", "same-origin"]]) {
  test(`no page of another host makes an item act: ${mode}`, async () => {
    const here = await portal(content);
    // A sibling of the portal, and of the items' hosts, that is not ours.
    const sibling = https({ cert: readFileSync(certificate), key: readFileSync(key) }, (_, response) => response.setHeader("content-type", "text/html").end("<!doctype html><title>sibling</title>"));
    const siblingPort = await listen(sibling);
    const [one, two] = here.items;
    try {
      for (const name of ["vera", "viktor"]) {
        const context = await profile(`${name}-${here.port}`);
        const page = await context.newPage();
        await signIn(page, here.base, name, PASSWORD);
        for (const item of [two, one]) {
          await page.goto(item.place);
          // Where it is served: the address of the API is the portal's, which leads there.
          item.place = page.url();
          assert.equal(await page.textContent("h1"), "app");
        }
        const path = new URL(two.place).pathname;
        assert.ok(two.seen.some((line) => line === "GET / as a viewer"), `the viewer is there: ${two.seen} ${path}`);
        if (mode.startsWith("a host")) {
          await attack(page, two.place);
          assert.deepEqual(reached(two), [], `${name}, from the other item`);
        }
        await page.goto(`https://sibling.example.org:${siblingPort}/`);
        await attack(page, two.place);
        assert.deepEqual(reached(two), [], `${name}, from a sibling`);
        // A link is the viewer's own step; and the item's own page may do all of it.
        await page.evaluate((target) => { location.href = `${target}by-link`; }, two.place);
        await page.waitForURL(`${two.place}by-link`);
        assert.deepEqual(reached(two), ["GET /by-link as a viewer"]);
        await page.evaluate(async (target) => { await fetch(`${target}by-itself`, { method: "POST", body: "x" }); }, two.place);
        assert.deepEqual(reached(two).slice(1), ["POST /by-itself as a viewer"]);
        two.seen.length = 0;
        const cookies = await context.cookies();
        const ours = cookies.filter((cookie) => cookie.name.includes("valetkey") && cookie.httpOnly);
        const [processes, sessions] = [true, false].map((is) => ours.filter((cookie) => cookie.name.includes("valetkey-p") === is));
        assert.ok(sessions.length > 0 && sessions.every((cookie) => cookie.name.startsWith("__Host-") && cookie.secure), JSON.stringify(sessions));
        // The cookie of an item's process is bound to the item: by its host, or else by its path.
        const bound = mode.startsWith("a host") ? (cookie) => cookie.name.startsWith("__Host-") : (cookie) => cookie.path.startsWith("/content/");
        assert.ok(processes.length === 2 && processes.every((cookie) => bound(cookie) && cookie.secure), JSON.stringify(processes));
        await context.close();
      }
    } finally {
      sibling.close();
      await here.stop();
    }
  });
}

test.after?.(() => rmSync(folder, { recursive: true, force: true }));
