// The list of rollouts: only the lines that are on the screen exist.

const NARROW = matchMedia("(max-width: 700px)");
const SPARE = 6; // lines beyond each edge of the screen
const COLUMNS = [
  // class, heading, column that a click sorts by, text of a row
  ["label", "label", "", null],
  ["reward", "reward", "reward", (store, row) => number(store.figure(row, "reward"))],
  ["score", "score", "score", (store, row) => signed(store.figure(row, "score"))],
  ["cosine", "cosine", "cosine", (store, row) => signed(store.figure(row, "cosine"))],
  ["length", "length", "length", (store, row) => number(store.figure(row, "length"), 0)],
  ["step", "step", "step", (store, row) => String(store.columns.step[row])],
  ["run", "run", "", (store, row) => store.run(row).label],
  ["problem", "problem  #sample", "", problemWords],
  ["pool", "written by", "", (store, row) => poolWords(store, store.pool(row))],
];

function problemWords(store, row) {
  return `${store.problem(row)}  #${store.sample(row)}`;
}

function poolWords(store, pool) {
  return pool === store.facts.own ? "the policy" : pool;
}

/** Of a store: all rows that hack, those of the policy among them, and the state that shows the latter. */
function hacksOf(store) {
  // The last steps first: where the arms have gone apart, the same draw shows it
  const state = { ...emptyState(), label: new Set(["hacked"]), sort: "-step" };
  const all = rowsOf(store, state, null);
  const own = all.filter((row) => store.pool(row) === store.facts.own);
  if (own.length) state.by = new Set([store.facts.own]);
  return { all, own, state };
}

/** Whose hacks a press shows, where that is not plain: `own` of the policy, `others` of pools. */
function whoseWords(store, own, others) {
  const pools = [...new Set([...others].map((row) => store.pool(row)))];
  const names = pools.slice(0, 3).map((pool) => `"${pool}"`);
  const named = `the ${pools.length === 1 ? "pool" : "pools"} ${names.join(", ")}`;
  const from = pools.length > 3 ? `${named} and others` : named;
  if (!others.length) return "";
  if (!own) return `None of them is an answer of the model: all are rows of ${from}.`;
  return `Answers of the model. ${others.length.toLocaleString("en")} more are rows of ${from}.`;
}

/** Columns that these rollouts have; the others are left out. */
function columnsOf(store) {
  const optional = ["reward", "score", "cosine", "length"];
  return COLUMNS.filter(([name]) => !optional.includes(name) || store.columns[name]);
}

class List {
  /** `open(row)` is called for a line that was chosen. */
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.rows = new Int32Array(0);
    this.active = 0;
    this.lines = [];
    this.home = document.getElementById("list");
    this.spacer = document.getElementById("spacer");
    this.columns = columnsOf(store);
    this.home.addEventListener("scroll", () => this.later());
    this.home.addEventListener("click", (event) => this.clicked(event));
    NARROW.addEventListener("change", () => this.show(this.rows, this.active));
    addEventListener("resize", () => this.later());
  }

  get height() {
    return NARROW.matches ? 58 : 36;
  }

  /** Show these rows, the one at `active` in view. */
  show(rows, active = 0) {
    this.rows = rows;
    this.active = Math.max(0, Math.min(active, rows.length - 1));
    this.spacer.style.height = `${rows.length * this.height}px`;
    this.reveal();
    this.draw();
  }

  /** Make another line the active one. */
  move(to) {
    if (!this.rows.length) return;
    this.active = Math.max(0, Math.min(to, this.rows.length - 1));
    this.reveal();
    this.draw();
  }

  page() {
    return Math.max(1, Math.floor(this.home.clientHeight / this.height) - 1);
  }

  reveal() {
    const top = this.active * this.height;
    const bottom = top + this.height - this.home.clientHeight;
    if (this.home.scrollTop > top) this.home.scrollTop = top;
    else if (this.home.scrollTop < bottom) this.home.scrollTop = bottom;
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  clicked(event) {
    const line = event.target.closest(".row");
    if (!line) return;
    this.move(Number(line.dataset.place));
    this.open(this.rows[this.active]);
  }

  /** Draw the lines on the screen; those that left it are used again. */
  draw() {
    const first = Math.max(0, Math.floor(this.home.scrollTop / this.height) - SPARE);
    const fitting = Math.ceil(this.home.clientHeight / this.height) + 2 * SPARE;
    const last = Math.min(this.rows.length, first + fitting);
    while (this.lines.length < last - first) this.lines.push(this.line());
    this.lines.forEach((line, index) => {
      const place = first + index;
      line.hidden = place >= last;
      if (!line.hidden) this.fill(line, place);
    });
    const seen = this.active >= first && this.active < last;
    if (seen) this.home.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.home.removeAttribute("aria-activedescendant");
  }

  line() {
    const line = made("div", "line row");
    line.setAttribute("role", "option");
    for (const [name] of this.columns) line.append(made("span", name === "label" ? "badge" : name));
    return this.home.appendChild(line);
  }

  fill(line, place) {
    const row = this.rows[place];
    line.id = `row-${place}`;
    line.dataset.place = place;
    line.style.transform = `translateY(${place * this.height}px)`;
    line.setAttribute("aria-posinset", place + 1);
    line.setAttribute("aria-setsize", this.rows.length);
    line.setAttribute("aria-selected", place === this.active);
    this.columns.forEach(([name, heading, , words], index) => {
      const cell = line.children[index];
      if (words === null) {
        const label = LABELS[this.store.label[row]];
        cell.className = `badge ${label.replace(" ", "-")}`;
        cell.textContent = label;
      } else {
        const text = visible(words(this.store, row));
        cell.textContent = text;
        cell.dataset.name = heading;
        if (name === "problem" || name === "run") cell.title = text;
      }
    });
  }
}
