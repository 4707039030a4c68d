// DualMask: the draft, then of each round (dualmask/inference/trace.py) what was deleted, the holes, what was written into
// them; then the result.

const STOPPED = {
  rounds: "the rounds asked for were over",
  nothing_to_do: "nothing was left to do",
  seen_before: "the draft had been there before",
  confident: "the last words written were sure enough",
  settled: "the last round changed hardly anything",
};

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

/** What a part looks like in a phase. */
function nodesOf(part, phase) {
  if (part.kind === "kept") return [document.createTextNode(part.text)];
  if (part.kind === "gone") return phase === "delete" ? [element("del", part.text)] : [];
  if (phase === "open") return part.fills.map(holeElement);
  return phase === "fill" ? part.fills.map(fillElement) : [];
}

const places = (list) => counted(list.length, "place");
const route = (round) => (round.gate > settings.gate_threshold ? "edit" : "generate");

/** What a step shows, in words. */
function caption({ phase, round }) {
  if (phase === "draft") return "Draft";
  if (phase === "result") return "Result";
  const [gone, written] = [places(round.deleted), round.filled.length];
  const words = { delete: `${gone} deleted`, open: `${written} to write`, fill: `${written} written` };
  return `Round ${round.round}: ${words[phase] ?? "nothing to do"}`;
}

const family = {
  stepsOf,
  caption,
  nodes: ({ parts, phase }) => parts.flatMap((part) => nodesOf(part, phase)),

  gauge({ round }, { mode }) {
    const how = mode === "auto" ? `Gate ${percent(round.gate)}` : "Gate forced";
    const tick = mode === "auto" ? settings.gate_threshold : null;
    return { share: round.gate, tick, label: `${how}: ${route(round)}` };
  },

  item: ({ round }) => [
    `Round ${round.round}: ${route(round)}`,
    `${places(round.deleted)} deleted, ${round.filled.length} written`,
  ],

  ended: ({ stopped }) => `Stopped: ${STOPPED[stopped]}.`,
};
