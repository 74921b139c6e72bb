package browsertest

// audit is what of the page somebody could not use, in words: names, landmarks, headings, contrast.
const audit = `(() => {
  const bad = [];
  const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length && (c.length < 4 || c[3] > 0)) return c;
    }
    return [255, 255, 255];
  };
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length || e.closest(".skip, .hidden, svg, [hidden]")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) bad.push("contrast " + ratio.toFixed(2) + " of " + e.textContent.trim().slice(0, 40));
  }
  for (const e of document.querySelectorAll("input:not([type=hidden])")) if (!e.labels.length) bad.push("no label: " + e.name);
  for (const e of document.querySelectorAll("a, button")) if (!e.textContent.trim()) bad.push("no name: " + e.outerHTML);
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) bad.push("no text: " + e.src);
  for (const e of document.querySelectorAll("svg:not([aria-hidden])")) if (!e.getAttribute("aria-label")) bad.push("no text: svg");
  for (const e of document.querySelectorAll("progress")) if (!e.getAttribute("aria-label")) bad.push("no name: progress");
  for (const what of ["main", "h1", "footer", "header", "[role=search]"])
    if (document.querySelectorAll(what === "header" ? "body > header" : what).length !== 1) bad.push("not one " + what);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) bad.push("an id twice");
  let level = 0;
  for (const h of document.querySelectorAll("h1, h2, h3")) {
    const l = Number(h.tagName[1]);
    if (l > level + 1) bad.push("a heading is skipped before " + h.textContent);
    level = l;
  }
  if (!document.documentElement.lang) bad.push("no language");
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) bad.push("wider than the screen");
  return bad;
})()`
