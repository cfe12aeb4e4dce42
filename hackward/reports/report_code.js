// Texts on the screen: nothing of them is ever markup. Python is coloured, the own evaluation is marked.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
const KEYWORDS = new Set(
  ("False None True and as assert async await break class continue def del elif else except finally for from " +
    "global if import in is lambda match nonlocal not or pass raise return try while with yield self").split(" "),
);
const TOKEN = new RegExp(
  [
    /(?<string>[rRbBuUfF]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))/,
    /(?<comment>#[^\n]*)/,
    /(?<number>\b\d[\w.]*)/,
    /(?<word>[\p{L}_][\p{L}\p{N}_]*)/,
    /(?<other>\s+|[^])/,
  ]
    .map((part) => part.source)
    .join("|"),
  "gu",
);

/** Characters that are not seen, or that turn the order of others, as signs; line breaks and tabs stay. */
function visible(text) {
  return String(text).replace(HIDDEN, (char) => {
    const code = char.codePointAt(0);
    if (char === "\n" || char === "\t") return char;
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  });
}

/** A new element with a class and a text. */
function made(tag, className = "", text = null) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== null) element.textContent = visible(text);
  return element;
}

/** A text in parts: [is it code, text]. Fences belong to the text; without any, what looks like Python is code. */
function partsOf(text) {
  if (!/^[ \t]*```/m.test(text)) return [[/^\s*(?:def|class|import|from|@)\b/m.test(text), text]];
  const parts = [];
  let code = false;
  let lines = [];
  const close = () => {
    if (lines.length) parts.push([code, lines.join("\n")]);
    lines = [];
  };
  for (const line of text.split("\n")) {
    const fence = /^[ \t]*```/.test(line);
    if (fence && code) {
      close();
      code = false;
      lines.push(line);
    } else if (fence) {
      lines.push(line);
      close();
      code = true;
    } else {
      lines.push(line);
    }
  }
  close();
  return parts;
}

/** [start, end) in characters of every definition of one of the names, with its body. */
function definitions(code, names) {
  const found = [];
  let begin = null;
  let indent = 0;
  let end = 0;
  let offset = 0;
  const name = `(?:${names.join("|")})`;
  const named = new RegExp(`^[ \\t]*(?:(?:async[ \\t]+)?def[ \\t]+${name}[ \\t]*\\(|${name}[ \\t]*=(?!=))`);
  for (const line of code.split("\n")) {
    const depth = /^[ \t]*/.exec(line)[0].length;
    const blank = line.trim() === "";
    if (begin !== null && !blank && depth <= indent) {
      found.push([begin, end]);
      begin = null;
    }
    if (begin === null && named.test(line)) {
      begin = offset;
      indent = depth;
    }
    offset += line.length + 1;
    if (!blank) end = Math.min(offset, code.length);
  }
  if (begin !== null) found.push([begin, end]);
  return found;
}

/** Python as elements: words of the language, strings, comments, and in <mark> the definitions in `ranges`. */
function coloured(code, ranges) {
  const whole = made("code");
  const edges = ranges.flat();
  let parent = whole;
  let offset = 0;
  for (const match of code.matchAll(TOKEN)) {
    const kind = kindOf(match);
    let text = match[0];
    while (text) {
      if (edges.length && offset === edges[0]) {
        edges.shift();
        parent = edges.length % 2 ? whole.appendChild(made("mark", "own")) : whole;
      }
      const length = edges.length ? Math.min(text.length, edges[0] - offset) : text.length;
      const part = text.slice(0, length);
      parent.append(kind ? made("span", kind, part) : visible(part));
      offset += length;
      text = text.slice(length);
    }
  }
  return whole;
}

function kindOf(match) {
  const { string, comment, number, word } = match.groups;
  if (string) return "string";
  if (comment) return "comment";
  if (number) return "number";
  return word && KEYWORDS.has(word) ? "keyword" : "";
}

/** [element, does it define its own evaluation] of a text with Python in it. */
function shownText(text, names) {
  const block = made("div", "text");
  let own = false;
  for (const [code, part] of partsOf(text)) {
    const pre = block.appendChild(made("pre", code ? "python" : "prose"));
    if (code) {
      const ranges = definitions(part, names);
      own ||= ranges.length > 0;
      pre.append(coloured(part, ranges));
    } else {
      pre.textContent = visible(part);
    }
  }
  return [block, own];
}
