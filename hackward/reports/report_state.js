// What the reader has chosen: filters, order, the opened rollout. The address of the page holds all of it.

const SORTS = {
  reward: "reward",
  score: "monitor's score",
  cosine: "cosine",
  length: "length",
  step: "step",
  advantage: "advantage",
};
const CHOICES = ["arm", "seed", "label", "by"]; // of which several can be chosen

function emptyState() {
  return {
    arm: new Set(), seed: new Set(), label: new Set(), by: new Set(),
    from: "", to: "", problem: "", text: "", sort: "", open: null,
  };
}

/** The state that an address holds; what it does not know is left out. */
function stateOf(hash) {
  const state = emptyState();
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  for (const name of CHOICES) state[name] = new Set(found.getAll(name));
  for (const name of ["from", "to"]) {
    const words = found.get(name) ?? "";
    state[name] = /^\d{1,9}$/.test(words) ? words : "";
  }
  for (const name of ["problem", "text"]) state[name] = found.get(name) ?? "";
  const sort = found.get("sort") ?? "";
  state.sort = Object.hasOwn(SORTS, sort.replace(/^-/, "")) ? sort : "";
  state.open = found.get("open");
  return state;
}

/** The address of a state. */
function hashOf(state) {
  const found = new URLSearchParams();
  for (const name of CHOICES) for (const value of state[name]) found.append(name, value);
  for (const name of ["from", "to", "problem", "text", "sort", "open"]) {
    if (state[name]) found.set(name, state[name]);
  }
  return `#${found}`;
}

/** Places of the names that were chosen, as an array of 0 and 1; null where none was: then all are taken. */
function taken(names, chosen) {
  return chosen.size ? Uint8Array.from(names, (name) => (chosen.has(String(name)) ? 1 : 0)) : null;
}

/** The rows that a state's filters leave, in its order. `holds`: which rows hold its text, or null. */
function rowsOf(store, state, holds) {
  const { run, step, pool, problem } = store.columns;
  const runs = store.facts.runs;
  const arms = taken(runs.map((one) => one.arm), state.arm);
  const seeds = taken(runs.map((one) => one.seed), state.seed);
  const labels = taken(LABELS, state.label);
  const pools = taken(store.facts.pools, state.by);
  const wanted = state.problem.toLowerCase();
  const problems = wanted
    ? Uint8Array.from(store.facts.problems, (name) => (name.toLowerCase().includes(wanted) ? 1 : 0))
    : null;
  const first = state.from === "" ? 0 : Number(state.from);
  const last = state.to === "" ? Infinity : Number(state.to);
  const found = new Int32Array(store.count);
  let count = 0;
  for (let row = 0; row < store.count; row++) {
    if (arms && !arms[run[row]]) continue;
    if (seeds && !seeds[run[row]]) continue;
    if (labels && !labels[store.label[row]]) continue;
    if (pools && !pools[pool[row]]) continue;
    if (problems && !problems[problem[row]]) continue;
    if (step[row] < first || step[row] > last) continue;
    if (holds && !holds[row]) continue;
    found[count++] = row;
  }
  return sorted(store, found.subarray(0, count), state.sort);
}

/** The rows by a column, those without a figure last; "-reward" has the highest first. */
function sorted(store, rows, sort) {
  const column = store.columns[sort.replace(/^-/, "")];
  if (!sort || !column) return rows;
  const sign = sort.startsWith("-") ? -1 : 1;
  return rows.sort((one, other) => {
    const [a, b] = [column[one], column[other]];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b) || one - other;
    return sign * (a - b) || one - other;
  });
}
