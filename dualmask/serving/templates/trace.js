"use strict";
// Shows a trace (see dualmask/inference/trace.py) as steps: the draft, then of each round what was deleted, the holes,
// what was written into them; then the result. Texts go into the page as text nodes only, never as markup.

const { gate_threshold: threshold, texts } = JSON.parse(document.getElementById("data").textContent);
const SECONDS_A_STEP = 1.4;
const STOPPED = {
  rounds: "the rounds asked for were over",
  nothing_to_do: "nothing was left to do",
  seen_before: "the draft had been there before",
  confident: "the last words written were sure enough",
  settled: "the last round changed hardly anything",
};
const at = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

/** The parts of a round in reading order: {kind: "kept" | "gone", text} and {kind: "hole", fills}. */
function partsOf(draft, round) {
  const fills = round.filled.values();
  const events = [
    ...round.inserted.map(([place, count]) => ({ place, order: 0, end: place, count })),
    ...round.deleted.map(([start, end]) => ({ place: start, order: 1, end })),
  ].sort((a, b) => a.place - b.place || a.order - b.order);
  const letters = Array.from(draft); // the trace counts code points
  const parts = [];
  let done = 0;
  for (const { place, end, count } of events) {
    if (place > done) parts.push({ kind: "kept", text: letters.slice(done, place).join("") });
    if (count === undefined) parts.push({ kind: "gone", text: letters.slice(place, end).join("") });
    else parts.push({ kind: "hole", fills: Array.from({ length: count }, () => fills.next().value) });
    done = end;
  }
  if (done < letters.length) parts.push({ kind: "kept", text: letters.slice(done).join("") });
  return parts;
}

/** The draft that the parts of a round leave. */
function resultOf(parts) {
  const fill = ({ fills }) => fills.map(({ text }) => text).join("");
  const text = { kept: (part) => part.text, gone: () => "", hole: fill };
  return parts.map((part) => text[part.kind](part)).join("");
}

/** All steps of a text: {phase, round (its trace; none for the first and the last step), parts}. */
function stepsOf({ draft, trace }) {
  const plain = (text) => (text ? [{ kind: "kept", text }] : []);
  const steps = [{ phase: "draft", parts: plain(draft) }];
  for (const round of trace.trace) {
    const parts = partsOf(draft, round);
    const phases = [];
    if (round.deleted.length) phases.push("delete");
    if (round.inserted.length) phases.push("open", "fill");
    if (!phases.length) phases.push("nothing");
    steps.push(...phases.map((phase) => ({ phase, round, parts })));
    draft = resultOf(parts);
  }
  return [...steps, { phase: "result", parts: plain(draft) }];
}

function element(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

function fillElement({ text, confidence }) {
  const node = element("ins", text, { title: `${percent(confidence)} sure`, tabIndex: 0 });
  node.style.setProperty("--sure", confidence);
  return node;
}

/** What a part looks like in a phase. */
function nodesOf(part, phase) {
  if (part.kind === "kept") return [document.createTextNode(part.text)];
  if (part.kind === "gone") return phase === "delete" ? [element("del", part.text)] : [];
  if (phase === "open") return part.fills.map(() => element("span", "\u00a0", { className: "hole" }));
  return phase === "fill" ? part.fills.map(fillElement) : [];
}

const places = (list) => `${list.length} ${list.length === 1 ? "place" : "places"}`;
const route = (round) => (round.gate > threshold ? "edit" : "generate");

/** What a step shows, in words; ``round``: the round's trace. */
function caption(phase, round) {
  if (phase === "draft") return "Draft";
  if (phase === "result") return "Result";
  const [gone, written] = [places(round.deleted), round.filled.length];
  const words = { delete: `${gone} deleted`, open: `${written} to write`, fill: `${written} written` };
  return `Round ${round.round}: ${words[phase] ?? "nothing to do"}`;
}

function showGate(round, mode) {
  at("gate").hidden = at("gate-label").hidden = !round;
  if (!round) return;
  at("gate-bar").style.width = `${100 * round.gate}%`;
  at("gate-tick").style.left = `${100 * threshold}%`;
  at("gate-tick").hidden = mode !== "auto";
  const how = mode === "auto" ? `Gate ${percent(round.gate)}` : "Gate forced";
  at("gate-label").textContent = `${how}: ${route(round)}`;
  at("gate").setAttribute("aria-label", at("gate-label").textContent);
}

const player = {
  text: 0,
  step: 0,
  steps: [],
  timer: null,

  open(text) {
    this.text = text;
    this.steps = stepsOf(texts[text]);
    at("slider").max = this.steps.length - 1;
    at("texts").value = text;
    at("stopped").textContent = `Stopped: ${STOPPED[texts[text].trace.stopped]}.`;
    const firsts = this.steps.filter((step, number) => step.round !== this.steps[number - 1]?.round || number === 0);
    at("rounds").replaceChildren(...firsts.map((step) => this.roundItem(step)));
    this.show(0);
  },

  /** A line of the list of rounds; ``step``: the first of the round. */
  roundItem(step) {
    const { phase, round } = step;
    const button = element("button", round ? `Round ${round.round}: ${route(round)}` : caption(phase));
    if (round) button.append(element("small", `${places(round.deleted)} deleted, ${round.filled.length} written`));
    button.addEventListener("click", () => this.pause() || this.show(this.steps.indexOf(step)));
    const item = document.createElement("li");
    item.append(button);
    step.button = button;
    return item;
  },

  show(number) {
    this.step = Math.min(Math.max(number, 0), this.steps.length - 1);
    const { phase, round, parts } = this.steps[this.step];
    at("draft").replaceChildren(...parts.flatMap((part) => nodesOf(part, phase)));
    at("phase").textContent = caption(phase, round);
    showGate(round, texts[this.text].trace.mode);
    at("slider").value = this.step;
    at("rounds").querySelector("[aria-current]")?.removeAttribute("aria-current");
    this.steps.findLast((step, at) => at <= this.step && step.button).button.setAttribute("aria-current", "step");
    history.replaceState(null, "", `#${this.text + 1}.${this.step}`);
  },

  move(by) {
    this.pause();
    this.show(this.step + by);
  },

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    at("play").textContent = "▶ Play";
  },

  toggle() {
    if (this.timer) return this.pause();
    if (this.step === this.steps.length - 1) this.show(0);
    at("play").textContent = "❚❚ Pause";
    this.timer = setInterval(() => {
      this.show(this.step + 1);
      if (this.step === this.steps.length - 1) this.pause();
    }, 1000 * SECONDS_A_STEP);
  },
};

function onKey(event) {
  const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  const busy = event.target.matches("select, input");
  if (event.ctrlKey || event.metaKey || event.altKey || busy) return;
  if (event.key in moves) player.move(moves[event.key]);
  else if (event.key === " " && !event.target.matches("button")) player.toggle();
  else return;
  event.preventDefault();
}

at("texts").replaceChildren(
  ...texts.map(({ draft }, number) => element("option", `${number + 1}: ${draft.slice(0, 60)}`, { value: number })),
);
at("chooser").hidden = texts.length < 2;
at("texts").addEventListener("change", (event) => player.pause() || player.open(Number(event.target.value)));
at("first").addEventListener("click", () => player.move(-Infinity));
at("back").addEventListener("click", () => player.move(-1));
at("play").addEventListener("click", () => player.toggle());
at("next").addEventListener("click", () => player.move(1));
at("last").addEventListener("click", () => player.move(Infinity));
at("slider").addEventListener("input", (event) => player.pause() || player.show(Number(event.target.value)));
document.addEventListener("keydown", onKey);
const [, text = "1", step = "0"] = location.hash.match(/^#(\d+)\.(\d+)$/) ?? [];
document.querySelector("main").hidden = false;
player.open(Math.min(Math.max(text - 1, 0), texts.length - 1));
player.show(Number(step));
document.documentElement.dataset.ready = "true";
