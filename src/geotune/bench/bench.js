// Click a column header to sort; filters hide rows and tables.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // unknown values last
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
const method = document.querySelector("#filter-method");
const verdict = document.querySelector("#filter-verdict");
const recipe = document.querySelector("#filter-recipe");
function filter() {
  const words = method.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  for (const row of document.querySelectorAll("tr[data-method]")) {
    const matchesMethod = !words.length || words.some((word) => row.dataset.method.toLowerCase().includes(word));
    const matchesVerdict = !verdict.value || !row.dataset.verdict || row.dataset.verdict === verdict.value;
    row.hidden = !(matchesMethod && matchesVerdict);
  }
  for (const block of document.querySelectorAll("[data-recipe]")) {
    block.hidden = recipe.value !== "" && block.dataset.recipe !== recipe.value;
  }
}
for (const control of [method, verdict, recipe]) control.addEventListener("input", filter);
