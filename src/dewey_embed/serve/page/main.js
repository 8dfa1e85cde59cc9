// The page: open a document, ask it, walk through its answers.

import { Refused, getJson, json, onBusy, onLocked, pause, request, retryAfter, states } from "./api.js";
import { Minimap } from "./minimap.js";
import { DocumentText } from "./text.js";

const at = (id) => document.getElementById(id);
const view = (name) => (document.body.dataset.view = name);
const SLOW_MS = 150;
const TRIES = 5;
const QUOTED = 320;
const ASKED = "dewey-asked";

const state = {
  id: null,
  read: null,
  answer: null,
  current: -1,
  granularities: [],
  opening: null,
  asking: null,
};

const barHeight = () => document.querySelector(".bar").getBoundingClientRect().bottom;
const text = new DocumentText(at("text"));
const map = new Minimap(at("minimap"), at("tip"), text, { top: barHeight });

function make(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const number = (value) => value.toLocaleString("en");
const plural = (value, word) => `${number(value)} ${word}${value === 1 ? "" : "s"}`;

// ---- errors

function fail(error) {
  if (error?.name === "AbortError") return;
  if (!(error instanceof Refused)) console.error(error);
  const words = error instanceof Refused ? error.message : "something went wrong on this page";
  // A sentence begins with a capital, a file's name does not change.
  say(words.replace(/^[a-z](?=[a-z]* )/, (letter) => letter.toUpperCase()));
}

function say(words) {
  at("error").hidden = !words;
  at("error").firstElementChild.textContent = words;
}

at("error").querySelector("button").addEventListener("click", () => say(""));

onBusy((seconds) => say(seconds ? `The server is busy; trying again in ${Math.ceil(seconds)} s` : ""));

onLocked(async () => {
  const dialog = at("locked");
  at("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue ? at("key").value : null;
});

// ---- the first screen

async function start() {
  const known = await getJson("/page/start");
  state.granularities = known.granularities;
  at("granularity").max = known.granularities.length - 1;
  at("file").accept = known.extensions.join(",");
  for (const { name, title, about } of known.samples) {
    const button = make("button", "document", make("b", "", title), make("span", "faint", about));
    button.addEventListener("click", () => open("/page/documents", () => json({ sample: name }), title));
    at("samples").querySelector("ul").append(make("li", "", button));
  }
  at("samples").hidden = !known.samples.length;
  at("indexes").hidden = !known.indexes.length;
  for (const { name, num_documents: num } of known.indexes) {
    const option = make("option", "", num === null ? name : `${name}, ${plural(num, "document")}`);
    option.value = name;
    at("index").append(option);
  }
  at("index").hidden = known.indexes.length < 2;
  if (known.indexes.length) await list();
}

let listing = 0;
async function list() {
  const [index, run] = [at("index").value, ++listing];
  const words = new URLSearchParams({ words: at("words").value });
  const found = await getJson(`/page/indexes/${encodeURIComponent(index)}?${words}`);
  if (run !== listing) return;
  const items = found.documents.map(({ id, title }) => {
    const button = make("button", "document", make("b", "", title));
    button.title = id;
    const body = () => json({ index, document_id: id });
    button.addEventListener("click", () => open("/page/documents", body, title));
    return make("li", "", button);
  });
  at("indexes").querySelector("ul").replaceChildren(...items);
  at("more").hidden = !found.more;
}

at("index").addEventListener("change", () => list().catch(fail));
at("words").addEventListener("input", () => list().catch(fail));

// ---- opening a document

function openFile(file) {
  const body = () => {
    const form = new FormData();
    form.append("file", file, file.name);
    return { method: "POST", body: form };
  };
  open("/page/files", body, file.name);
}

function openText(words) {
  const title = words.trim().split("\n")[0].slice(0, 80);
  open("/page/documents", () => json({ text: words, title }), title || "Pasted text");
}

async function open(path, body, title) {
  state.opening?.abort();
  const control = (state.opening = new AbortController());
  say("");
  at("step").textContent = "Reading";
  at("opened").textContent = title;
  at("count").textContent = "";
  at("progress").removeAttribute("value");
  view("opening");
  document.title = `${title} – Dewey`;
  try {
    const id = await passed(path, body, control.signal);
    close();
    await show(id);
  } catch (error) {
    if (state.opening === control) toStart();
    fail(error);
  } finally {
    if (state.opening === control) state.opening = null;
  }
}

// The id of a document, once the pass over it is done.
async function passed(path, body, signal) {
  for (let attempt = 1; ; attempt++) {
    let last = {};
    for await (last of states(path, { ...body(), signal })) {
      if (last.state === "encoding") encoding(last);
    }
    if (last.state === "ready") return last.id;
    if (last.status !== 429 || attempt === TRIES) {
      throw new Refused(last.error ?? "the server broke off; open the document again", last.status);
    }
    await pause(retryAfter(last.retry_after), signal);
  }
}

function encoding({ done, total, title }) {
  at("step").textContent = done < total ? "One pass over" : "Arranging";
  at("opened").textContent = title;
  at("progress").max = total;
  if (done) at("progress").value = done;
  at("count").textContent = `${number(done)} of ${plural(total, "token")}`;
}

function close() {
  if (state.id) request(`/page/documents/${state.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  state.id = null;
}

async function show(id) {
  const read = await getJson(`/page/documents/${encodeURIComponent(id)}`);
  Object.assign(state, { id, read, answer: null, current: -1 });
  history.replaceState(null, "", `#${id}`);
  document.title = `${read.title} – Dewey`;
  at("title").textContent = read.title;
  const [first] = read.headings;
  // Where the text begins with its title, once is enough.
  at("title").hidden = first?.[0] <= 1 && text.words(read, first) === read.title;
  const unread = Object.entries(read.unread).map(([kind, num]) => `${number(num)} ${kind}`);
  at("facts").textContent = [
    plural(read.num_tokens, "token"),
    plural(read.sentences.length / 2, "sentence"),
    read.pages.length ? plural(read.pages.length, "page") : "",
    unread.length ? `not read: ${unread.join(", ")}` : "",
  ].filter(Boolean).join(" · ");
  at("query").value = "";
  list_answers();
  tries(read.queries);
  view("reading");
  scrollTo({ top: 0, behavior: "instant" });
  const drawn = text.draw(read);
  map.show(read);
  at("query").focus({ preventScroll: true });
  if (await drawn) map.show(read);
}

function tries(queries) {
  const buttons = queries.map((query) => {
    const button = make("button", "try", query);
    button.addEventListener("click", () => {
      at("query").value = query;
      ask();
    });
    return button;
  });
  at("tries").replaceChildren(...buttons);
}

function toStart() {
  state.opening?.abort();
  state.opening = null;
  if (state.read && state.id) {
    view("reading");
    document.title = `${state.read.title} – Dewey`;
    return;
  }
  view("start");
  document.title = "Dewey";
}

at("cancel").addEventListener("click", toStart);
at("another").addEventListener("click", () => {
  close();
  Object.assign(state, { read: null, answer: null });
  history.replaceState(null, "", location.pathname);
  toStart();
  at("choose").focus();
});
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => {
  if (at("file").files.length) openFile(at("file").files[0]);
  at("file").value = "";
});
at("paste").addEventListener("click", () => {
  at("pasted").value = "";
  at("pasting").returnValue = "";
  at("pasting").showModal();
});
at("pasting").addEventListener("close", () => {
  if (at("pasting").returnValue && at("pasted").value.trim()) openText(at("pasted").value);
});

const typing = (target) => target.closest?.("input:not([type=range]), textarea, select") != null;

addEventListener("paste", (event) => {
  if (typing(event.target) || document.querySelector("dialog[open]")) return;
  const { files } = event.clipboardData;
  const words = event.clipboardData.getData("text/plain");
  if (files.length) openFile(files[0]);
  else if (words.trim()) openText(words);
});

let dragged = 0;
const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  dragged++;
  at("veil").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!hasFiles(event)) return;
  dragged = Math.max(0, dragged - 1);
  at("veil").hidden = dragged === 0;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragged = 0;
  at("veil").hidden = true;
  if (event.dataTransfer.files.length) openFile(event.dataTransfer.files[0]);
});

// ---- asking

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});

async function ask() {
  const query = at("query").value.trim();
  if (!query || !state.id) return clear();
  state.asking?.abort();
  const control = (state.asking = new AbortController());
  const slow = setTimeout(() => (at("verdict").textContent = "Asking…"), SLOW_MS);
  const began = performance.now();
  try {
    const path = `/page/documents/${encodeURIComponent(state.id)}/ask`;
    const answer = await getJson(path, json({ query }, { signal: control.signal }));
    if (state.asking !== control) return;
    say("");
    state.answer = answer;
    state.current = -1;
    sessionStorage.setItem(ASKED, JSON.stringify({ id: state.id, query }));
    list_answers(performance.now() - began);
    warm();
    go(0, { focus: false });
    at("query").blur();
  } catch (error) {
    at("verdict").textContent = "";
    fail(error);
  } finally {
    clearTimeout(slow);
  }
}

function clear() {
  state.asking?.abort();
  state.answer = null;
  state.current = -1;
  sessionStorage.removeItem(ASKED);
  at("query").value = "";
  list_answers();
  text.show(null);
  text.mark(null);
  map.heat(null);
  map.answers([], -1);
}

// The relevance at the slider's granularity; every granularity came with the answer.
function warm() {
  const name = state.granularities[at("granularity").value];
  at("size").textContent = name;
  at("granularity").setAttribute("aria-valuetext", name);
  if (!state.answer) return;
  const relevance = state.answer.relevance[name];
  text.show(relevance);
  map.heat(relevance);
}

at("granularity").addEventListener("input", warm);

function verdict(milliseconds) {
  const { answer } = state;
  at("verdict").classList.toggle("doubt", Boolean(answer && !answer.answered));
  at("reading").classList.toggle("doubt", Boolean(answer && !answer.answered));
  at("tries").hidden = Boolean(answer);
  if (!answer) {
    const hint = state.read?.queries.length ? ["Ask anything, or try:"] : ["Ask anything. ", make("span", "hint", "Press / to begin.")];
    at("verdict").replaceChildren(...hint);
    return;
  }
  if (!answer.answered) {
    at("verdict").textContent = "Probably not in this document; nearest:";
    return;
  }
  const parts = [plural(answer.passages.length, "passage")];
  if (answer.probability !== null) parts.push(`${Math.round(100 * answer.probability)}% likely answered here`);
  if (milliseconds !== undefined) parts.push(`${Math.round(milliseconds)} ms`);
  at("verdict").textContent = parts.join(" · ");
}

function list_answers(milliseconds) {
  verdict(milliseconds);
  const passages = state.answer?.passages ?? [];
  at("answers").replaceChildren(...passages.map(item));
  fit();
  map.answers(passages, state.current);
}

function item(passage, rank) {
  const [start, end] = passage.highlight;
  const flat = (from, to) => state.read.text.slice(from, to).replace(/\s+/g, " ");
  const mark = make("mark", "", flat(start, Math.min(end, start + QUOTED)));
  const before = start > passage.start ? "… " : "";
  const rest = flat(end, Math.min(passage.end, end + QUOTED)).trimEnd();
  const quote = make("span", "quote", before, mark, rest ? ` ${rest.trimStart()}` : "");
  const place = make("span", "place");
  place.words = passage.places[0] ? passage.places : [`${Math.round((100 * start) / state.read.text.length)}%`];
  const meter = make("span", "meter");
  meter.style.setProperty("--share", Math.min(1, passage.score / Math.max(0.01, state.answer.passages[0].score)));
  const button = make("button", "result", make("span", "rank", String(rank + 1)), place, quote, meter);
  button.type = "button";
  button.addEventListener("click", () => go(rank));
  return make("li", "", button);
}

// A place that is longer than its lines loses its outer headings: the inner ones tell answers apart.
function fit() {
  for (const place of at("answers").querySelectorAll(".place")) {
    for (const words of place.words) {
      place.textContent = words;
      if (place.scrollHeight <= place.clientHeight + 1) break;
    }
  }
}

addEventListener("resize", fit);

function go(rank, { focus = true } = {}) {
  const passages = state.answer?.passages ?? [];
  if (!passages.length) return;
  state.current = Math.min(passages.length - 1, Math.max(0, rank));
  const buttons = [...at("answers").querySelectorAll("button")];
  buttons.forEach((button, each) => {
    if (each === state.current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  const chosen = buttons[state.current];
  if (focus) chosen.focus({ preventScroll: true });
  const list = at("answers");
  const [outer, inner] = [list.getBoundingClientRect(), chosen.getBoundingClientRect()];
  list.scrollBy({
    top: inner.top < outer.top || inner.bottom > outer.bottom ? inner.top - outer.top - 8 : 0,
    left: inner.left < outer.left || inner.right > outer.right ? inner.left - outer.left - 8 : 0,
    behavior: "instant",
  });
  const answer = text.mark(passages[state.current]);
  map.answers(passages, state.current);
  const room = innerHeight - barHeight();
  text.reveal(answer, barHeight() + 0.28 * room).catch(fail);
}

// ---- keys

const STEPS = { n: 1, p: -1 };
const ARROWS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") return escape();
  if (event.target === at("query") && event.key === "ArrowDown" && state.answer) {
    event.preventDefault();
    return go(Math.max(0, state.current));
  }
  if (typing(event.target)) return;
  if (event.key === "/") {
    event.preventDefault();
    at("query").focus();
    at("query").select();
  }
  const within = at("answers").contains(event.target);
  const step = STEPS[event.key] ?? (within ? ARROWS[event.key] : undefined);
  if (step && state.answer) {
    event.preventDefault();
    go(state.current + step);
  }
});

function escape() {
  if (document.body.dataset.view === "opening") return toStart();
  say("");
  if (document.activeElement === at("query") && state.answer) return at("query").blur();
  clear();
}

// ---- begin

// What this document was asked before the page was loaded again.
async function askAgain(id) {
  const asked = JSON.parse(sessionStorage.getItem(ASKED) ?? "{}");
  if (asked.id !== id) return;
  at("query").value = asked.query;
  await ask();
}

addEventListener("unhandledrejection", (event) => fail(event.reason));

try {
  await start();
  const id = decodeURIComponent(location.hash.slice(1));
  if (id) {
    await show(id).then(() => askAgain(id)).catch((error) => {
      history.replaceState(null, "", location.pathname);
      if (error.status !== 404) throw error;
    });
  }
} catch (error) {
  fail(error);
}
document.body.dataset.ready = "";
