"use strict";
// What awr_exp/report/drawing.py describes as a panel, drawn by Plotly; tables that sort and filter.
const WINDOWS = [1, 3, 5, 9, 15, 25];
const SYMBOLS = ["circle", "square", "diamond", "triangle-down", "triangle-up", "cross"];
// Of Plotly's own buttons one would upload the chart.
const CONFIG = {
  displaylogo: false, responsive: true, plotlyServerURL: "", showSendToCloud: false,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const colourOf = (number) => css(number === null ? "others" : `c${number}`);
const faded = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");
// Plotly takes a text for HTML.
const plain = (text) => {
  const short = text.length > 72 ? `${text.slice(0, 72)}…` : text;
  return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
};
const short = (value) => String(Number(value.toPrecision(5)));

// Each value's mean with its neighbours; what is missing stays so.
function smooth(values, size) {
  const half = (size - 1) / 2;
  return values.map((value, place) => {
    const room = Math.min(half, place, values.length - 1 - place);
    const near = values.slice(place - room, place + room + 1).filter((one) => one !== null);
    return value === null ? null : near.reduce((sum, one) => sum + one, 0) / near.length;
  });
}

function tracesOf(trace, size, legend) {
  const colour = colourOf(trace.colour), named = trace.label !== "" && !legend.has(trace.label) && trace.kind !== "thin";
  if (named) legend.add(trace.label);
  const smoothed = ["curve", "thin"].includes(trace.kind) ? (values) => smooth(values, size) : (values) => values;
  const y = smoothed(trace.y), low = smoothed(trace.low), high = smoothed(trace.high);
  const about = trace.about.length === trace.x.length ? trace.about : trace.x.map(() => trace.about[0] ?? trace.label);
  const drawn = {
    x: trace.x, y, type: "scatter", mode: "lines", name: plain(trace.label), legendgroup: trace.label || undefined, showlegend: false,
    text: about.map((one, i) => plain(one) + (low[i] == null ? "" : `<br>${short(low[i])} to ${short(high[i])}`)),
    hovertemplate: `%{y:.5~g}${["curve", "thin", "steps"].includes(trace.kind) ? " at %{x:.5~g}" : ""}<br>%{text}<extra></extra>`,
    line: { color: colour, width: 2 }, marker: { color: colour, symbol: SYMBOLS[trace.colour] ?? "circle", size: 5 },
  };
  switch (trace.kind) {
    case "runs": return [{ ...drawn, mode: "markers", marker: { ...drawn.marker, size: 7, opacity: 0.5 } }];
    case "thin": return [{ ...drawn, line: { color: faded(colour, 0.4), width: 1 } }];
    case "join": return [{ ...drawn, hoverinfo: "skip", hovertemplate: null, line: { color: faded(colour, 0.7), width: 1.5 } }];
    case "means": {
      const bars = { type: "data", symmetric: false, array: high.map((v, i) => v === null ? 0 : Math.abs(v - y[i])),
        arrayminus: low.map((v, i) => v === null ? 0 : Math.abs(y[i] - v)), color: colour, thickness: 1.5, width: 5 };
      return [{ ...drawn, mode: "markers", showlegend: named, error_y: bars, marker: { ...drawn.marker, size: trace.colour === null ? 7 : 11 } }];
    }
    case "steps": drawn.line.shape = "hv"; break;
    default: if (trace.x.length <= 30) drawn.mode = "lines+markers";
  }
  drawn.showlegend = named;
  drawn.line.width = trace.colour === null ? 1 : 2;
  if (!low.length) return [drawn];
  const edge = { ...drawn, showlegend: false, mode: "lines", hoverinfo: "skip", hovertemplate: null, connectgaps: false,
    line: { width: 0, shape: drawn.line.shape, color: faded(colour, 0) } };
  return [{ ...edge, y: low }, { ...edge, y: high, fill: "tonexty", fillcolor: faded(colour, 0.15) }, drawn];
}

function levelOf(level, x) {
  return { x: level.shown ? x.limits : [null], y: level.shown ? [level.value, level.value] : [null], type: "scatter", mode: "lines",
    name: plain(level.label), showlegend: true, hoverinfo: "skip",
    line: { color: level.shown ? css("muted") : "transparent", dash: level.dash, width: 1.3 } };
}

function axisOf(axis, grid, narrow) {
  const range = axis.log ? axis.limits.map(Math.log10) : axis.limits;
  const ticks = axis.ticks.length
    ? { tickmode: "array", tickvals: axis.ticks.map(([place]) => place), ticktext: axis.ticks.map(([, name]) => plain(name)), minor: { showgrid: false } }
    : { nticks: narrow ? 5 : 9 };
  return { title: { text: plain(axis.title), standoff: 8 }, type: axis.log ? "log" : "linear", range, ...ticks,
    gridcolor: grid, linecolor: grid, zeroline: false, automargin: true, exponentformat: "SI" };
}

function draw(place) {
  const panel = JSON.parse(place.dataset.panel), legend = new Set(), size = WINDOWS[place.closest("figure").querySelector(".smooth input")?.value ?? 0];
  const data = [...panel.traces.flatMap((trace) => tracesOf(trace, size, legend)), ...panel.levels.map((level) => levelOf(level, panel.x))];
  const touched = matchMedia("(pointer: coarse)").matches, narrow = place.clientWidth < 500;
  const layout = {
    font: { color: css("ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", hovermode: "closest", dragmode: touched ? false : "zoom",
    hoverlabel: { bgcolor: css("card"), bordercolor: css("line"), font: { color: css("ink") }, align: "left" },
    margin: { l: 10, r: 15, t: 12, b: 10 }, modebar: { bgcolor: "transparent", color: css("muted"), activecolor: css("accent") },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemsizing: "constant", bgcolor: "transparent" },
    xaxis: axisOf(panel.x, css("line"), narrow), yaxis: axisOf(panel.y, css("line"), narrow),
  };
  return Plotly.react(place, data, layout, { ...CONFIG, displayModeBar: touched ? false : "hover" });
}

const panels = [...document.querySelectorAll(".panel")];
const drawAll = () => panels.forEach(draw);
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
matchMedia("print").addEventListener("change", () => panels.forEach((place) => Plotly.Plots.resize(place)));

document.querySelectorAll(".smooth input").forEach((input) => input.addEventListener("input", () => {
  const size = WINDOWS[input.value];
  input.nextElementSibling.value = size === 1 ? "off" : `mean of ${size} evaluations`;
  input.closest("figure").querySelectorAll(".panel").forEach(draw);
}));

document.querySelectorAll("table.sortable thead tr:first-child th").forEach((head) => head.addEventListener("click", () => {
  const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const compare = (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[column].textContent), [m, n] = [parseFloat(x), parseFloat(y)];
    if (isNaN(m) || isNaN(n)) return isNaN(m) && isNaN(n) ? x.localeCompare(y) : isNaN(m) ? 1 : -1;
    return down ? n - m : m - n;
  };
  [...body.rows].sort(compare).forEach((row) => body.append(row));
}));

document.querySelectorAll("input[type=search]").forEach((input) => input.addEventListener("input", () => {
  const words = input.value.toLowerCase().split(/\s+/);
  for (const row of input.parentElement.querySelector("tbody").rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}));
