// SpanFusionLM: the prompt, then of each span (dualmask/inference/span_text.py) its open places, and step by step what was
// written into them; then the result.

const GREATEST = Math.max(...texts.flatMap(({ trace }) => trace.trace.flatMap(({ entropy }) => entropy)), 1e-9);

/** All steps of a text: {phase, round (the span's trace; none for the first and the last step), step, before}. */
function stepsOf({ draft, trace }) {
  const letters = Array.from(trace.output); // the trace counts code points
  const steps = [{ phase: "prompt", before: draft }];
  for (const round of trace.trace) {
    const before = letters.slice(0, round.filled[0]?.position).join("");
    for (let step = 0; step <= round.steps; step += 1) steps.push({ phase: step ? "fill" : "open", round, step, before });
  }
  return [...steps, { phase: "result", before: trace.output }];
}

/** A place of the span after so many steps; what was just written stands out. */
function placeElement(fill, step) {
  if (fill.step > step) return holeElement();
  const node = fillElement(fill);
  node.title += `, step ${fill.step}`;
  node.classList.toggle("fresh", fill.step === step);
  return node;
}

/** What a step shows, in words. */
function caption({ phase, round, step }) {
  if (phase === "prompt") return "Prompt";
  if (phase === "result") return "Result";
  if (!round.filled.length) return `Span ${round.span}: the text ends`;
  if (phase === "open") return `Span ${round.span}: ${round.filled.length} to write`;
  const written = round.filled.filter((fill) => fill.step === step).length;
  return `Span ${round.span}, step ${step}: ${written} written`;
}

const family = {
  stepsOf,
  caption,

  nodes: ({ before, round, step }) => [
    document.createTextNode(before),
    ...(round?.filled ?? []).map((fill) => placeElement(fill, step)),
  ],

  gauge({ round, step }) {
    const nats = round.entropy[Math.max(step - 1, 0)];
    return { share: nats / GREATEST, tick: null, label: `Entropy ${nats.toFixed(2)} nats` };
  },

  item: ({ round }) => [`Span ${round.span}: ${counted(round.steps, "step")}`, `${round.filled.length} written`],

  ended: (trace) => `${counted(trace.rounds_used, "step")} in ${counted(trace.trace.length, "span")}.`,
};
