"use strict";

function shown(number, unit) {
  return unit === "%" ? number.toFixed(1) + "%" : String(Number(number.toPrecision(4)));
}

function setUpExplorer(root) {
  const { explorer, marks } = JSON.parse(
    root.querySelector('script[type="application/json"]').textContent,
  );
  const input = root.querySelector("input");
  const output = root.querySelector("output");
  const marker = root.querySelector(".chart > svg .marker");

  function showReadout(box, level) {
    const { unit, values, low, high } = explorer.readouts[Number(box.dataset.readout)];
    box.querySelector(".value").textContent = shown(values[level], unit);
    if (low) {
      box.querySelector(".spread").textContent =
        shown(low[level], unit) + " to " + shown(high[level], unit);
    }
    const fill = box.querySelector(".fill");
    if (fill) fill.style.width = values[level] + "%";
    const whisker = box.querySelector(".whisker");
    if (whisker) {
      const start = Math.max(low[level], 0);
      whisker.style.left = start + "%";
      whisker.style.width = Math.max(Math.min(high[level], 100) - start, 0) + "%";
    }
  }

  function showMarker(level) {
    const m = marks[level];
    const across = m.x_low === null ? "" : `M${m.x_low - m.x} 0H${m.x_high - m.x}`;
    const up = m.y_low === null ? "" : `M0 ${m.y_low - m.y}V${m.y_high - m.y}`;
    marker.setAttribute("transform", `translate(${m.x} ${m.y})`);
    marker.querySelector("path").setAttribute("d", across + up);
  }

  function show() {
    const level = Number(input.value);
    const { values, names } = explorer.slider;
    const named = names ? ` (${names[level]})` : "";
    const position = String(Number(values[level].toFixed(4))) + named;
    output.textContent = position;
    const told = explorer.readouts.map((r) => `${r.label} ${shown(r.values[level], r.unit)}`);
    input.setAttribute("aria-valuetext", `${position}: ${told.join(", ")}`);
    root.querySelectorAll("[data-readout]").forEach((box) => showReadout(box, level));
    showMarker(level);
  }

  input.addEventListener("input", show);
  root.querySelectorAll("[hidden]").forEach((part) => part.removeAttribute("hidden"));
  show();
}

function setUpCopy(box) {
  const button = box.querySelector("button");
  const code = box.querySelector("code");
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

document.querySelectorAll("[data-explorer]").forEach(setUpExplorer);
document.querySelectorAll(".command").forEach(setUpCopy);
