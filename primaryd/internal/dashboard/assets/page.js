// Keeps the page current: fetches it anew, and changes in place what differs, so that focus, selection, open details and
// the scroll position stay. Without this script the page is the same, and reloads by itself.
"use strict";
(() => {
  const main = document.querySelector("main[data-live]");
  if (!main) return;
  const every = 2000, patience = 10000;
  const silent = document.getElementById("silent");
  let heard = Date.now(), timer = 0, running = false;

  const key = (node) => node.nodeType === 1 ? node.id || node.getAttribute("data-key") || "" : "";
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);

  function attributes(have, want) {
    for (const { name } of [...have.attributes]) {
      if (!want.hasAttribute(name) && name !== "open") have.removeAttribute(name);
    }
    for (const { name, value } of want.attributes) {
      if (name !== "open" && have.getAttribute(name) !== value) have.setAttribute(name, value);
    }
  }

  function morph(have, want) {
    if (have.nodeType === 3) {
      if (have.data !== want.data) have.data = want.data;
      return;
    }
    if (have.nodeType !== 1) return;
    attributes(have, want);
    const keyed = new Map();
    for (const child of have.children) if (key(child)) keyed.set(key(child), child);
    let at = have.firstChild;
    for (const child of want.childNodes) {
      const match = key(child) ? keyed.get(key(child)) : at;
      if (match && alike(match, child)) {
        if (match !== at) have.insertBefore(match, at);
        morph(match, child);
        at = match.nextSibling;
      } else {
        have.insertBefore(document.importNode(child, true), at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function late() {
    silent.hidden = Date.now() - heard < patience;
    if (!silent.hidden) {
      const since = new Date(heard).toLocaleTimeString();
      const text = `No answer from primaryd since ${since}. What you see is of then.`;
      if (silent.textContent !== text) silent.textContent = text;
    }
  }

  async function refresh() {
    if (running || document.hidden) return;
    running = true;
    try {
      const answer = await fetch(main.dataset.live, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(patience) });
      if (answer.status === 401 || answer.status === 403) return location.reload();
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        const body = fresh.querySelector("main");
        if (body) {
          morph(main, body);
          morph(document.getElementById("made"), fresh.getElementById("made"));
          if (document.title !== fresh.title) document.title = fresh.title;
          heard = Date.now();
        }
      }
    } catch {
      // The next one may succeed; late says so when none does.
    } finally {
      running = false;
      late();
    }
  }

  function tick() {
    clearTimeout(timer);
    if (document.hidden) return;
    refresh().then(() => { timer = setTimeout(tick, every); });
  }
  document.addEventListener("visibilitychange", tick);
  timer = setTimeout(tick, every);
})();
