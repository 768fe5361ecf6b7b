// The table: headers that sort, rows that open, what is shown of both.

// Pixels that a sheet of A4 has across, lying, within its margins.
const PRINTED = 1030;

function mainTable(detailOf) {
  const view = {
    sort: null, order: 1, text: "", group: "", verdicts: new Set(), published: true, costs: true,
    extent: Object.fromEntries(DATA.metrics.map((metric, k) => [metric.name, k ? "brief" : "full"])),
  };
  const open = new Map();
  const table = element("table", { class: "results" });
  const body = element("tbody", {});
  const box = element("div", { class: DATA.rows.length > 25 ? "box long" : "box", id: "table", tabindex: "0",
    role: "region", "aria-label": "Results, a table" }, table);
  const count = element("p", { class: "quiet count", role: "status" });
  const grouped = DATA.rows.some((row) => row.group);
  let columns = [], lines = new Map();

  function build() {
    const parts = [...DATA.metrics.map((metric) => ({
      head: metric.label, hint: metric.direction === "lower" ? "lower is better" : "higher is better",
      columns: metricColumns(metric, view.extent[metric.name], view.published),
    })), { head: "cost", columns: view.costs ? costColumns() : [] }].filter((part) => part.columns.length);
    columns = parts.flatMap((part) => part.columns.map((column, k) => ({ ...column, opens: k === 0 })));
    table.replaceChildren(
      element("caption", { class: "unseen" }, `${DATA.title}. Headings sort; a row's name opens its detail.`),
      element("thead", {}, element("tr", {},
        grouped ? element("td", { rowspan: "1" }) : null, element("td", { class: "name" }),
        parts.map((part) => element("th", { scope: "colgroup", colspan: String(part.columns.length), class: "opens" },
          part.head, part.hint ? element("small", {}, ` ${part.hint}`) : null))),
      element("tr", {}, grouped ? heading({ key: "group", head: "group", first: 1, left: true }) : null,
        heading({ key: "name", head: "row", first: 1, left: true, class: "name" }), columns.map(heading))), body);
    if (view.sort && !sorter(view.sort)) view.sort = null;
    lines = new Map(DATA.rows.map((row) => [row.name, line(row)]));
    place();
  }

  function kinds(column) {
    return [column.class, ...["left", "opens", "drawing"].filter((kind) => column[kind])].filter(Boolean).join(" ");
  }

  function heading(column) {
    if (column.drawing) {
      return element("th", { scope: "col", class: kinds(column), title: column.hint },
        element("span", { class: "unseen" }, column.name), column.head);
    }
    return element("th", { scope: "col", class: kinds(column), "data-key": column.key, "aria-sort": "none" },
      element("button", { type: "button", class: "sort", title: column.hint, onclick: () => sortBy(column) },
        column.head, element("span", { class: "arrow", "aria-hidden": "true" })));
  }

  /** Best first, the other way round, the paper's order. */
  function sortBy(column) {
    if (view.sort !== column.key) Object.assign(view, { sort: column.key, order: column.first });
    else if (view.order === column.first) view.order = -column.first;
    else view.sort = null;
    place();
  }

  function sorter(key) {
    if (key === "name") return (row) => row.label;
    if (key === "group") return (row) => row.group;
    const column = columns.find((one) => one.key === key);
    return column && column.sort;
  }

  function line(row) {
    const id = `detail-${DATA.rows.indexOf(row)}`;
    const button = element("button", { type: "button", class: "open", "aria-expanded": String(open.has(row.name)),
      "aria-controls": id },
    element("span", { class: "turn", "aria-hidden": "true" }),
    element("span", { class: "label" }, row.label,
      row.label === row.name ? null : element("small", {}, row.name)));
    const node = element("tr", {
      class: row.base ? "base" : null, "data-row": row.name,
      onclick: (event) => {
        if (!event.target.closest("a") && !String(getSelection())) flip(row, id);
      },
    }, grouped ? element("td", { class: "group left" }, element("span", {}, row.group)) : null,
    element("th", { scope: "row", class: "name" }, button, states(row)),
    columns.map((column) => element("td", { class: kinds(column) }, column.cell(row))));
    return node;
  }

  function states(row) {
    const unfinished = row.seeds.filter((seed) => seed.state !== "done");
    if (!unfinished.length) return null;
    const kinds = [...new Set(unfinished.map((seed) => seed.state))];
    return element("small", { class: "state" }, kinds.map((kind) =>
      `${unfinished.filter((seed) => seed.state === kind).length} ${kind}`).join(", "));
  }

  function flip(row, id) {
    if (open.has(row.name)) open.delete(row.name);
    else {
      open.set(row.name, element("tr", { class: "detail", id }, element("td", {
        colspan: String(columns.length + (grouped ? 2 : 1)) }, element("div", { class: "inside" }, detailOf(row)))));
    }
    place();
  }

  function shown() {
    const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
    return DATA.rows.filter((row) => row.base || (
      (!view.group || row.group === view.group)
      && (!view.verdicts.size || DATA.metrics.some((metric) => view.extent[metric.name] !== "hidden"
        && row.results[metric.name] && view.verdicts.has(row.results[metric.name].verdict)))
      && words.every((word) => row.words.includes(word))));
  }

  /** Puts the rows that are to be seen in their order; nothing is built again, so that focus stays where it is. */
  function place() {
    const rows = shown();
    if (view.sort) {
      const value = sorter(view.sort);
      const gone = (one) => one === null || one === undefined || one === "";
      rows.sort((a, b) => {
        const [left, right] = [value(a), value(b)];
        if (gone(left) || gone(right)) return gone(left) - gone(right);
        const less = typeof left === "string" ? left.localeCompare(right, undefined, { numeric: true }) : left - right;
        return view.order * less;
      });
    }
    for (const head of table.querySelectorAll("th[data-key]")) {
      head.setAttribute("aria-sort", head.dataset.key !== view.sort ? "none"
        : view.order > 0 ? "ascending" : "descending");
    }
    const focus = document.activeElement;
    const nodes = [];
    rows.forEach((row, k) => {
      const node = lines.get(row.name), again = !view.sort && k > 0 && rows[k - 1].group === row.group;
      node.classList.toggle("again", again);
      node.classList.toggle("starts", !view.sort && k > 0 && !again);
      node.classList.toggle("is-open", open.has(row.name));
      node.querySelector("button.open").setAttribute("aria-expanded", String(open.has(row.name)));
      nodes.push(node);
      if (open.has(row.name)) {
        open.get(row.name).firstChild.setAttribute("colspan", String(columns.length + (grouped ? 2 : 1)));
        nodes.push(open.get(row.name));
      }
    });
    table.classList.toggle("sorted", Boolean(view.sort));
    body.replaceChildren(...nodes);
    if (focus && focus !== document.activeElement && table.contains(focus)) focus.focus({ preventScroll: true });
    const others = DATA.rows.length - (BASE ? 1 : 0), left = rows.filter((row) => !row.base).length;
    count.textContent = `${left === others ? "" : `${left} of `}${plural(others, "row")} and the base`;
    fit();
  }

  /** Where the table fits its box, its headings stay in sight of the whole page's scrolling; else of the box's. */
  function fit() {
    box.style.setProperty("--seen", `${box.clientWidth}px`);
    box.style.setProperty("--shrink", Math.min(1, PRINTED / table.offsetWidth).toFixed(3));
    box.classList.toggle("fits", table.offsetWidth <= box.clientWidth + 1);
  }

  new ResizeObserver(fit).observe(box);
  build();
  return { controls: tableControls(view, build, place), box, count };
}

function tableControls(view, build, place) {
  const groups = [...new Set(DATA.rows.map((row) => row.group).filter(Boolean))];
  const verdicts = VERDICT_ORDER.filter((verdict) => verdict !== "base"
    && DATA.rows.some((row) => Object.values(row.results).some((result) => result.verdict === verdict)));
  const search = element("input", { type: "search", placeholder: "name or field",
    oninput: () => { view.text = search.value; place(); } });
  return element("div", { class: "controls" },
    element("label", { class: "choice" }, element("span", {}, "Find"), search),
    groups.length > 1 ? choice("Group", [["", "all"], ...groups.map((group) => [group, group])], "",
      (value) => { view.group = value; place(); }) : null,
    verdicts.length > 1 ? element("div", { class: "chips", role: "group", "aria-label": "Verdicts shown" },
      verdicts.map((verdict) => toggle(verdictMark(verdict), false, (on) => {
        if (on) view.verdicts.add(verdict);
        else view.verdicts.delete(verdict);
        place();
      }))) : null,
    DATA.metrics.length > 1 ? DATA.metrics.map((metric) => choice(metric.label,
      [["full", "all columns"], ["brief", "one column"], ["hidden", "not shown"]], view.extent[metric.name],
      (value) => { view.extent[metric.name] = value; build(); })) : null,
    element("div", { class: "chips", role: "group", "aria-label": "Columns shown" },
      DATA.metrics.some((metric) => metric.published) ? toggle("Published", true,
        (on) => { view.published = on; build(); }) : null,
      toggle("Costs", true, (on) => { view.costs = on; build(); })));
}
