"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function figures() {
    return Bokeh.documents.flatMap((doc) => doc.roots());
  }

  function paint() {
    const ink = dark.matches ? "#c5ccd6" : "#3c4656";
    const grid = dark.matches ? "#8793a5" : "#9aa4b2";
    for (const figure of figures()) {
      for (const part of [...figure.below, ...figure.left, ...figure.center, ...figure.above]) {
        if ("major_label_text_color" in part) {
          part.major_label_text_color = ink;
          part.axis_label_text_color = ink;
          part.axis_line_color = grid;
          part.major_tick_line_color = grid;
        }
        if ("grid_line_color" in part) part.grid_line_color = grid;
        if ("label_text_color" in part) part.label_text_color = ink;
      }
    }
  }

  function model(name) {
    for (const doc of Bokeh.documents) {
      const found = doc.get_model_by_name(name);
      if (found) return found;
    }
    return null;
  }

  function recolour() {
    const nodes = model("nodes");
    const choice = document.getElementById("colour");
    if (!nodes || !choice) return;
    nodes.data.color = nodes.data[choice.value];
    nodes.change.emit();
  }

  function find() {
    const nodes = model("nodes");
    const graph = model("graph");
    const box = document.getElementById("find");
    const hits = document.getElementById("hits");
    if (!nodes || !graph || !box) return;
    const wanted = box.value.trim().toLowerCase();
    const found = [];
    nodes.data.line = Array.from(nodes.data.name, (name, i) => {
      const text = `${name} ${nodes.data.op[i]} ${nodes.data.role[i]}`.toLowerCase();
      const hit = wanted !== "" && text.includes(wanted);
      if (hit) found.push(i);
      return hit ? "#ff2d95" : "rgba(0,0,0,0)";
    });
    nodes.change.emit();
    hits.textContent = wanted === "" ? "" : `${found.length} found`;
    if (found.length) {
      const at = nodes.data.x[found[0]];
      const level = nodes.data.y[found[0]];
      graph.x_range.setv({ start: at - 8, end: at + 8 });
      graph.y_range.setv({ start: level - 4, end: level + 4 });
    }
  }

  function start() {
    if (!figures().length) {
      setTimeout(start, 30);
      return;
    }
    paint();
    dark.addEventListener("change", paint);
    document.getElementById("colour")?.addEventListener("change", recolour);
    document.getElementById("find")?.addEventListener("input", find);
    document.documentElement.dataset.ready = "yes";
  }

  document.getElementById("labels")?.addEventListener("change", (event) => {
    document.querySelector(".strip").classList.toggle("named", event.target.checked);
  });
  start();
})();
