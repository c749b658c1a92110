"use strict";

// Stretch and colours: one of the pictures is shown.
function choosePicture(tile) {
  const chosen = (name) => tile.querySelector(`[data-choice="${name}"] input:checked`)?.value;
  for (const picture of tile.querySelectorAll(".canvas img")) {
    const { curve, colours } = picture.dataset;
    picture.hidden = curve !== chosen("curve") || colours !== (chosen("colours") ?? colours);
  }
}

// Sorting: the same column again turns the order; what is not known ("-") stays last.
function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  const text = (row) => row.cells[column].textContent;
  const number = (row) => parseFloat(text(row).replace(/[,+%]/g, ""));
  const unknown = header.dataset.kind === "number" ? (row) => isNaN(number(row)) : (row) => /^-?$/.test(text(row));
  const order = header.dataset.kind === "number"
    ? (a, b) => number(a) - number(b)
    : (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
  const rows = [...body.rows];
  rows.sort((a, b) => unknown(a) - unknown(b) || (unknown(a) ? 0 : down ? order(b, a) : order(a, b)));
  body.append(...rows);
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
}

// A frame is lit in the charts, on the tile and in the table at once: the one under the mouse, or the one kept.
const tip = document.querySelector(".tip");

function light(tile, frame) {
  for (const lit of tile.querySelectorAll(".lit")) lit.classList.remove("lit");
  if (frame === undefined) return;
  for (const found of tile.querySelectorAll(`[data-frame="${frame}"]`)) {
    found.classList.add("lit");
    if (found.matches(".outline")) found.parentElement.append(found);  // above the others
  }
}

addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

function showTip(tile, told, frame, x, y) {
  const row = tile.querySelector(`tr[data-frame="${frame}"] .name`);
  tip.textContent = [row?.textContent, told].filter(Boolean).join("\n");
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 4))}px`;
  tip.style.top = `${y + 16 + height > innerHeight ? y - height - 8 : y + 16}px`;
}

// The mark nearest to the mouse: a finger need not hit it.
function nearestMark(chart, x, y) {
  let nearest, least = 30 ** 2;
  for (const mark of chart.querySelectorAll(".mark")) {
    const box = mark.getBoundingClientRect();
    const [dx, dy] = [
      Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom),
    ];
    const distance = dx * dx + dy * dy;
    if (distance < least) [nearest, least] = [mark, distance];
  }
  return nearest;
}

// The footprint whose border is nearest to the mouse, while they are shown.
function nearestOutline(stage, x, y) {
  if (!stage.matches(".with-outlines")) return undefined;
  let nearest, least = 12;
  for (const outline of stage.querySelectorAll(".outline")) {
    const toScreen = outline.getScreenCTM();
    const points = [...outline.points].map((point) => point.matrixTransform(toScreen));
    points.forEach((b, k) => {
      const a = points.at(k - 1), [dx, dy] = [b.x - a.x, b.y - a.y];
      const share = Math.max(0, Math.min(1, ((x - a.x) * dx + (y - a.y) * dy) / (dx * dx + dy * dy || 1)));
      const distance = Math.hypot(a.x + share * dx - x, a.y + share * dy - y);
      if (distance < least) [nearest, least] = [outline, distance];
    });
  }
  return nearest;
}

function followFrames(tile) {
  let kept;
  const found = (event) => {
    const chart = event.target.closest(".chart svg"), stage = event.target.closest(".stage");
    if (chart) return nearestMark(chart, event.clientX, event.clientY);
    if (stage) return nearestOutline(stage, event.clientX, event.clientY);
    return event.target.closest("tr[data-frame]");
  };
  const follow = (event) => {
    const place = found(event), frame = place?.dataset.frame;
    light(tile, frame ?? kept);
    if (place && !place.matches("tr")) {
      showTip(tile, place.getAttribute("aria-label"), frame, event.clientX, event.clientY);
    } else tip.hidden = true;
  };
  tile.addEventListener("pointermove", follow);
  tile.addEventListener("pointerleave", () => { tip.hidden = true; light(tile, kept); });
  tile.addEventListener("click", (event) => {
    if (!event.target.closest(".chart, .stage, tr[data-frame]")) return;
    const frame = found(event)?.dataset.frame;
    kept = frame === kept ? undefined : frame;
    follow(event);
  });
}

async function copy(button) {
  const text = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "copied";
  } catch {  // not every browser lets a local file do it: the text is selected, for the user to copy
    getSelection().selectAllChildren(text);
    button.textContent = "selected";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

for (const tile of document.querySelectorAll(".tile")) {
  for (const choice of tile.querySelectorAll(".choice")) {
    choice.addEventListener("change", () => choosePicture(tile));
  }
  choosePicture(tile);  // a page that is loaded again keeps its choices
  const footprints = tile.querySelector(".footprints");
  const outline = () => tile.querySelector(".stage").classList.toggle("with-outlines", footprints.checked);
  footprints.addEventListener("change", outline);
  outline();
  for (const button of tile.querySelectorAll(".sortable thead button")) {
    button.addEventListener("click", () => sortBy(button.parentElement));
  }
  const only = tile.querySelector(".only-left-out");
  only?.addEventListener("change", () => {
    for (const row of tile.querySelectorAll("tr[data-frame]")) {
      row.hidden = only.checked && !row.matches(".left-out");
    }
  });
  for (const button of tile.querySelectorAll(".copy")) button.addEventListener("click", () => copy(button));
  followFrames(tile);
}

document.querySelector(".theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
