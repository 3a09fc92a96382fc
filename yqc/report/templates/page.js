"use strict";
(() => {
  document.getElementById("labels")?.addEventListener("change", (event) => {
    document.querySelector(".strip").classList.toggle("named", event.target.checked);
  });

  const view = document.querySelector(".drawing");
  if (view) prepare(view, view.querySelector("svg"));
  document.documentElement.dataset.ready = "yes";

  function prepare(view, graph) {
    const nodes = [...graph.querySelectorAll("g")];
    const wide = graph.viewBox.baseVal.width;
    document.querySelector(".controls").hidden = false;

    document.getElementById("colour").addEventListener("change", (event) => {
      const choice = event.target.value;
      const number = /^\d+$/.test(choice);
      graph.dataset.by = number ? "pass" : choice;
      for (const node of nodes) {
        const changed = number && (node.dataset.p ?? "").split(" ").includes(choice);
        node.classList.toggle("changed", changed);
      }
    });

    document.getElementById("find").addEventListener("input", (event) => {
      const wanted = event.target.value.trim().toLowerCase();
      let first = null;
      let count = 0;
      for (const node of nodes) {
        const hit = wanted !== "" && node.textContent.toLowerCase().includes(wanted);
        node.classList.toggle("hit", hit);
        count += hit;
        if (hit) first ??= node;
      }
      document.getElementById("hits").textContent = wanted === "" ? "" : `${count} found`;
      if (first) centre(first);
    });

    function centre(node) {
      const scale = graph.clientWidth / wide;
      const at = node.transform.baseVal[0].matrix;
      view.scrollTo(at.e * scale - view.clientWidth / 2, at.f * scale - view.clientHeight / 2);
    }

    function zoom(scale) {
      const before = graph.clientWidth;
      const middle = view.scrollLeft + view.clientWidth / 2;
      graph.style.width = `${wide * Math.min(3, Math.max(view.clientWidth / wide, scale))}px`;
      const factor = graph.clientWidth / before;
      view.scrollLeft = middle * factor - view.clientWidth / 2;
    }

    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => {
        zoom((graph.clientWidth / wide) * Number(button.dataset.zoom));
      });
    }
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom((graph.clientWidth / wide) * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
    }, { passive: false });

    let held = null;
    view.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) {
        held = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop];
      }
    });
    window.addEventListener("pointermove", (event) => {
      if (held) view.scrollTo(held[0] - event.clientX, held[1] - event.clientY);
    });
    window.addEventListener("pointerup", () => { held = null; });

    graph.addEventListener("click", (event) => {
      const node = event.target.closest("g");
      const said = node?.querySelector("title").textContent ?? "";
      document.getElementById("pointed").textContent = said;
    });
  }
})();
