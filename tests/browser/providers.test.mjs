// Every template as an administrator meets it: found, filled in, saved, looked at; an address pasted; a check and a test sign-in with the doubles of the demo.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { binary, browser, look, person } from "./harness.mjs";

let here, child, chromium, ada;
before(async () => {
  child = spawn(binary, ["demo", "--json", "--providers", "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "ignore"] });
  const line = new Promise((done, failed) => {
    createInterface({ input: child.stdout }).once("line", done);
    child.once("exit", (code) => failed(new Error(`the demo ended with ${code}`)));
  });
  [here, chromium] = await Promise.all([line.then(JSON.parse), browser()]);
  ada = await person(chromium, here.portal, "ada");
});
after(async () => {
  await chromium?.close();
  const ended = child && new Promise((done) => child.once("exit", done));
  child?.kill("SIGTERM");
  await ended;
});

/** What somebody types into a field of this name. */
const typed = (name, template) =>
  ({
    tenant_id: "3f0c2a51-7e0b-4c7e-9b1e-0a5f7f3d2c11",
    client_id: template.startsWith("azure") || ["msgraph", "sharepoint"].includes(template) ? "0d2b8f54-54b6-4a6e-8b1c-0a5f7f3d2c11" : "client",
    client_secret: { anthropic: "sk-ant-secret", openai: "sk-secret" }[template] ?? "a~secret",
    databricks_host: "https://dbc-1.cloud.databricks.com",
    account_url: "https://a-b.snowflakecomputing.com",
    sf_host_domain: "https://a.my.salesforce.com",
    role_arn: "arn:aws:iam::123456789012:role/content",
    authorization_uri: "https://idp.example.org/authorize",
    token_uri: "https://idp.example.org/token",
    vault_address: "https://vault.example.org:8200",
    vault_role: "content",
    scopes: "https://contoso.sharepoint.com/.default offline_access",
  })[name];

test("each of the 24 templates is filled in, saved and shown", async () => {
  const key = here.accounts.find((account) => account.username === "ada").api_key;
  const templates = await (await fetch(`${here.portal}/__api__/v1/oauth/templates`, { headers: { Authorization: `Key ${key}` } })).json();
  assert.equal(templates.length, 24);
  for (const { id } of templates) {
    await ada.goto(`${here.portal}/integrations/new?template=${id}`);
    await look(ada, `template-${id}`);
    await ada.fill("#name", `Tried ${id}`);
    for (const field of await ada.$$("main input.control:not([readonly])")) {
      const name = await field.getAttribute("name");
      const value = typed(name, id);
      const isNeeded = value && (await field.isVisible()) && !(await field.inputValue());
      if (isNeeded) await field.fill(value);
    }
    await ada.click("text=Save integration");
    assert.match(await ada.textContent(".flash").catch(() => ada.textContent("main")), /^\s*Saved Tried/, id);
    if (["aws", "connect", "anthropic"].includes(id)) await look(ada, `integration-${id}`);
  }
});

test("templates are searched, and a pasted address finds its own", async () => {
  await ada.goto(`${here.portal}/integrations/new`);
  await look(ada, "choose-template");
  await ada.fill("#search", "jira");
  await ada.click("button:has-text('Search')");
  await ada.waitForURL(/search=jira/);
  assert.equal(await ada.locator(".tile-card").count(), 1);
  await ada.fill("#search", "nothing has this");
  await ada.click("button:has-text('Search')");
  await ada.waitForURL(/nothing/);
  assert.match(await ada.textContent("main"), /works with Custom/);
  await look(ada, "choose-nothing");
  await ada.fill("#address", "not an address");
  await ada.click("text=Look up");
  await ada.waitForSelector("#address-error");
  await look(ada, "choose-error");
  await ada.fill("#address", "https://app.snowflake.com/myorg/acc/#/homepage");
  await ada.click("text=Look up");
  await ada.waitForSelector("h1:has-text('Snowflake')");
  assert.equal(await ada.inputValue("#account_url"), "https://myorg-acc.snowflakecomputing.com");
  await look(ada, "pasted-snowflake");
});

test("an administrator checks an integration and tries the sign-in, which stores nothing", async () => {
  await ada.goto(`${here.portal}/integrations`);
  await ada.click("a.strong:text-is('Atlassian')");
  await ada.click("button:has-text('Check')");
  await ada.waitForSelector(".flash:has-text('Checked')");
  await look(ada, "checked");
  await ada.click("button:has-text('Test sign-in')");
  await ada.waitForSelector("#accept");
  await ada.fill("#username", "ada@example.org");
  await ada.click("#accept");
  await ada.waitForSelector(".flash:has-text('Test sign-in: all is well')");
  const text = await ada.textContent("#check");
  for (const part of ["You signed in as ada@example.org", "Asked for: read:jira-work", "A refresh works"]) assert.ok(text.includes(part), text);
  await look(ada, "tested");
  // A person who declines is told, and so is what a viewer would read.
  await ada.click("button:has-text('Test sign-in')");
  await ada.waitForSelector("#accept");
  await ada.click("button:has-text('Decline')");
  await ada.waitForSelector(".flash:has-text('something has to be mended')");
  assert.match(await ada.textContent("#check"), /A viewer reads/);
  await ada.goto(`${here.portal}/consents`);
  assert.ok(!(await ada.textContent("main")).includes("Atlassian"));
  await ada.goto(`${here.portal}/integrations`);
  assert.match(await ada.textContent("main"), /Check failed/);
  await look(ada, "integrations-checked");
});
