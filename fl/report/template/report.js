"use strict";
// What a reader's filters do: choose rows, hide what does not fit, draw the charts again. The page holds the rest.
(() => {
  const source = document.getElementById("data");
  const form = document.getElementById("filters");
  if (!form) return;
  const { metric, up, cells, curves } = JSON.parse(source.textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const rest = { epsilon: "quantitative", bytes_up: "quantitative", seconds: "quantitative" };

  // Seven shapes beside eight colours: 56 stacks of layers before one looks like another.
  const shapes = ["circle", "square", "cross", "diamond", "triangle-up", "triangle-down", "triangle-right"];
  const theme = () => {
    const [ink, line] = dark.matches ? ["#eceef2", "#454b55"] : ["#1a1c20", "#c9ced6"];
    const axis = { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12 };
    const colours = dark.matches
      ? ["#8ab8ff", "#ffb86b", "#7ddc9a", "#ff9aa8", "#d0a8ff", "#f2e27a", "#7fe0e0", "#e0b090"]
      : ["#0b57b0", "#a34700", "#1a7038", "#b3123b", "#6a3fb0", "#756200", "#006f7a", "#7a4a2a"];
    return { background: null, view: { stroke: line }, axis, legend: { labelColor: ink, titleColor: ink, labelLimit: 400, labelFontSize: 13, orient: "bottom", columns: innerWidth < 640 ? 1 : 3 }, range: { category: colours, symbol: shapes } };
  };
  const scale = (rows, field) => {
    const seen = rows.map((row) => row[field]).filter((value) => value > 0);
    return { zero: false, padding: 16, type: Math.max(...seen) > 20 * Math.min(...seen) ? "log" : "linear" };
  };
  const tooltip = [
    { field: "label", title: "configuration" }, { field: "data", title: "data" },
    { field: "value", title: metric, format: ".4f" }, { field: "low", title: "from", format: ".4f" }, { field: "high", title: "to", format: ".4f" },
    { field: "epsilon", title: "epsilon", format: ".4g" }, { field: "holds", title: "holds" },
    { field: "bytes_up", title: "bytes up", format: ",.0f" }, { field: "seconds", title: "seconds", format: ".4g" },
  ];
  // A stack of layers keeps its colour and its shape whatever else is shown.
  const stack = { field: "layers", type: "nominal", title: null, scale: { domain: [...new Set(cells.map((row) => row.layers))] } };
  const look = { color: stack, shape: stack };
  const y = { field: "value", type: "quantitative", title: metric, scale: { zero: false, padding: 12 }, axis: { format: ".4~g" } };

  // What no other row beats: no less of the metric for no more of the cost.
  const front = (rows, cost) => rows.filter((a) => !rows.some((b) => b.data === a.data &&
    (up ? b.value >= a.value : b.value <= a.value) && b[cost] <= a[cost] && (b.value !== a.value || b[cost] !== a[cost])));
  const once = (rows) => rows.filter((row, at) => rows.findIndex((other) => other.cell === row.cell) === at);

  const bars = (rows) => rows.length
    ? [{ data: { values: rows }, mark: { type: "rule", strokeWidth: 2, aria: false }, encoding: { y: { ...y, field: "low" }, y2: { field: "high" }, color: stack } }]
    : [];
  const points = (rows, field, title) => ({
    data: { values: rows },
    encoding: { x: { field, type: rest[field], title, scale: scale(rows, field), axis: { format: field === "bytes_up" ? ".3~s" : ".3~g" } }, y },
    layer: [
      ...bars(rows.filter((row) => row.low !== null)),
      { data: { values: rows }, mark: { type: "point", filled: true, opacity: 1, size: 90 }, encoding: { ...look, tooltip } },
    ],
  });
  const charts = {
    epsilon: (rows) => {
      const spec = points(rows.filter((row) => row.epsilon !== null), "epsilon", "epsilon");
      const free = once(rows.filter((row) => row.epsilon === null));
      if (free.length) spec.layer.push({ data: { values: free }, mark: { type: "rule", strokeDash: [6, 4], strokeWidth: 2 }, encoding: { x: null, y, color: stack, tooltip } });
      return spec;
    },
    bytes: (rows) => cost(once(rows), "bytes_up", "bytes that a client sends in a round"),
    seconds: (rows) => cost(once(rows), "seconds", "seconds of the whole run"),
    rounds: (rows) => {
      const kept = new Set(rows.map((row) => row.cell));
      return {
        data: { values: curves.filter((row) => kept.has(row.cell)) },
        mark: { type: "line", point: true },
        encoding: { x: { field: "round", type: "quantitative", title: "round", axis: { tickMinStep: 1 }, scale: { zero: false } }, y, color: stack, detail: { field: "run" }, strokeDash: stack,
          tooltip: [{ field: "run", title: "run" }, { field: "label", title: "configuration" }, { field: "round", title: "round" }, { field: "value", title: metric, format: ".4f" }] },
      };
    },
  };
  const cost = (rows, field, title) => {
    const known = rows.filter((row) => row[field] !== null);
    const spec = points(known, field, title);
    if (known.length) spec.layer.unshift({ data: { values: front(known, field) }, mark: { type: "line", interpolate: "step-after", strokeDash: [2, 3], aria: false }, encoding: { detail: { field: "data" } } });
    return spec;
  };

  const chosen = () => {
    const asked = new FormData(form);
    const layers = new Set(asked.getAll("layers")), most = parseFloat(asked.get("epsilon"));
    return cells.map((row) => layers.has(row.layers)
      && (!asked.get("data") || row.data === asked.get("data"))
      && (!asked.get("holds") || !row.unit || row.holds === asked.get("holds"))
      && !(most >= 0 && (row.epsilon === null || row.epsilon > most)));
  };
  const draw = async () => {
    const kept = chosen(), rows = cells.filter((_, at) => kept[at]), numbers = new Set(rows.map((row) => String(row.cell)));
    document.querySelectorAll("[data-row]").forEach((row) => { row.hidden = !kept[row.dataset.row]; });
    document.querySelectorAll("[data-cell]").forEach((part) => { part.hidden = !numbers.has(part.dataset.cell); });
    const all = new Set(cells.map((row) => row.cell)).size;
    document.getElementById("shown").textContent = `${numbers.size} of ${all} configurations are shown.`;
    for (const [name, spec] of Object.entries(charts)) {
      const place = document.getElementById(name), made = spec(rows);
      const told = made.data.values.length + (name === "epsilon" ? rows.filter((row) => row.epsilon === null).length : 0);
      place.classList.toggle("empty", !told);
      if (!told) { place.textContent = "Nothing to draw: no configuration that is shown tells this."; continue; }
      const about = document.getElementById(`${name}-title`).textContent;
      await vegaEmbed(place, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height: 320, autosize: { type: "fit-x", contains: "padding" }, description: about, config: theme(), ...made }, { renderer: "svg", actions: false });
    }
    document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
  };
  // One drawing after the other: two at once would leave the older one's charts where it ends last.
  let drawing = Promise.resolve();
  const redraw = () => { drawing = drawing.then(draw); };
  form.addEventListener("input", redraw);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { form.elements.data.value = ""; redraw(); }));
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
  redraw();
})();
