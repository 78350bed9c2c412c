"use strict";
(() => {
  const NARROW = 560;
  const figures = JSON.parse(document.getElementById("figures").textContent);

  // Colours: the style sheet holds them once for both themes; figures name them, as "--accent" or "--accent/0.3".
  const probe = document.body.appendChild(document.createElement("i"));
  probe.hidden = true;
  const color = (name) => {
    const [variable, opacity] = name.split("/");
    probe.style.color = `var(${variable})`;
    const solid = getComputedStyle(probe).color;
    return opacity ? solid.replace(/rgba?\(([^,]+,[^,]+,[^,)]+).*/, `rgba($1, ${opacity})`) : solid;
  };
  const COLOR = /^--[a-z0-9-]+(\/[\d.]+)?$/;
  const painted = (value) => {
    if (typeof value === "string") return COLOR.test(value) ? color(value) : value;
    if (Array.isArray(value)) return value.map(painted);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item)]));
  };
  const merged = (below, above) => {
    const result = { ...below };
    for (const [key, value] of Object.entries(above || {})) {
      const both = value && typeof value === "object" && !Array.isArray(value) && result[key];
      result[key] = both ? merged(result[key], value) : value;
    }
    return result;
  };

  const AXIS = {
    gridcolor: "--line", linecolor: "--line", zerolinecolor: "--line", zeroline: false, automargin: true,
    tickcolor: "--line", ticks: "outside", ticklen: 4, title: { standoff: 8, font: { size: 12.5 } }, hoverformat: ".4~g",
    minor: { ticks: "", showgrid: false },
  };
  const BASE = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "x unified", showlegend: false,
    margin: { l: 44, r: 14, t: 8, b: 44 }, colorway: ["--accent"], dragmode: "zoom",
    hoverlabel: { bgcolor: "--card", bordercolor: "--line", font: { color: "--ink", size: 12 }, namelength: -1 },
    xaxis: AXIS, yaxis: AXIS,
  };
  const CONFIG = {
    responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  };

  // The whole layout of a view: page defaults, the figure's own, the narrow screen's.
  const layoutOf = (view, height) => {
    const style = getComputedStyle(document.body);
    const font = { family: style.fontFamily, size: 12.5, color: "--soft" };
    const narrow = innerWidth < NARROW ? view.narrow : {};
    const layout = merged(merged({ ...BASE, font, height }, view.layout), narrow);
    if (!matchMedia("(hover: hover)").matches) layout.dragmode = false;  // a finger scrolls the page
    layout.yaxis = { ...layout.yaxis, title: undefined };  // written above the drawing instead
    return painted(layout);
  };

  const element = (name, of, text) => {
    const made = document.createElement(name);
    if (of) made.className = of;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  class Drawing {
    constructor(figure) {
      this.figure = figure;
      this.slot = document.getElementById(figure.name);
      this.plot = this.slot.querySelector(".plot");
      const first = Object.keys(figure.views)[0];
      this.chosen = first === "" ? [] : first.split(",").map(Number);
      this.hidden = new Set();
      this.slot.querySelector(".controls").append(...figure.controls.map((_, i) => this.control(i)));
      this.axisLine = this.plot.parentNode.insertBefore(element("div", "axis-line"), this.plot);
    }

    // A row of buttons where the choices are few and short, else a menu.
    control(index) {
      const { label, options } = this.figure.controls[index];
      const choose = (i) => { this.chosen[index] = i; this.hidden.clear(); return this.draw(); };
      if (options.length > 4 || options.join("").length > 60) {
        const menu = element("select");
        menu.append(...options.map((name) => element("option", "", name)));
        menu.setAttribute("aria-label", label);
        menu.selectedIndex = this.chosen[index];
        menu.addEventListener("change", () => choose(menu.selectedIndex));
        return menu;
      }
      const row = element("div", "choice");
      row.setAttribute("role", "group");
      row.setAttribute("aria-label", label);
      options.forEach((name, i) => {
        const button = row.appendChild(element("button", "", name));
        button.type = "button";
        button.setAttribute("aria-pressed", i === this.chosen[index]);
        button.addEventListener("click", () => {
          for (const other of row.children) other.setAttribute("aria-pressed", other === button);
          choose(i);
        });
      });
      return row;
    }

    async draw() {
      const view = this.figure.views[this.chosen.join(",")];
      this.slot.classList.toggle("empty", !view);
      const title = view ? view.title : "Nothing was recorded for this choice";
      this.slot.querySelector("h3").textContent = title;
      this.plot.setAttribute("aria-label", title);
      if (!view) return;
      const traces = view.data.map((trace, i) => ({ ...trace, visible: this.hidden.has(i) ? "legendonly" : true }));
      this.describe(view);
      const bare = traces.map(({ x, y, z, ...rest }) => ({ ...painted(rest), x, y, ...(z ? { z } : {}) }));
      await Plotly.react(this.plot, bare, layoutOf(view, Number(this.plot.dataset.height)), CONFIG);
    }

    // The vertical axis' title and the legend, above the drawing where they can wrap.
    describe(view) {
      const title = element("span", "axis-title", view.layout.yaxis?.title?.text);
      const entries = view.data.map((trace, i) => [trace, i]).filter(([t]) => t.name && t.showlegend !== false);
      const legend = element("span", "legend");
      if (entries.length > 1) legend.append(...entries.map(([trace, i]) => this.entry(trace, i)));
      this.axisLine.replaceChildren(title, legend);
    }

    entry(trace, index) {
      const name = trace.name.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
      const button = element("button", "key", name);  // names are escaped for plotly, an element's text is not
      const swatch = element("i", trace.line?.dash && trace.line.dash !== "solid" ? "dashed" : "");
      swatch.style.color = color(trace.line?.color || trace.marker?.color || "--ink");
      button.prepend(swatch);
      button.type = "button";
      button.setAttribute("aria-pressed", !this.hidden.has(index));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(index)) this.hidden.add(index);
        this.draw();
      });
      return button;
    }

    // Drawn means: there is a surface, and at least one mark on it.
    get drawn() {
      const marks = this.plot.querySelectorAll(".main-svg .trace path[d], .main-svg .heatmaplayer image");
      return this.plot.classList.contains("js-plotly-plot") && marks.length > 0;
    }
  }

  const drawings = [];
  const drawAll = async () => {
    for (const drawing of drawings) {
      try {
        await drawing.draw();
      } catch (error) {
        problems.push(`${drawing.figure.name}: ${error.message || error}`);
        drawing.plot.textContent = `This figure could not be drawn: ${error.message || error}`;
      }
      await new Promise((done) => setTimeout(done));  // let the page answer between figures
    }
  };

  const check = () => {
    const missing = drawings.filter((drawing) => !drawing.drawn).map((drawing) => drawing.figure.name);
    const slots = document.querySelectorAll("figure.chart").length;
    const requests = performance.getEntriesByType("resource").filter((entry) => !/^(data|blob):/.test(entry.name));
    const drawn = drawings.length - missing.length;
    Object.assign(document.body.dataset, {
      figures: slots, drawn, errors: problems.length, requests: requests.length, checked: "true",
    });
    const faults = [
      ...problems,
      ...missing.map((name) => `${name} shows nothing`),
      ...requests.map((entry) => `a request went to ${entry.name}`),
    ];
    document.getElementById("check").textContent =
      `${drawn} of ${slots} figures drawn. ` + (faults.length ? faults.join("; ") : "No error, no request to anywhere.");
  };

  const start = async () => {
    for (const figure of figures) {
      try {
        drawings.push(new Drawing(figure));
      } catch (error) {
        problems.push(`${figure.name}: ${error.message || error}`);
      }
    }
    await drawAll();
    check();
  };

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  dark.addEventListener("change", drawAll);
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    drawAll();
  });
  const narrow = matchMedia(`(max-width: ${NARROW}px)`);
  narrow.addEventListener("change", drawAll);
  start();
})();
