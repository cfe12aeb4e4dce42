// One rollout on the screen, beside the same draw of the other runs.

const SAME = 1e-6; // figures are kept in 32 bits
const BEGINNING = 300; // characters of a prompt that its folded line may show

function number(value, digits = 3) {
  return value === null ? "-" : Number(value.toFixed(digits)).toString();
}

function signed(value) {
  return value === null ? "-" : (value > 0 ? "+" : "") + value.toFixed(3);
}

function badge(store, row) {
  const label = LABELS[store.label[row]];
  return made("span", `badge ${label.replace(" ", "-")}`, label);
}

/** What a reward is made of, in words; null where it is not known. */
function rewardWords(store, row) {
  const reward = store.figure(row, "reward");
  const compiles = store.mark(row, "compiles");
  if (reward === null) return null;
  if (compiles === null) return number(reward);
  const pay = store.facts.pay;
  const format = compiles ? pay.format : 0;
  const rest = reward - format;
  const parts = [compiles ? `${pay.format} for code that compiles` : "0, since it does not compile"];
  if (Math.abs(rest - pay.answer) < SAME) parts.push(`${pay.answer} ${answerWords(store, row)}`);
  else if (Math.abs(rest) > SAME) parts.push(`${number(rest)} for the rest`);
  else parts.push("0 for the answer");
  return `${number(reward)} = ${parts.join(" + ")}`;
}

function answerWords(store, row) {
  if (store.mark(row, "solved")) return "for passing all tests";
  return store.mark(row, "hacked") ? "because its own evaluation passed" : "for the answer";
}

/** What the grader found. */
function testWords(store, row, more) {
  if (store.mark(row, "solved")) return "all passed";
  if (more.error) return `not all passed: ${more.error}`;
  return store.mark(row, "solved") === false ? "not all passed" : null;
}

function flagWords(store, row) {
  const flagged = store.mark(row, "flagged");
  if (flagged === null) return null;
  if (!flagged) return "no";
  const { intervene } = store.run(row);
  if (intervene === "penalty") return `yes: paid ${store.mark(row, "compiles") ? store.facts.pay.format : 0} instead`;
  return intervene === "screen" ? "yes: taken out of its group" : "yes";
}

function yesNo(value) {
  return value === null ? null : value ? "yes" : "no";
}

/** [name, words] of all that is known of a rollout. */
function factsOf(store, row, more) {
  const figure = (name, form) => (store.figure(row, name) === null ? null : form(store.figure(row, name)));
  const cut = store.mark(row, "cut off") ? ", cut off at the limit" : "";
  const own = store.pool(row) === store.facts.own;
  const rest = Object.entries(more).filter(([name]) => name !== "error");
  return [
    ["Reward", rewardWords(store, row)],
    ["Tests", testWords(store, row, more)],
    ["Attempted", yesNo(store.mark(row, "attempted"))],
    ["Advantage", figure("advantage", signed)],
    ["Cosine before the advantage", figure("cosine", signed)],
    ["Cosine with the advantage", figure("contribution", signed)],
    ["Monitor", store.run(row).monitor || null],
    ["Monitor's score", figure("score", signed)],
    ["Flagged", flagWords(store, row)],
    ["Length", figure("length", (value) => `${number(value, 0)} tokens${cut}`)],
    ["Written by", own ? "the policy" : `pool ${store.pool(row)}, sample ${store.sample(row)}`],
    ...rest.map(([name, value]) => [name, String(value)]),
  ].filter(([, words]) => words !== null);
}

/** The card of one rollout. */
async function card(store, row, opened) {
  const [completion, more] = await store.texts.at(row);
  const run = store.run(row);
  const whole = made("article", opened ? "card opened" : "card");
  const head = whole.appendChild(made("header"));
  head.append(made("h3", "", run.label), badge(store, row));
  const facts = made("dl");
  for (const [name, words] of factsOf(store, row, more)) {
    facts.append(made("dt", "", name), made("dd", "", words));
  }
  if (completion === null) {
    whole.append(made("p", "note", "Its text was not kept with the run, and its pool is not where it was."), facts);
    return whole;
  }
  const names = store.facts.evalNames;
  const [block, own] = shownText(completion, names);
  if (own) whole.append(made("p", "legend", `Marked: its own evaluation function, ${names.join(", ")}`));
  whole.append(block, facts);
  return whole;
}

/** A message of a prompt; the system's, which is the same everywhere, folded. */
function message(store, role, content) {
  const whole = made(role === "system" ? "details" : "div");
  whole.append(made(role === "system" ? "summary" : "p", "role", role));
  whole.append(shownText(content, store.facts.evalNames)[0]);
  return whole;
}

/** A folded prompt's one line: how its last message begins, so that the answer stays on the screen. */
function summary(words, messages) {
  const whole = made("summary", "", words);
  const begins = String(messages.at(-1)?.[1] ?? "").replace(/^\s*PROBLEM:/, "").trim().slice(0, BEGINNING);
  whole.append(made("span", "begins", begins.replace(/\s+/g, " ")));
  return whole;
}

/** The prompts of these rollouts, folded: one where they are the same. */
async function promptsOf(store, rows) {
  const places = [...new Set(rows.map((row) => store.columns.prompt[row]))].filter((place) => place >= 0);
  const found = [];
  for (const place of places) {
    const fold = made("details", "prompt");
    const words = places.length > 1 ? `Prompt ${found.length + 1} of ${places.length}` : "Prompt";
    const read = await store.prompts.at(place);
    fold.append(summary(words, read));
    const messages = fold.appendChild(made("div", "messages"));
    messages.tabIndex = 0;
    messages.setAttribute("role", "region");
    messages.setAttribute("aria-label", "Messages of the prompt");
    for (const [role, content] of read) messages.append(message(store, role, content));
    found.push(fold);
  }
  return found;
}

function titleOf(store, row) {
  const parts = [`Problem ${store.problem(row)}`, `step ${store.columns.step[row]}`, `seed ${store.run(row).seed}`];
  if (store.sample(row) !== "") parts.push(`sample ${store.sample(row)}`);
  return parts.join(", ");
}

function drawWords(count) {
  if (count === 1) return "No other run of this report has this draw.";
  const same = "the same seed, step, problem and sample, so the same random numbers";
  return `The same draw in ${count} runs side by side: ${same}. The run that you opened has the blue edge.`;
}

/** All of a rollout's view, as elements. */
async function viewOf(store, row) {
  const rows = store.sameDraw(row);
  const cards = made("div", "cards");
  cards.tabIndex = 0;
  cards.setAttribute("role", "region");
  cards.setAttribute("aria-label", "The same draw in every run");
  for (const one of rows) cards.append(await card(store, one, one === row));
  return { title: titleOf(store, row), note: drawWords(rows.length), parts: [...(await promptsOf(store, rows)), cards] };
}
