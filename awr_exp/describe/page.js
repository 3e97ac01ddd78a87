"use strict";
// The pictures of a data set, which awr_exp/describe/page.py makes, in the colours of the page.
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const style = getComputedStyle(document.documentElement);
  const [text, line, accent] = ["--ink", "--line", "--accent"].map((name) => style.getPropertyValue(name));
  const axis = { gridcolor: line, zerolinecolor: line };
  document.querySelectorAll(".panel").forEach((place, number) => {
    const { data, layout } = pictures[number];
    Plotly.react(place, data, {
      ...layout, xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis },
      margin: { l: 48, r: 8, t: 8, b: 40 }, showlegend: false, font: { color: text }, colorway: [accent, text],
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", barmode: "overlay",
    }, { responsive: true, displayModeBar: false });
  });
}
dark.addEventListener("change", draw);
draw();
