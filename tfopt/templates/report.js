"use strict";
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    // Figures begin with the greatest, names with A.
    const numeric = head.classList.contains("number");
    const was = head.getAttribute("aria-sort");
    const up = was ? was === "descending" : !numeric;
    const key = (row) => row.cells[head.cellIndex].dataset.key;
    const order = (a, b) => {
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
      const sign = numeric ? key(a) - key(b) : key(a).localeCompare(key(b));
      return up ? sign : -sign;
    };
    body.append(...[...body.rows].sort(order));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}
