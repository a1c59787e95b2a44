// What people see when connections end: by themselves, by an administrator, with their account.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browser, demo, look, PASSWORD, person as signedIn } from "./harness.mjs";

let here, chromium;

before(async () => {
  [here, chromium] = await Promise.all([demo(), browser()]);
});
after(async () => {
  await chromium?.close();
  await here?.stop();
});

const person = (name, options = {}) => signedIn(chromium, here.portal, name, options);

/** Opens the first content item, agreeing to whatever is asked. */
async function connect(page, name) {
  await page.goto(here.content[0].url);
  for (let steps = 0; steps < 4; steps++) {
    if (await page.$("#signin")) {
      await page.fill("input[name=username]", `${name}@example.org`);
      await page.fill("input[name=password]", PASSWORD);
      await page.click("#signin button, button#signin");
    } else if (await page.$("#accept")) await page.click("#accept button[value=accept], #accept");
    else if (page.url().includes("/consents/new")) await page.click("main button.primary");
    else break;
    await page.waitForLoadState();
  }
  assert.match(await page.textContent("body"), new RegExp(name));
}

/** Confirms the own password, where the portal asks for it. */
async function confirmed(page) {
  if (/Confirm that it is you/.test(await page.textContent("h1"))) {
    await page.fill("main input[type=password]", PASSWORD);
    await page.click("main button.primary");
  }
}

test("a viewer sees what ended and what the provider knows, and an administrator ends connections of others", async () => {
  const vera = await person("vera");
  await connect(vera, "vera");
  await vera.goto(`${here.portal}/consents`);
  assert.match(await vera.textContent("main"), /needs you again by/);
  await vera.click("a:has-text('Disconnect')");
  await look(vera, "disconnect");
  await vera.click("button.destructive");
  assert.match(await vera.textContent("main"), /Ended lately[\s\S]*Microsoft keeps its own list/);
  await look(vera, "consents-ended");
  const dark = await person("vera", { colorScheme: "dark", viewport: { width: 390, height: 800 } });
  await dark.goto(`${here.portal}/consents`);
  await look(dark, "consents-ended-dark");

  await connect(vera, "vera");
  const ada = await person("ada");
  await ada.goto(`${here.portal}/people`);
  await ada.click("main table a:has-text('Vera')");
  await ada.click("text=Disconnect from every service");
  await look(ada, "person-disconnect");
  await ada.click("button.destructive");
  await confirmed(ada);
  assert.match(await ada.textContent("body"), /Ended 1 connection of Vera Holm/);
  await look(ada, "person-disconnected");

  await connect(vera, "vera");
  await ada.goto(`${here.portal}/content-settings/${here.content[0].guid}/consents`);
  await ada.click("text=End every consent");
  await look(ada, "consents-end");
  await ada.click("button.destructive");
  await confirmed(ada);
  assert.match(await ada.textContent("body"), /Ended 1 consent/);
  await vera.goto(here.content[0].url);
  assert.match(vera.url(), /consents\/new/);
  await connect(vera, "vera");

  await ada.goto(`${here.portal}/integrations/${here.integrations[0].guid}`);
  await ada.click("text=Disconnect everybody");
  await look(ada, "integration-disconnect");
  await ada.click("button.destructive");
  await confirmed(ada);
  assert.match(await ada.textContent("body"), /Disconnected 1 person/);
  await look(ada, "integration-disconnected");
});
