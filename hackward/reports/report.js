// The page of rollouts: filters, list, view, keyboard, address.

const $ = (id) => document.getElementById(id);

class Page {
  constructor(store) {
    this.store = store;
    this.state = emptyState();
    this.holds = null; // which rows hold the text that is searched for
    this.searched = "";
    this.list = new List(store, (row) => this.open(row));
    this.controls();
    this.keys();
    addEventListener("popstate", () => this.restore());
    addEventListener("hashchange", () => this.restore());
  }

  // ------------------------------------------------------------------ controls
  controls() {
    const facts = this.store.facts;
    const unique = (values) => [...new Set(values.map(String))];
    const found = new Set(this.store.label);
    this.chips("labels", "label", LABELS.filter((_, place) => found.has(place)));
    this.chips("arms", "arm", unique(facts.runs.map((run) => run.arm)));
    this.chips("seeds", "seed", unique(facts.runs.map((run) => run.seed)));
    this.chips("pools", "by", facts.pools);
    for (const name of facts.problems.slice(0, 1000)) {
      const option = $("problems").appendChild(document.createElement("option"));
      option.value = visible(name);
    }
    this.sorts();
    const fields = { text: "text", from: "from", to: "to", problem: "problem" };
    for (const [id, name] of Object.entries(fields)) {
      $(id).addEventListener("input", () => this.typed(name, $(id).value));
    }
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("clear").addEventListener("click", () => this.change(emptyState()));
    $("toggle").addEventListener("click", () => {
      const open = $("choices").classList.toggle("open");
      $("toggle").setAttribute("aria-expanded", open);
    });
    $("skip").addEventListener("click", (event) => {
      event.preventDefault();
      $("list").scrollIntoView();
      $("list").focus();
    });
    this.hacksButton();
    $("close").addEventListener("click", () => $("view").close());
    $("view").addEventListener("close", () => this.closed());
    $("previous").addEventListener("click", () => this.step(-1));
    $("next").addEventListener("click", () => this.step(1));
    $("copy").addEventListener("click", () => this.copy());
  }

  /** The button that shows hacks: how many a press shows, and whose they are. */
  hacksButton() {
    const { all, own, state } = hacksOf(this.store);
    const shown = rowsOf(this.store, state, null).length;
    $("hacks").hidden = !all.length;
    $("hacks").textContent = `Look at the hacks (${shown.toLocaleString("en")})`;
    $("hacks").addEventListener("click", () => this.hacks());
    const others = all.filter((row) => this.store.pool(row) !== this.store.facts.own);
    $("whose").textContent = visible(whoseWords(this.store, own.length, others));
  }

  async hacks() {
    await this.change(hacksOf(this.store).state);
    $("browser").scrollIntoView();
    this.list.home.focus({ preventScroll: true });
  }

  /** A check box for each value. */
  chips(home, name, values) {
    for (const value of values) {
      const label = made("label", "chip");
      const box = label.appendChild(document.createElement("input"));
      box.type = "checkbox";
      box.name = name;
      box.value = value;
      const words = name === "by" ? poolWords(this.store, value) : value;
      label.append(made("span", name === "label" ? `badge ${value.replace(" ", "-")}` : "", words));
      box.addEventListener("change", () => {
        if (box.checked) this.state[name].add(value);
        else this.state[name].delete(value);
        this.change(this.state);
      });
      $(home).append(label);
    }
  }

  sorts() {
    const add = (value, words) => {
      const option = $("sort").appendChild(made("option", "", words));
      option.value = value;
    };
    add("", "run and step");
    for (const [name, words] of Object.entries(SORTS)) {
      if (!this.store.columns[name]) continue;
      add(`-${name}`, `${words}, highest first`);
      add(name, `${words}, lowest first`);
    }
    $("sort").addEventListener("change", () => this.change({ ...this.state, sort: $("sort").value }));
    for (const [name, heading, sort] of this.list.columns) {
      const cell = $("heads").appendChild(made("span", name, heading));
      if (!sort) continue;
      cell.classList.add("sorts");
      cell.addEventListener("click", () => {
        const next = this.state.sort === `-${sort}` ? sort : `-${sort}`;
        this.change({ ...this.state, sort: next });
      });
    }
  }

  /** Show in the controls what the state says. */
  tellControls() {
    for (const box of document.querySelectorAll("#choices input[type=checkbox]")) {
      box.checked = this.state[box.name].has(box.value);
    }
    for (const id of ["text", "from", "to", "problem", "sort"]) {
      if ($(id).value !== this.state[id]) $(id).value = this.state[id];
    }
    for (const cell of $("heads").children) {
      const sort = this.state.sort.replace(/^-/, "");
      cell.dataset.sorted = sort && cell.classList.contains(sort) ? (this.state.sort.startsWith("-") ? "down" : "up") : "";
    }
  }

  // ------------------------------------------------------------------ state
  /** A field is being typed into: wait for a pause. */
  typed(name, value) {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.change({ ...this.state, [name]: value.trim() }), 150);
  }

  /** Take on another state and write it to the address. */
  change(state) {
    this.state = { ...state, open: this.state.open };
    history.replaceState(null, "", hashOf(this.state));
    return this.refresh();
  }

  /** Take on the state of the address. */
  async restore() {
    const state = stateOf(location.hash);
    const same = hashOf({ ...state, open: null }) === hashOf({ ...this.state, open: null });
    this.state = state;
    if (!same || !this.shownOnce) await this.refresh();
    const row = state.open === null ? null : this.store.named(state.open);
    if (row !== null) return this.show(row);
    if ($("view").open) $("view").close();
    if (state.open !== null) this.tell(`${this.words} The rollout of this link is not in this page.`);
    return undefined;
  }

  /** Filter, sort, and show the list. */
  async refresh() {
    this.tellControls();
    const ticket = (this.ticket = {});
    const stopped = () => this.ticket !== ticket;
    if (this.state.text !== this.searched) {
      const tell = (share) => this.tell(`Searching ... ${Math.round(100 * share)} %`);
      const text = this.state.text;
      const holds = text ? await this.store.holding(text, stopped, tell) : null;
      if (stopped()) return;
      this.holds = holds;
      this.searched = text;
    }
    const rows = rowsOf(this.store, this.state, this.holds);
    this.shownOnce = true;
    this.list.home.scrollTop = 0;
    this.list.show(rows);
    const all = this.store.count.toLocaleString("en");
    const some = rows.length.toLocaleString("en");
    this.words = rows.length === this.store.count ? `${all} rollouts.` : `${some} of ${all} rollouts.`;
    if (!rows.length) this.words += " Nothing matches: take a filter away.";
    this.tell(this.words);
  }

  tell(words) {
    $("count").textContent = visible(words);
  }

  // ------------------------------------------------------------------ the opened rollout
  /** Open a row: its link goes to the address, so that Back closes it. */
  async open(row) {
    const first = this.state.open === null;
    this.state.open = this.store.nameOf(row);
    if (first) history.pushState(null, "", hashOf(this.state));
    else history.replaceState(null, "", hashOf(this.state));
    await this.show(row);
  }

  async show(row) {
    const ticket = (this.viewing = {});
    const { title, note, parts } = await viewOf(this.store, row);
    if (this.viewing !== ticket) return;
    $("view-title").textContent = visible(title);
    $("view-note").textContent = note;
    $("view-body").replaceChildren(...parts);
    $("copy").textContent = "Copy link";
    if (!$("view").open) $("view").showModal();
    $("view").scrollTop = 0;
    const place = this.list.rows.indexOf(row);
    if (place >= 0) this.list.move(place);
    $("previous").disabled = place === 0;
    $("next").disabled = place === this.list.rows.length - 1;
  }

  /** Open the next (1) or the previous (-1) rollout of the list. */
  step(by) {
    const to = this.list.active + by;
    if (to >= 0 && to < this.list.rows.length) this.open(this.list.rows[to]);
  }

  closed() {
    this.viewing = null;
    if (this.state.open !== null) {
      this.state.open = null;
      history.replaceState(null, "", hashOf(this.state));
    }
    this.list.home.focus({ preventScroll: true });
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(location.href);
      $("copy").textContent = "Copied";
    } catch {
      $("copy").textContent = "Copy it from the address bar";
    }
  }

  // ------------------------------------------------------------------ keyboard
  keys() {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
      if (typing) {
        if (event.key === "Escape") this.list.home.focus();
        return;
      }
      if ($("view").open ? this.viewKey(event.key) : this.listKey(event)) event.preventDefault();
    });
  }

  /** Was this key for the view? Escape closes it by itself. */
  viewKey(key) {
    if (key === "j") this.step(1);
    else if (key === "k") this.step(-1);
    else return false;
    return true;
  }

  /** Was this key for the list? */
  listKey(event) {
    const inList = event.target === this.list.home;
    const { active, rows } = this.list;
    const page = this.list.page();
    const anywhere = { j: active + 1, k: active - 1 };
    const focused = {
      ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page,
      Home: 0, End: rows.length - 1,
    };
    if (event.key === "/") {
      $("text").focus();
      $("text").select();
    } else if (event.key in anywhere || (inList && event.key in focused)) {
      this.list.home.focus();
      this.list.move({ ...anywhere, ...focused }[event.key]);
    } else if (inList && event.key === "Enter" && rows.length) {
      this.open(rows[active]);
    } else {
      return false;
    }
    return true;
  }
}

async function begin() {
  const store = await Store.load();
  const page = new Page(store);
  await page.restore();
  document.documentElement.dataset.ready = Math.round(performance.now());
}

begin().catch((fault) => {
  $("count").textContent = `The rollouts cannot be shown: ${fault.message}`;
});
