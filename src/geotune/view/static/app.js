import { MapPane, follow } from "./map.js";

const $ = (id) => document.getElementById(id);
const base = new URL(".", location.href);
const state = { overview: null, number: 0, scene: null, layers: new Map(), divider: 50, split: null, popup: null };
let left, right;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function ask(path, options) {
  const answer = await fetch(new URL(path, base), options);
  if (answer.ok) return answer.json();
  throw Object.assign(new Error(await answer.text()), { status: answer.status });
}

function report(text) {
  $("status").textContent = text;
  $("status").hidden = !text;
}

async function onMapError(error) {
  const text = error?.body?.text ? await error.body.text() : error?.message;
  report(text || "a part of the map could not be loaded");
}

// Layers keep their opacity and visibility from scene to scene.
function settings(layer) {
  if (!state.layers.has(layer.title)) state.layers.set(layer.title, { visible: layer.visible, opacity: 1 });
  return state.layers.get(layer.title);
}

function applyLayers() {
  const swiping = $("swipe").checked;
  const chosen = [$("left").value, $("right").value];
  for (const [side, pane] of [left, right].entries()) {
    state.scene.layers.forEach((layer, number) => {
      if (!pane.layers[number]) return;
      const { visible, opacity } = settings(layer);
      const image = layer.role === "image" && visible;
      const shown = swiping ? image || chosen[side] === String(number) : visible && side === 0;
      pane.setLayer(number, shown, opacity);
    });
  }
  for (const [number, item] of [...$("layers").children].reverse().entries()) {
    const layer = state.scene.layers[number];
    const inUse = swiping && layer.role !== "image" ? chosen.includes(String(number)) : settings(layer).visible;
    item.classList.toggle("off", !inUse);
    item.querySelector("input[type=checkbox]").disabled = swiping && layer.role !== "image";
  }
  for (const [select, name] of [["left", "name-left"], ["right", "name-right"]]) {
    $(name).hidden = !swiping;
    $(name).textContent = $(select).selectedOptions[0]?.textContent ?? "";
  }
}

function legendOf(layer) {
  const { classes, gradient, low, high } = layer.legend;
  if (gradient) {
    const bar = element("i");
    bar.style.background = gradient;
    return element("div", { className: "legend gradient" }, element("span", { textContent: low }), bar,
      element("span", { textContent: high }));
  }
  if (!classes || classes.length === 0) return null;
  const items = classes.map(({ name, color }) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = color ?? "transparent";
    return element("li", {}, swatch, color ? name : `${name} (not drawn)`);
  });
  return element("ul", { className: "legend" }, ...items);
}

function listLayers() {
  const items = state.scene.layers.map((layer, number) => {
    const known = settings(layer);
    const check = element("input", { type: "checkbox", checked: known.visible });
    check.addEventListener("change", () => { known.visible = check.checked; applyLayers(); });
    const slider = element("input", { type: "range", min: 0, max: 1, step: 0.05, value: known.opacity, title: "Opacity" });
    slider.setAttribute("aria-label", `Opacity of ${layer.title}`);
    slider.addEventListener("input", () => { known.opacity = Number(slider.value); applyLayers(); });
    const head = element("div", { className: "layer-head" }, element("label", {}, check, layer.title), slider);
    const note = element("p", { className: "layer-note" });
    note.dataset.note = number;
    return element("li", {}, ...[head, note, legendOf(layer)].filter(Boolean));
  });
  $("layers").replaceChildren(...items.reverse());
  for (const id of ["left", "right"]) {
    const before = $(id).selectedOptions[0]?.textContent;
    const options = state.scene.layers.map((layer, number) => element("option", { value: number, textContent: layer.title }));
    $(id).replaceChildren(...options);
    const roles = id === "left" ? ["labels", "image"] : ["prediction", "confidence", "labels", "image"];
    const kept = options.find((option) => option.textContent === before);
    const role = roles.find((each) => state.scene.layers.some((layer) => layer.role === each));
    const usual = state.scene.layers.findLastIndex((layer) => layer.role === role);
    $(id).value = kept ? kept.value : String(usual);
  }
}

function updateZoomNotes() {
  if (!state.scene) return;
  const zoom = left.map.getZoom();
  state.scene.layers.forEach((layer, number) => {
    const note = document.querySelector(`[data-note="${number}"]`);
    const far = layer.type === "raster" && zoom < layer.minzoom - 0.5;
    note.textContent = far ? "zoom in to see it" : layer.note ?? "";
    note.hidden = !note.textContent;
  });
}

function describeScene() {
  const { scene } = state;
  const size = `${scene.shape[1].toLocaleString("en")} × ${scene.shape[0].toLocaleString("en")} pixels`;
  const rows = [["size", size], ...scene.facts];
  if (scene.local) rows.push(["place", "not on Earth: in pixels"]);
  $("facts").replaceChildren(...rows.flatMap(([name, value]) => [
    element("dt", { textContent: name }), element("dd", { textContent: value }),
  ]));
  const notes = [...state.overview.notes, ...scene.notes];
  $("notes").hidden = notes.length === 0;
  $("note-list").replaceChildren(...notes.map((text) => element("li", { textContent: text })));
  $("prediction").hidden = !scene.predictable;
}

async function openScene(number, { fit = true } = {}) {
  let scene;
  try {
    scene = await ask(`scenes/${number}`);
  } catch (error) {
    report(error.message);
    return false;
  }
  report("");
  const another = number !== state.number || !state.scene;
  Object.assign(state, { number, scene });
  $("scene").value = String(number);
  $("previous").disabled = number === 0;
  $("next").disabled = number === state.overview.scenes.length - 1;
  if (another) state.popup?.remove();
  const url = (layer) => scene.layers[layer].type === "raster"
    ? `${base}tiles/${number}/${layer}/${scene.version}/{z}/{x}/{y}.png`
    : `${base}features/${number}/${layer}/${scene.version}.json`;
  await Promise.all([left.show(scene, url), right.show(scene, url)]);
  describeScene();
  listLayers();
  applyLayers();
  setScale(scene.local);
  if (fit) left.map.fitBounds(scene.bounds, { padding: 30, animate: false });
  updateZoomNotes();
  scene.layers.forEach(async (layer, index) => {
    if (layer.type === "raster") return;
    try {
      layer.note = (await (await fetch(url(index))).json()).note ?? "";
      updateZoomNotes();
    } catch { /* the map reports it */ }
  });
  return true;
}

let scale = null;
function setScale(local) {
  if (scale) left.map.removeControl(scale);
  scale = local ? null : new maplibregl.ScaleControl({ maxWidth: 120 });
  if (scale) left.map.addControl(scale, "bottom-right");
}

function table(rows) {
  return element("table", {}, ...rows.map(([name, value]) => element("tr", {},
    element("th", { textContent: name, scope: "row" }), element("td", { textContent: value }))));
}

async function onClick(pane, event) {
  const { lng, lat } = event.lngLat.wrap();
  const content = element("div", { className: "answer" });
  for (const shape of pane.shapesAt(event.point).slice(0, 5)) {
    const { class: name, score, pixels, area_m2: area } = shape.properties;
    const layer = state.scene.layers[Number(shape.source.split("-")[1])];
    const rows = [["class", name], ["score", score?.toFixed(3)], ["pixels", pixels?.toLocaleString("en")], ["area", area && `${Math.round(area).toLocaleString("en")} m²`]];
    content.append(element("h3", { textContent: layer.title }), table(rows.filter(([, value]) => value !== undefined && value !== null)));
  }
  try {
    const answer = await ask(`scenes/${state.number}/at?lon=${lng}&lat=${lat}`);
    for (const { title, rows, role } of answer.groups) {
      content.append(...(role === "image"
        ? [element("details", {}, element("summary", { textContent: "values of the image" }), table(rows))]
        : [element("h3", { textContent: title }), table(rows)]));
    }
    if (answer.pixel) content.append(element("p", { textContent: `row ${answer.pixel[1]}, column ${answer.pixel[0]}` }));
  } catch (error) {
    content.append(element("p", { textContent: error.message }));
  }
  if (!content.childElementCount) content.append(element("p", { textContent: "outside the scene" }));
  state.popup?.remove();
  state.popup = new maplibregl.Popup({ maxWidth: "320px" }).setLngLat(event.lngLat).setDOMContent(content).addTo($("swipe").checked ? right.map : pane.map);
}

function placeDivider(percent) {
  state.divider = Math.min(100, Math.max(0, percent));
  $("divider").style.left = `${state.divider}%`;
  $("divider").setAttribute("aria-valuenow", Math.round(state.divider));
  document.querySelector("#map-right canvas").style.clipPath = `inset(0 0 0 ${state.divider}%)`;
}

function setUpSwipe() {
  const divider = $("divider");
  const drag = (event) => {
    const box = document.querySelector("main").getBoundingClientRect();
    placeDivider(((event.clientX - box.left) / box.width) * 100);
  };
  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    divider.addEventListener("pointermove", drag);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    divider.addEventListener(end, () => divider.removeEventListener("pointermove", drag));
  }
  divider.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: state.divider - 2, ArrowRight: state.divider + 2, Home: 0, End: 100,
      PageDown: state.divider - 10, PageUp: state.divider + 10 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    placeDivider(to);
  });
  $("swipe").addEventListener("change", () => {
    const on = $("swipe").checked;
    for (const id of ["map-right", "divider", "sides"]) $(id).hidden = !on;
    if (on) {
      right.map.resize();
      right.map.jumpTo({ center: left.map.getCenter(), zoom: left.map.getZoom() });
    }
    applyLayers();
  });
  for (const id of ["left", "right"]) $(id).addEventListener("change", applyLayers);
  placeDivider(50);
}

function listWindows() {
  const { windows, scenes } = state.overview;
  const splits = [...new Set(windows.map((each) => each.split))];
  $("worst").hidden = windows.length === 0;
  state.split ??= splits[0];
  $("splits").hidden = splits.length < 2;
  $("splits").replaceChildren(...splits.map((split) => {
    const button = element("button", { type: "button", textContent: split });
    button.setAttribute("aria-pressed", split === state.split);
    button.addEventListener("click", () => { state.split = split; listWindows(); });
    return button;
  }));
  $("windows").replaceChildren(...windows.filter((each) => each.split === state.split).map((each) => {
    const texts = [`${each.rank}`, scenes[each.scene].name, each.score === null ? "–" : each.score.toFixed(3)];
    const button = element("button", { type: "button" }, ...texts.map((text) => element("span", { textContent: text })));
    button.addEventListener("click", () => flyTo(each, button));
    return element("li", {}, button);
  }));
}

async function flyTo(window, button) {
  if (window.scene !== state.number && !(await openScene(window.scene))) return;
  try {
    const { bounds, outline } = await ask(`windows/${window.number}`);
    for (const pane of [left, right]) pane.showOutline(outline);
    const quiet = matchMedia("(prefers-reduced-motion: reduce)").matches;
    left.map.fitBounds(bounds, { padding: 60, animate: !quiet, duration: 900 });
  } catch (error) {
    report(error.message);
  }
  for (const other of document.querySelectorAll("#windows [aria-current]")) other.removeAttribute("aria-current");
  button.setAttribute("aria-current", "true");
}

async function predict() {
  const number = state.number;
  try {
    await ask(`scenes/${number}/predict`, { method: "POST" });
  } catch (error) {
    report(error.status === 409 ? "another scene is being predicted; wait for it" : error.message);
    return;
  }
  watchPrediction(number);
}

async function watchPrediction(number) {
  $("predict").disabled = true;
  $("progress").hidden = false;
  const job = await ask("prediction").catch((error) => ({ state: "failed", error: error.message }));
  if (job.state === "running") {
    if (job.total) Object.assign($("progress"), { max: job.total, value: job.done });
    else $("progress").removeAttribute("value");
    setTimeout(() => watchPrediction(number), 500);
    return;
  }
  $("predict").disabled = false;
  $("progress").hidden = true;
  if (job.state === "failed") report(job.error);
  else if (number === state.number) await openScene(number, { fit: false });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  for (const pane of [left, right]) pane?.loaded.then(() => pane.recolor());
}

function setUpTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  setTheme(system.matches ? "dark" : "light");
  system.addEventListener("change", () => chosen ?? setTheme(system.matches ? "dark" : "light"));
  $("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(chosen);
  });
}

function listScenes() {
  const groups = new Map();
  state.overview.scenes.forEach(({ name, split }, number) => {
    if (!groups.has(split)) groups.set(split, []);
    groups.get(split).push(element("option", { value: number, textContent: name }));
  });
  $("scene").replaceChildren(...[...groups].flatMap(([split, options]) => split || groups.size > 1
    ? [element("optgroup", { label: split || "in no split" }, ...options)] : options));
  $("scene").addEventListener("change", () => openScene(Number($("scene").value)));
  $("previous").addEventListener("click", () => openScene(state.number - 1));
  $("next").addEventListener("click", () => openScene(state.number + 1));
}

async function start() {
  setUpTheme();
  try {
    maplibregl.setWorkerUrl(new URL("maplibre-worker.js", base).href);
    left = new MapPane("map-left", onClick, onMapError);
    right = new MapPane("map-right", onClick, onMapError);
  } catch (error) {
    report(`this browser cannot draw the map (WebGL): ${error.message}`);
    return;
  }
  left.map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
  follow(left, right);
  left.map.on("zoom", updateZoomNotes);
  for (const event of ["dataloading", "movestart"]) left.map.on(event, () => { document.body.dataset.map = "busy"; });
  left.map.on("idle", () => { document.body.dataset.map = "idle"; });
  state.overview = await ask("overview");
  document.title = `${state.overview.title} – geotune view`;
  $("title").textContent = state.overview.title;
  listScenes();
  listWindows();
  setUpSwipe();
  $("predict").addEventListener("click", predict);
  for (let number = 0; number < state.overview.scenes.length; number += 1) {
    if (await openScene(number)) break; // the first that can be read
  }
  const job = await ask("prediction");
  if (job.state === "running") watchPrediction(state.number);
}

start().catch((error) => report(error.message));
