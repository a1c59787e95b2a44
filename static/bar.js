// The bar of the portal in a page of an app (src/proxy/bar.rs). Asks now and then whether the app may still act for its viewer.
(() => {
  const own = new URL(".", document.currentScript.src);
  const channel = "BroadcastChannel" in window ? new BroadcastChannel(`valetkey ${own.pathname}`) : null;
  if (location.pathname === `${own.pathname}connected`) {
    channel?.postMessage("connected");
    window.close();
    return;
  }
  if (window.top !== window.self) return;
  let bar = null, link = null, timer = 0, fast = 0, room = "";

  function show_link(portal, consents) {
    if (link) return;
    link = document.createElement("div");
    link.lang = "en";
    const root = link.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`
      :host { all: initial; position: fixed; inset-block-end: 8px; inset-inline-end: 8px; z-index: 2147483646; color-scheme: light dark; }
      nav { display: flex; gap: 12px; padding: 2px 10px; border-radius: 6px; font: 13px/24px system-ui, sans-serif; opacity: .8;
        color: light-dark(#1b2029, #eceef2); background: light-dark(#f4f5f8, #23272f); border: 1px solid light-dark(#8a909c, #7c8390); }
      nav:hover, nav:focus-within { opacity: 1; }
      a { color: inherit; min-block-size: 24px; }
      :focus-visible { outline: 2px solid light-dark(#2c52b5, #8fb8ff); outline-offset: 2px; }
      @media print { nav { display: none; } }`);
    root.adoptedStyleSheets = [sheet];
    const nav = document.createElement("nav");
    nav.setAttribute("aria-label", "Portal");
    for (const [href, text] of [[portal, "Portal"], [consents, "Your consents"]]) {
      const entry = document.createElement("a");
      Object.assign(entry, { href, textContent: text });
      nav.append(entry);
    }
    root.append(nav);
    document.documentElement.append(link);
  }

  function show(standing, login) {
    const text = { signed_out: "You are signed out. This app cannot act for you.", may_not: "You may not open this app any more. Ask its publisher." }[standing]
      ?? "This app needs you before it can go on.";
    if (bar) {
      if (bar.said !== text) bar.text.textContent = bar.said = text;
      bar.login = login;
      bar.button.hidden = !login;
      if (bar.link) { bar.link.hidden = !login; bar.link.href = login ?? ""; }
      return;
    }
    const host = document.createElement("div");
    // Whatever language the app's page is in.
    host.lang = "en";
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`
      :host { all: initial; position: fixed; inset-block-end: 0; inset-inline: 0; z-index: 2147483647; color-scheme: light dark; }
      [role] { display: flex; flex-wrap: wrap; gap: 12px; align-items: center; justify-content: center; padding: 12px 16px; font: 16px/1.5 system-ui, sans-serif;
        color: light-dark(#1b2029, #eceef2); background: light-dark(#fdf3e0, #3a2c12); border-block-start: 1px solid light-dark(#7d5a13, #e2b25c); }
      button { min-block-size: 40px; padding-inline: 16px; font: inherit; font-weight: 600; border: 0; border-radius: 6px; cursor: pointer;
        color: light-dark(#fff, #14181f); background: light-dark(#2c52b5, #8fb8ff); }
      :focus-visible { outline: 2px solid light-dark(#1b2029, #eceef2); outline-offset: 2px; }
      a { color: inherit; }
      @media (forced-colors: active) { button { border: 1px solid; } }`);
    root.adoptedStyleSheets = [sheet];
    const box = document.createElement("div");
    box.setAttribute("role", "status");
    const words = document.createElement("span");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Reconnect";
    button.hidden = !login;
    button.addEventListener("click", () => {
      // A window of its own keeps what is open in the app.
      const opened = window.open(bar.login, "valetkey-reconnect", "popup,width=560,height=720");
      if (!opened && !bar.link) {
        // Pop-ups are blocked here: a link that the viewer follows is none.
        bar.link = document.createElement("a");
        bar.link.target = "_blank";
        bar.link.textContent = "Your browser blocked the window: open it here";
        box.append(bar.link);
      }
      if (bar.link) bar.link.href = bar.login;
      fast = 150;
      ask();
    });
    box.append(words, button);
    root.append(box);
    // Beside the body: dialogs of the app make everything in it inert, and the app may have one open because it needs the viewer.
    document.documentElement.append(host);
    bar = { host, text: words, said: text, login, button, before: document.activeElement };
    room = document.documentElement.style.scrollPaddingBlockEnd;
    document.documentElement.style.scrollPaddingBlockEnd = "96px";
    // Screen readers say what changes in a status that is there already.
    setTimeout(() => { if (bar) words.textContent = bar.said; }, 100);
  }

  function hide() {
    if (bar) {
      const held = bar.host.contains(document.activeElement) || document.activeElement === bar.host;
      bar.host.remove();
      document.documentElement.style.scrollPaddingBlockEnd = room;
      if (held) bar.before?.focus?.();
    }
    bar = null;
    fast = 0;
  }

  async function ask() {
    clearTimeout(timer);
    try {
      const answer = await fetch(new URL("standing", own), { cache: "no-store", credentials: "same-origin" });
      // Switched off, or the app is gone: there is nothing to offer. Other errors say nothing of the viewer.
      if (answer.status === 404) hide();
      if (answer.ok) {
        const { standing, login_url: login, portal_url: portal, consents_url: consents } = await answer.json();
        if (portal) show_link(portal, consents);
        if (standing === "good") hide(); else if (standing) show(standing, login);
      }
    } catch {
      // The portal is away for a moment: nothing is known, and nothing changes.
    }
    timer = setTimeout(ask, fast-- > 0 ? 1000 : document.hidden ? 60000 : 15000);
  }

  channel?.addEventListener("message", ask);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  timer = setTimeout(ask, 2000);
})();
