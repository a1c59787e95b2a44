// Notifications, one's data, deleting a person, and the question about keys: wide and narrow, light and dark, with and without
// script; axe finds nothing.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { PASSWORD, browser, demo, look, signIn } from "./harness.mjs";

let said, chromium;
before(async () => {
  said = await demo();
  chromium = await browser();
});
after(async () => {
  await chromium?.close();
  await said?.stop();
});

const views = { wide: { viewport: { width: 1280, height: 900 }, colorScheme: "light" }, narrow: { viewport: { width: 360, height: 740 }, colorScheme: "dark" } };

async function page(name, options = {}) {
  const context = await chromium.newContext(options);
  const made = await context.newPage();
  await signIn(made, said.portal, name, PASSWORD);
  await made.waitForURL(/\/content/);
  return made;
}

test("administrators see who is told what, and add a webhook", async () => {
  for (const [view, options] of Object.entries(views)) {
    const ada = await page("ada", options);
    await ada.goto(`${said.portal}/audit`);
    await ada.click("text=Notifications");
    await ada.waitForURL(/\/notifications$/);
    await look(ada, `notifications-${view}`);
    const overflow = await ada.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(overflow <= 0, `${view}: the page is ${overflow} px too wide`);
    // A mistake loses nothing.
    await ada.fill("#name", "chat");
    await ada.fill("#url", "ftp://chat.example.org/hook");
    await ada.click("text=Add webhook");
    await ada.waitForSelector(".summary");
    assert.equal(await ada.inputValue("#url"), "ftp://chat.example.org/hook");
    await look(ada, `notifications-mistake-${view}`);
    await ada.fill("#url", "https://chat.example.org/hook?key=abc");
    await ada.click("text=Add webhook");
    await ada.waitForURL(/\/account\/shown\//);
    assert.match(await ada.content(), /whsec_/);
    await look(ada, `webhook-key-${view}`);
    await ada.goto(`${said.portal}/notifications`);
    assert.doesNotMatch(await ada.content(), /key=abc/);
    await look(ada, `notifications-webhook-${view}`);
    await ada.click("text=Delete chat");
    await ada.waitForSelector("text=Delete chat?");
    await look(ada, `webhook-delete-${view}`);
    await ada.click("main button:has-text('Delete chat')");
    await ada.waitForSelector("text=Deleted chat.");
    await ada.context().close();
  }
});

test("everybody chooses about mail and saves their data, without script too", async () => {
  for (const [view, options] of Object.entries({ ...views, scriptless: { javaScriptEnabled: false } })) {
    const vera = await page("vera", options);
    await vera.goto(`${said.portal}/account`);
    await look(vera, `account-data-${view}`, { scripted: view !== "scriptless" });
    await vera.click("text=Send me no mail");
    await vera.waitForSelector("text=You get no mail any more.");
    await vera.click("text=Send me mail");
    await vera.waitForSelector("text=You get mail again.");
    const [saved] = await Promise.all([vera.waitForEvent("download"), vera.click("text=Save as a file")]);
    assert.match(saved.suggestedFilename(), /^valetkey-[0-9a-f-]+\.json$/);
    await vera.context().close();
  }
});

test("a person is deleted, and whoever gets a new password is asked about keys", async () => {
  const ada = await page("ada", views.narrow);
  await ada.goto(`${said.portal}/people`);
  await ada.click("main table a:has-text('Bo')");
  await ada.click("text=/^Delete /");
  await ada.waitForSelector("#heir");
  await look(ada, "person-delete");
  await ada.click("main button.destructive, main .button.destructive");
  await ada.waitForSelector("text=Choose who gets their content.");
  await look(ada, "person-delete-mistake");
  await ada.selectOption("#heir", { index: 1 });
  await ada.click("main button.destructive, main .button.destructive");
  await ada.waitForSelector("text=The audit log calls them deleted-");
  await look(ada, "person-deleted");

  await ada.goto(`${said.portal}/people`);
  await ada.click("main table a:has-text('Vera')");
  await ada.click("button:has-text('Make a one-time link')");
  await ada.waitForURL(/\/account\/shown\//);
  const link = await ada.inputValue("#secret");
  const context = await chromium.newContext(views.wide);
  const vera = await context.newPage();
  await vera.goto(link);
  await vera.waitForSelector("text=API key");
  await look(vera, "reset-asks-about-keys");
  await vera.fill("#password", "another long password");
  await vera.check("input[name=end_keys][value=yes]");
  await vera.click("text=Set password and sign in");
  await vera.waitForURL(/\/content/);
  await vera.goto(`${said.portal}/account/keys`);
  await vera.waitForSelector("text=/no (API )?keys/i");
  await context.close();
  await ada.context().close();
});
