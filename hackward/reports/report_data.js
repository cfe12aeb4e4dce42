// What the page holds: columns of numbers, and texts that are unpacked when somebody asks for them.

const KEPT = 48; // pieces of texts that stay unpacked
const LABELS = ["hacked", "solved", "attempted", "none", "no label"];

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const packed = atob(text);
  const bytes = new Uint8Array(packed.length);
  for (let place = 0; place < packed.length; place++) bytes[place] = packed.charCodeAt(place);
  return bytes;
}

async function unpacked(id) {
  const bytes = bytesOf(document.getElementById(id).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function unpackedJson(id) {
  return JSON.parse(new TextDecoder().decode(await unpacked(id)));
}

/** Texts in packed pieces; `starts` are the places of the first text of each piece. */
class Pieces {
  constructor(name, starts, count) {
    this.name = name;
    this.starts = starts;
    this.count = count;
    this.kept = new Map();
  }

  /** The piece that holds this place. */
  pieceOf(place) {
    let low = 0;
    let high = this.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= place) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** All texts of a piece. The pieces used last stay unpacked. */
  async piece(number) {
    const found = this.kept.get(number) ?? unpackedJson(`${this.name}-${number}`);
    this.kept.delete(number);
    this.kept.set(number, found);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return found;
  }

  async at(place) {
    const number = this.pieceOf(place);
    const piece = await this.piece(number);
    return piece[place - this.starts[number]];
  }
}

/** All rollouts. A row is a number; columns say what is known of it. */
class Store {
  constructor(facts, columns) {
    this.facts = facts;
    this.columns = columns;
    this.count = facts.count;
    this.prompts = new Pieces("prompts", facts.promptStarts, 0);
    this.texts = new Pieces("texts", facts.textStarts, facts.count);
    this.label = this.labels();
  }

  static async load() {
    const facts = await unpackedJson("facts");
    const figures = new Set(["reward", "advantage", "cosine", "contribution", "score", "length"]);
    const columns = {};
    for (const element of document.querySelectorAll('script[id^="column-"]')) {
      const name = element.id.slice("column-".length);
      const data = await unpacked(element.id);
      columns[name] = figures.has(name) ? new Float32Array(data) : new Int32Array(data);
    }
    return new Store(facts, columns);
  }

  /** true, false, or null where it is not known. */
  mark(row, name) {
    const bits = (this.columns.marks[row] >> (2 * this.facts.marks.indexOf(name))) & 3;
    return bits === 0 ? null : bits === 2;
  }

  /** A figure; null where there is none. */
  figure(row, name) {
    const value = this.columns[name]?.[row];
    return value === undefined || Number.isNaN(value) ? null : value;
  }

  run(row) {
    return this.facts.runs[this.columns.run[row]];
  }

  problem(row) {
    return this.facts.problems[this.columns.problem[row]];
  }

  pool(row) {
    return this.facts.pools[this.columns.pool[row]];
  }

  sample(row) {
    return this.facts.samples[this.columns.sample[row]];
  }

  /** Place in LABELS of every row: one label each, the first that holds. */
  labels() {
    const found = new Uint8Array(this.count);
    for (let row = 0; row < this.count; row++) {
      const place = ["hacked", "solved", "attempted"].findIndex((name) => this.mark(row, name));
      const known = this.mark(row, "hacked") !== null || this.mark(row, "solved") !== null;
      found[row] = place >= 0 ? place : known ? 3 : 4;
    }
    return found;
  }

  /** The rows of the same draw, in the order of the runs. */
  sameDraw(row) {
    const draws = this.columns.draw;
    const found = [];
    for (let other = 0; other < this.count; other++) {
      if (draws[other] === draws[row]) found.push(other);
    }
    return found;
  }

  /** The address of a row within the page: run, step, place. */
  nameOf(row) {
    return `${this.run(row).label}~${this.columns.step[row]}~${this.columns.place[row]}`;
  }

  /** The row of this address; null where there is none. */
  named(name) {
    const [, label, step, place] = /^(.*)~(\d+)~(\d+)$/s.exec(name) ?? [];
    const run = this.facts.runs.findIndex((one) => one.label === label);
    if (run < 0) return null;
    const { run: runs, step: steps, place: places } = this.columns;
    for (let row = 0; row < this.count; row++) {
      if (runs[row] === run && steps[row] === Number(step) && places[row] === Number(place)) return row;
    }
    return null;
  }

  async prompt(row) {
    const place = this.columns.prompt[row];
    return place < 0 ? [] : this.prompts.at(place);
  }

  /**
   * Which rows hold a text in prompt or completion, whatever the case: an array of 0 and 1.
   * null if `stopped()` says so before the end. `tell` hears the share that is done.
   */
  async holding(text, stopped, tell) {
    const wanted = text.toLowerCase();
    const holds = (one) => one.toLowerCase().includes(wanted);
    const prompts = [];
    for (let number = 0; number < this.prompts.starts.length; number++) {
      for (const messages of await this.prompts.piece(number)) {
        prompts.push(messages.some(([, content]) => holds(content)));
      }
    }
    const found = new Uint8Array(this.count);
    let row = 0;
    for (let number = 0; number < this.texts.starts.length; number++) {
      for (const [completion] of await this.texts.piece(number)) {
        const prompt = this.columns.prompt[row];
        const hit = (prompt >= 0 && prompts[prompt]) || (completion !== null && holds(completion));
        found[row++] = hit ? 1 : 0;
      }
      if (stopped()) return null;
      tell((number + 1) / this.texts.starts.length);
    }
    return found;
  }
}
