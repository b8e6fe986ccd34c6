(() => {
  "use strict";
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);

  let shown = null;
  const hide = () => { tip.hidden = true; shown = null; };
  const show = (mark, x, y) => {
    shown = mark;
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 16;
    const above = y - tip.offsetHeight - 14;
    tip.style.left = `${Math.max(8, Math.min(x + 14, room)) + window.scrollX}px`;
    tip.style.top = `${(above > 8 ? above : y + 18) + window.scrollY}px`;
  };
  const showAt = (mark) => {
    const box = mark.querySelector(".shape").getBoundingClientRect();
    show(mark, box.left + box.width / 2, box.top + box.height / 2);
  };
  for (const mark of document.querySelectorAll(".mark")) {
    const title = mark.querySelector("title"); // the browser's own tooltip, for readers without scripts
    mark.dataset.tip = title.textContent;
    mark.setAttribute("aria-label", title.textContent);
    title.remove();
    let first = false; // a finger has nothing to hover with: its first tap tells, its second one opens
    mark.addEventListener("pointerdown", (event) => { first = event.pointerType === "touch" && shown !== mark; });
    mark.addEventListener("click", (event) => {
      if (!first) return;
      event.preventDefault();
      first = false;
      showAt(mark);
    });
    mark.addEventListener("mousemove", (event) => show(mark, event.clientX, event.clientY));
    mark.addEventListener("mouseleave", hide);
    mark.addEventListener("focus", () => showAt(mark));
    mark.addEventListener("blur", hide);
  }
  document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".mark")) hide(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  for (const button of document.querySelectorAll("button.names")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const on = button.closest("section").querySelector("svg.plot.wide").classList.toggle("named");
      button.setAttribute("aria-pressed", String(on));
    });
  }

  const byPoint = new Map();
  for (const mark of document.querySelectorAll(".mark[data-point]")) {
    byPoint.set(mark.dataset.point, [...(byPoint.get(mark.dataset.point) ?? []), mark]);
  }
  for (const row of document.querySelectorAll("tr[data-point]")) {
    const marks = byPoint.get(row.dataset.point) ?? [];
    const light = (on) => { for (const one of [row, ...marks]) one.classList.toggle("hot", on); };
    for (const one of [row, ...marks]) {
      one.addEventListener("mouseenter", () => light(true));
      one.addEventListener("mouseleave", () => light(false));
    }
  }

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    if ((a === "") !== (b === "")) return a === "" ? 1 : -1; // what is missing comes last, either way
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (head.dataset.sort === undefined) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.dataset.sort === "down" ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => compare(a, b) * (a === "" || b === "" ? 1 : sign));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  const hidden = new Set();
  for (const item of document.querySelectorAll(".key[data-family]")) {
    item.setAttribute("role", "button");
    item.tabIndex = 0;
    item.title = "Show or hide this family";
    const toggle = () => {
      const family = item.dataset.family;
      if (!hidden.delete(family)) hidden.add(family);
      for (const one of document.querySelectorAll(`[data-family="${family}"]`)) {
        if (one.classList.contains("key")) one.classList.toggle("off", hidden.has(family));
        else one.style.display = hidden.has(family) ? "none" : "";
      }
    };
    item.addEventListener("click", toggle);
    item.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
    });
  }
})();
