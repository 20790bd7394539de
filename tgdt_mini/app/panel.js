// The page in the browser: shows what `Panel` wrote, and tells it what a person does.

const FRAME = `
  <div class="tgdt-ask">
    <label>Caption <input type="text" name="caption" autocomplete="off"
      placeholder="what do you want to see?"></label>
    <button>Search</button>
    <label class="tgdt-file">Search by a picture: choose or drop it
      <input type="file" name="picture" accept="image/*"></label>
  </div>
  <div class="tgdt-set">
    <div><label>Shortlist <input type="range" name="shortlist"></label>
      <output aria-hidden="true"></output></div>
    <div><label>Local weight <input type="range" name="local_weight" step="0.25"></label>
      <output aria-hidden="true"></output></div>
  </div>
  <div class="tgdt-line" role="status"></div>
  <div class="tgdt-hits"><div class="tgdt-look" role="status"></div></div>`;
const HIT = `<div></div><button title="Where do the words look?"></button>`;

function render({ model, el }) {
  el.classList.add("tgdt");
  el.innerHTML = FRAME;
  const part = (selector) => el.querySelector(selector);
  const field = (name) => part(`[name=${name}]`);
  const hits = Array.from({ length: model.get("k") }, (_, position) => {
    const hit = document.createElement("div");
    hit.className = "tgdt-hit";
    hit.style.order = 2 * position; // the look comes between two rows
    hit.innerHTML = HIT;
    hit.lastChild.addEventListener("click", () => model.send({ hit: position }));
    return hit;
  });
  part(".tgdt-hits").prepend(...hits);
  for (const taker of el.querySelectorAll("input, button")) {
    taker.dataset.lmSuppressShortcuts = true; // else JupyterLab takes its keys, such as arrows
  }
  field("caption").value = model.get("caption");
  field("shortlist").max = model.get("lengths").length - 1;
  [field("local_weight").min, field("local_weight").max] = model.get("weights");

  const ask = () => model.send({ caption: field("caption").value });
  part(".tgdt-ask button").addEventListener("click", ask);
  field("caption").addEventListener("keydown", ({ key, isComposing }) => {
    if (key === "Enter" && !isComposing) ask(); // a form's own Enter does nothing in JupyterLab
  });
  const settings = {
    shortlist: () => model.get("lengths")[field("shortlist").value],
    local_weight: () => Number(field("local_weight").value),
  };
  for (const [name, value] of Object.entries(settings)) {
    field(name).addEventListener("input", () => {
      model.set(name, value());
      model.save_changes(); // of many moves in a short time only the last one is sent
      draw();
    });
  }

  async function give(files) {
    const [file] = files;
    const said = { files: files.length, name: file?.name ?? "", size: file?.size ?? 0 };
    const fits = files.length === 1 && file.size <= model.get("largest");
    const bytes = fits && (await file.arrayBuffer().catch(() => null)); // null: of a folder
    model.send(said, undefined, bytes ? [bytes] : []);
  }
  field("picture").addEventListener("change", async ({ target }) => {
    if (target.files.length) await give(target.files);
    target.value = ""; // so that the same file may come again
  });
  const isText = ({ target, dataTransfer }) =>
    target === field("caption") && !dataTransfer.types.includes("Files");
  const dragged = (event) => {
    if (isText(event)) return; // a field takes text by itself
    event.preventDefault(); // else the browser leaves the page and opens what was dropped
    event.stopPropagation();
    el.classList.toggle("tgdt-over", event.type === "dragover");
    if (event.type === "drop") give([...event.dataTransfer.files]);
  };
  for (const type of ["dragenter", "dragover", "drop"]) el.addEventListener(type, dragged);
  el.addEventListener("dragleave", () => el.classList.remove("tgdt-over"));

  // what is as before is left alone: a hit moves only when it has moved, and keeps the focus
  function put(node, html) {
    if (node.written !== html) node.innerHTML = node.written = html;
  }
  function draw() {
    field("shortlist").value = model.get("lengths").indexOf(model.get("shortlist"));
    field("local_weight").value = model.get("local_weight");
    for (const name of ["shortlist", "local_weight"]) {
      const told = model.get(name).toLocaleString("en");
      field(name).setAttribute("aria-valuetext", told);
      field(name).closest("div").querySelector("output").textContent = told;
    }
    put(part(".tgdt-line"), model.get("line"));
    put(part(".tgdt-look"), model.get("look"));
    const [tiles, names, chosen] = ["tiles", "names", "chosen"].map((name) => model.get(name));
    hits.forEach((hit, position) => {
      hit.hidden = position >= tiles.length;
      put(hit.firstChild, tiles[position] ?? "");
      hit.lastChild.textContent = names[position] ?? "";
      hit.lastChild.setAttribute("aria-expanded", position === chosen);
    });
    part(".tgdt-hits").style.setProperty("--chosen", chosen);
    part(".tgdt-hits").classList.toggle("tgdt-stale", model.get("stale"));
  }
  const shown = ["line", "tiles", "names", "look", "chosen", "stale", "shortlist", "local_weight"];
  for (const name of shown) model.on(`change:${name}`, draw);
  draw();
  return () => model.off(null, draw);
}

export default { render };
