// A page shows texts as steps. A family's script says in ``family`` which there are and draws them; player.js moves through
// them. Texts go into the page as text nodes only, never as markup.

const { texts, ...settings } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

function element(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

const holeElement = () => element("span", "\u00a0", { className: "hole" });

function fillElement({ text, confidence }) {
  const node = element("ins", text, { title: `${percent(confidence)} sure`, tabIndex: 0 });
  node.style.setProperty("--sure", confidence);
  return node;
}
