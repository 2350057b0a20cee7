"use strict";
// Tables sort by their headers, or by a list where a narrow screen hides these. Figures are ordered by data-sort,
// words by their text; what has no figure stays last. A third press gives back the order of the report.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], original = [...body.rows], heads = [...table.tHead.rows[0].cells];
  if (original.length < 2) continue;
  const list = document.createElement("select");
  const names = heads.map((head) => head.textContent.trim());
  const numeric = heads.map((_, i) => original.some((row) => "sort" in row.cells[i].dataset));

  const order = (column, direction) => {
    const rows = [...original];
    if (direction) {
      rows.sort((a, b) => {
        const [x, y] = [a.cells[column], b.cells[column]];
        if (!numeric[column])
          return direction * x.textContent.trim().localeCompare(y.textContent.trim(), "en", { numeric: true });
        const missing = !("sort" in x.dataset) - !("sort" in y.dataset);
        return missing || direction * (x.dataset.sort - y.dataset.sort) || 0;
      });
    }
    body.append(...rows);
    heads.forEach((head, i) => {
      if (direction && i === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    list.value = direction ? `${column} ${direction}` : "";
  };

  const option = (value, text) => list.add(new Option(text, value));
  option("", "as reported");
  heads.forEach((head, column) => {
    if (head.classList.contains("figure") && !numeric[column]) return; // no figure in it has an order
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      order(column, now === "ascending" ? -1 : now === "descending" ? 0 : 1);
    });
    option(`${column} 1`, `${names[column]}, rising`);
    option(`${column} -1`, `${names[column]}, falling`);
  });
  list.addEventListener("change", () => order(...(list.value ? list.value.split(" ").map(Number) : [0, 0])));
  const label = document.createElement("label");
  label.className = "sort-by";
  label.append("Sort by ", list);
  table.parentElement.before(label);
}
