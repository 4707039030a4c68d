// Moves through the steps. A step with a ``round`` belongs to an entry of the list at the side.

const SECONDS_A_STEP = 1.4;

/** ``gauge``: {share, tick (null: none), label}; none: it is hidden. */
function showGauge(gauge) {
  at("gate").hidden = at("gate-label").hidden = !gauge;
  if (!gauge) return;
  at("gate-bar").style.width = `${100 * gauge.share}%`;
  at("gate-tick").style.left = `${100 * gauge.tick}%`;
  at("gate-tick").hidden = gauge.tick === null;
  at("gate-label").textContent = gauge.label;
  at("gate").setAttribute("aria-label", gauge.label);
}

const player = {
  text: 0,
  step: 0,
  steps: [],
  timer: null,

  open(text) {
    this.text = text;
    this.steps = family.stepsOf(texts[text]);
    at("slider").max = this.steps.length - 1;
    at("texts").value = text;
    at("stopped").textContent = family.ended(texts[text].trace);
    const firsts = this.steps.filter((step, number) => step.round !== this.steps[number - 1]?.round || number === 0);
    at("rounds").replaceChildren(...firsts.map((step) => this.roundItem(step)));
    this.show(0);
  },

  /** A line of the list of rounds; ``step``: the first of the round. */
  roundItem(step) {
    const [title, note] = step.round ? family.item(step) : [family.caption(step)];
    const button = element("button", title);
    if (note) button.append(element("small", note));
    button.addEventListener("click", () => this.pause() || this.show(this.steps.indexOf(step)));
    const item = document.createElement("li");
    item.append(button);
    step.button = button;
    return item;
  },

  show(number) {
    this.step = Math.min(Math.max(number, 0), this.steps.length - 1);
    const step = this.steps[this.step];
    at("draft").replaceChildren(...family.nodes(step));
    at("phase").textContent = family.caption(step);
    showGauge(step.round && family.gauge(step, texts[this.text].trace));
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
