"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { button.textContent = dark() ? "Light page" : "Dark page"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
  label();

  for (const copy of document.querySelectorAll("[data-copy]")) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      const text = copy.parentElement.querySelector("code").textContent;
      try { await navigator.clipboard.writeText(text); } catch {
        const area = document.createElement("textarea");
        area.value = text; document.body.append(area); area.select();
        document.execCommand("copy"); area.remove();
      }
      copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }

  const order = (a, b) => {
    const x = Number(a), y = Number(b);
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const sort = () => {
      const table = head.closest("table"), body = table.tBodies[0];
      const column = [...head.parentElement.children].indexOf(head);
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const missing = (v) => v === "" || v === "nan";
      const rows = [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (missing(x) || missing(y)) return missing(x) - missing(y);
        return up ? order(x, y) : order(y, x);
      });
      body.append(...rows);
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (e) => {
      if (e.key === "Enter" || e.key === " ") { e.preventDefault(); sort(); }
    });
  }

  const links = new Map([...document.querySelectorAll("nav a[href^='#']")]
    .map((a) => [a.getAttribute("href").slice(1), a]));
  const seen = new Set();
  const mark = () => {
    const first = [...links.keys()].find((id) => seen.has(id));
    if (first === undefined) return;
    for (const [id, a] of links) {
      if (id === first) a.setAttribute("aria-current", "true"); else a.removeAttribute("aria-current");
    }
  };
  const watch = new IntersectionObserver((entries) => {
    for (const e of entries) e.isIntersecting ? seen.add(e.target.id) : seen.delete(e.target.id);
    mark();
  }, { rootMargin: "-10% 0px -60% 0px" });
  for (const id of links.keys()) {
    const target = document.getElementById(id);
    if (target) watch.observe(target);
  }

  // the small figures of the first screen are those of their sections
  for (const small of document.querySelectorAll("img[data-of]")) {
    const large = document.querySelector(`#${CSS.escape(small.dataset.of)} figure img`);
    if (large) small.src = large.src; else small.closest(".thumb").hidden = true;
  }

  const zoom = document.getElementById("zoom");
  if (zoom) {
    const place = zoom.querySelector("div");
    for (const image of document.querySelectorAll("[data-zoom]")) {
      const open = () => {
        const large = document.createElement("img");
        large.src = image.src; large.alt = image.alt;
        place.replaceChildren(large); zoom.showModal(); zoom.scrollTo(0, 0);
      };
      image.tabIndex = 0; image.setAttribute("role", "button");
      image.addEventListener("click", open);
      image.addEventListener("keydown", (e) => {
        if (e.key === "Enter" || e.key === " ") { e.preventDefault(); open(); }
      });
    }
    zoom.addEventListener("click", () => zoom.close());
  }
})();
