// Asks every model of this server the same question about the same images, and shows each answer as it comes.
"use strict";

const at = (id) => document.getElementById(id);
const images = []; // data URLs
const cards = new Map(); // by the model's name
let asking = null; // an AbortController while answers come

async function begin() {
  at("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  at("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); at("ask").requestSubmit(); }
  });
  at("stop").addEventListener("click", () => asking?.abort());
  at("key").addEventListener("change", list);
  at("files").addEventListener("change", () => { take(at("files").files); at("files").value = ""; });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, drag);
  await list();
}

function drag(event) {
  event.preventDefault();
  at("drop").classList.toggle("over", event.type === "dragover");
  if (event.type === "drop") take(event.dataTransfer.files);
}

// The images

async function take(files) {
  for (const file of files) {
    if (file.type.startsWith("image/")) images.push(await dataUrl(file));
    else tell(`${file.name} is not an image`);
  }
  showImages();
}

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}

function showImages() {
  at("images").replaceChildren(...images.map((url, index) => {
    const shown = document.createElement("span"), image = document.createElement("img"), remove = document.createElement("button");
    shown.className = "image";
    image.src = url;
    image.alt = `image ${index + 1}`;
    remove.type = "button";
    remove.textContent = "\u00d7";
    remove.ariaLabel = `Remove image ${index + 1}`;
    remove.addEventListener("click", (event) => { event.preventDefault(); images.splice(index, 1); showImages(); });
    shown.append(image, remove);
    return shown;
  }));
}

// The models

function headers() {
  const key = at("key").value;
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function list() {
  try {
    const response = await fetch("/v1/models", { headers: headers() });
    const found = await response.json();
    if (!response.ok) throw new Error(found.error.message);
    cards.clear();
    at("models").replaceChildren(...found.data.map(card));
    at("turns").hidden = found.data.length < 2;
    at("state").textContent = found.data.length === 1 ? "1 model" : `${found.data.length} models`;
    tell("");
  } catch (error) {
    at("state").textContent = "no models";
    tell(error.message);
  }
}

function card(model) {
  const made = at("model").content.firstElementChild.cloneNode(true);
  made.querySelector(".name").textContent = model.id;
  made.querySelector(".badge").textContent = model.sparsity;
  cards.set(model.id, made);
  return made;
}

// The answers

async function ask() {
  if (asking) return;
  tell(images.length ? "" : "Choose an image first.");
  if (!images.length) return;
  asking = new AbortController();
  working(true);
  for (const made of cards.values()) clear(made);
  try {
    for (const [name, made] of cards) if (!asking.signal.aborted) await answer(name, made);
  } finally {
    asking = null;
    working(false);
  }
}

async function answer(name, made) {
  const place = made.querySelector(".answer");
  place.classList.add("waiting");
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(question(name)), signal: asking.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const piece of events(response.body)) show(made, place, piece);
  } catch (error) {
    if (error.name !== "AbortError") { place.classList.add("wrong"); place.textContent += error.message; }
  } finally {
    place.classList.remove("waiting");
  }
}

function question(model) {
  const length = at("length").valueAsNumber, temperature = at("temperature").valueAsNumber;
  const shown = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return {
    model, stream: true, stream_options: { include_usage: true }, temperature: temperature || 0,
    messages: [{ role: "user", content: [...shown, { type: "text", text: at("question").value }] }],
    ...(length >= 1 && { max_tokens: length }),
  };
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (let step = await reader.read(); !step.done; step = await reader.read()) {
    const lines = (waiting + step.value).split("\n");
    waiting = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
  }
}

function show(made, place, piece) {
  if (piece.error) throw new Error(piece.error.message);
  place.textContent += piece.choices[0]?.delta.content ?? "";
  if (!piece.timings) return;
  const { first_token: first, total, tokens_per_second: speed } = piece.timings;
  put(made, "first", seconds(first));
  put(made, "total", seconds(total));
  put(made, "speed", speed === null ? "\u2013" : speed.toFixed(speed < 10 ? 1 : 0));
  put(made, "tokens", piece.usage.completion_tokens);
}

function seconds(time) {
  return time < 1 ? `${Math.round(1000 * time)} ms` : `${time.toFixed(1)} s`;
}

function put(made, name, value) {
  made.querySelector(`.${name}`).textContent = value;
}

function clear(made) {
  const place = made.querySelector(".answer");
  place.textContent = "";
  place.classList.remove("wrong");
  for (const name of ["first", "speed", "tokens", "total"]) put(made, name, "\u2013");
}

function working(now) {
  at("send").disabled = now;
  at("stop").hidden = !now;
}

function tell(problem) {
  at("problem").textContent = problem;
  at("problem").hidden = !problem;
}

begin();
