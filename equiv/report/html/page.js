"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const rows = [...document.querySelectorAll(".matrix tbody tr")];
  const buttons = [...document.querySelectorAll("[data-kind][aria-pressed]")];
  const search = $("search"), status = $("shown"), keys = $("keys");
  let kind = "", at = -1;

  // Details are packed: base64 of gzip, decompressed when a part of the block is opened.
  const blocks = new Map();
  function unpacked(number) {
    if (!blocks.has(number)) {
      const bytes = Uint8Array.from(atob($("packed-" + number).textContent), (one) => one.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      blocks.set(number, new Response(stream).json());
    }
    return blocks.get(number);
  }
  async function unpack(details) {
    for (const holder of details.querySelectorAll(":scope > [data-packed]")) {
      const [number, part] = holder.dataset.packed.split(":");
      const block = await unpacked(number);
      if (!holder.dataset.packed) continue;
      holder.innerHTML = block[part];
      delete holder.dataset.packed;
    }
  }
  document.addEventListener("toggle", (event) => event.target.open && unpack(event.target), true);

  // URL fragment: #anchor?show=different&q=norm
  function address() {
    const [target, query] = location.hash.slice(1).split("?");
    return [decodeURIComponent(target), new URLSearchParams(query || "")];
  }
  function remember() {
    const query = new URLSearchParams();
    if (kind) query.set("show", kind);
    if (search.value) query.set("q", search.value);
    const [target] = address();
    const hash = target + (query.size ? "?" + query : "");
    history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search);
  }
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = (kind && row.dataset.kind !== kind) || !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    for (const one of buttons) one.setAttribute("aria-pressed", String(one.dataset.kind === kind));
    status.textContent = count === rows.length ? "" : `${count} of ${rows.length} shown.`;
  }
  async function follow() {
    const [target, query] = address();
    kind = query.get("show") || "";
    search.value = query.get("q") || "";
    filter();
    if (!target) return;
    const inside = $(target);
    const details = inside ? inside.closest(".case") : [...document.querySelectorAll(".case")]
      .filter((one) => target.startsWith(one.id + ".")).sort((a, b) => b.id.length - a.id.length)[0];
    if (!details) return;
    details.open = true;
    await unpack(details);
    const found = $(target) || details;
    found.scrollIntoView();
    const focus = found.matches("details") ? found.querySelector("summary") : found;
    if (focus === found && !found.matches("a,button,[tabindex]")) found.tabIndex = -1;
    focus.focus({ preventScroll: true });
  }
  addEventListener("hashchange", follow);

  for (const one of buttons) {
    one.addEventListener("click", () => { kind = one.dataset.kind; at = -1; filter(); remember(); });
  }
  search.addEventListener("input", () => { at = -1; filter(); remember(); });
  keys.addEventListener("click", () => {
    const on = keys.getAttribute("aria-pressed") !== "true";
    keys.setAttribute("aria-pressed", String(on));
    keys.textContent = on ? "keys on" : "keys off";
  });
  function move(step) {
    const seen = rows.filter((row) => !row.hidden);
    if (!seen.length) return;
    at = Math.min(Math.max(at + step, 0), seen.length - 1);
    for (const row of rows) row.classList.toggle("at", row === seen[at]);
    seen[at].querySelector("a").focus();
  }
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || keys.getAttribute("aria-pressed") !== "true") return;
    if (event.key === "Escape") {
      search.value = kind = "";
      filter(); remember();
    } else if (event.target.matches("input,textarea,select")) {
      return;
    } else if (event.key === "/") {
      event.preventDefault(); search.focus();
    } else if (event.key === "j" || event.key === "k") {
      move(event.key === "j" ? 1 : -1);
    }
  });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details[open] details")) details.open = true;
  });
  for (const details of document.querySelectorAll(".case[open]")) unpack(details);
  follow();
})();
