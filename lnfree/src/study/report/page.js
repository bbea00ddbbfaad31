"use strict";
(function () {
  const LIGHT = { text: "#4a505a", page: "#ffffff", line: "#c9cdd4" };
  const DARK = { text: "#b4bac4", page: "#1c2026", line: "#4a505a" };
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = [];

  const colors = function (c) {
    return {
      "font.color": c.text, "hoverlabel.bgcolor": c.page, "hoverlabel.bordercolor": c.line,
      "hoverlabel.font.color": c.text
    };
  };
  const recolor = function (c) {
    drawn.forEach(function (target) { Plotly.relayout(target, colors(c)); });
  };
  const current = function () { return prefersDark.matches ? DARK : LIGHT; };

  document.querySelectorAll("script[data-figure]").forEach(function (source) {
    const target = document.getElementById(source.dataset.figure);
    const figure = JSON.parse(source.textContent);
    const c = current();
    figure.layout.font.color = c.text;
    Object.assign(figure.layout.hoverlabel, { bgcolor: c.page, bordercolor: c.line });
    figure.layout.hoverlabel.font.color = c.text;
    Plotly.newPlot(target, figure.data, figure.layout, figure.config);
    drawn.push(target);
  });

  prefersDark.addEventListener("change", function () { recolor(current()); });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (d) { d.open = true; });
    recolor(LIGHT);
  });
  window.addEventListener("afterprint", function () { recolor(current()); });
})();
