// The document: paragraphs of sentences, in leaves that the browser lays out when they are near.

const LEAF_CHARS = 4000;
const BUILD_MS = 12;
const BLANK_LINE = /\n[^\S\n]*\n/;
const ONLY_RULES = /^[\s=\-*~^"'#+.:_]+$/;
const CODE = /^\s*(>>>|\.\.\. |\$ )|[{}]\s*$|\);\s*$|\|.*\|/m;
const BULLET = /^\s*(?:[-*•‣◦–]|\(?(?:\d{1,3}|[a-z])[.)])\s+/;
const HOT = 0.06;
const STEEP = 1.8;

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// How the lines of a paragraph stand: prose that flows, lines as they are, or code.
function layout(text) {
  const lines = text.split("\n");
  const indents = lines.map((line) => line.length - line.trimStart().length);
  const bullet = lines[0].match(BULLET);
  const indent = Math.min(...indents);
  if (CODE.test(text) || (lines.length > 1 && indent >= 4 && lines.some((l) => l.trim().length < 40))) {
    return { kind: "code", indent: 0 };
  }
  const full = lines.slice(0, -1).every((line) => line.trim().length >= 45);
  const hanging = bullet ? bullet[0].length : indents[0];
  const even = indents.slice(1).every((each) => each === hanging || each === 0);
  if (lines.length === 1 || (full && even)) {
    return { kind: bullet ? "flow item" : "flow", indent: Math.min(indents[0], 12) };
  }
  return { kind: "lines", indent: 0 };
}

export class DocumentText {
  constructor(host) {
    this.host = host;
    this.spans = [];
    this.leaves = [];
    this.heat = null;
    this.observer = new IntersectionObserver((entries) => this.#seen(entries), {
      rootMargin: "1200px 0px",
    });
  }

  // Draw a document: its beginning now, the rest in pieces, so that the page stays quick.
  async draw(read) {
    const run = (this.run = Symbol("run"));
    this.read = read;
    this.host.replaceChildren();
    this.observer.disconnect();
    this.spans = new Array(read.sentences.length / 2);
    this.leaves = [];
    this.heat = null;
    this.marked = [];
    const paragraphs = this.#paragraphs();
    let next = 0;
    while (next < paragraphs.length) {
      const until = performance.now() + BUILD_MS;
      while (next < paragraphs.length && (next === 0 || performance.now() < until)) {
        next = this.#leaf(paragraphs, next);
      }
      if (next < paragraphs.length) {
        await new Promise((resolve) => setTimeout(resolve));
        if (this.run !== run) return false;
      }
    }
    return true;
  }

  // The sentences of each paragraph: [first, last), and the kind of heading that it is.
  #paragraphs() {
    const { text, sentences, headings } = this.read;
    const paragraphs = [];
    let heading = 0;
    let fenced = false;
    let previous = 0;
    for (let i = 0; i < sentences.length / 2; i++) {
      const [start, end] = [sentences[2 * i], sentences[2 * i + 1]];
      while (heading < headings.length && headings[heading][1] <= start) heading++;
      const inside = heading < headings.length && headings[heading][0] < end;
      const level = inside ? headings[heading][2] : 0;
      const last = paragraphs.at(-1);
      const gap = text.slice(previous, start);
      if (!last || BLANK_LINE.test(gap) || level !== last.level || (level && gap.includes("\n"))) {
        const from = Math.max(previous, previous + gap.lastIndexOf("\n") + 1);
        paragraphs.push({ first: i, last: i + 1, start: from, end, level });
      } else {
        last.last = i + 1;
        last.end = end;
      }
      previous = end;
    }
    for (const each of paragraphs) {
      const own = text.slice(each.start, each.end);
      const fences = own.match(/^\s*(```|~~~)/gm)?.length ?? 0;
      each.fenced = fenced || fences > 0;
      if (fences % 2) fenced = !fenced;
    }
    return paragraphs;
  }

  #leaf(paragraphs, from) {
    const leaf = element("div", "leaf");
    const first = paragraphs[from];
    let next = from;
    while (next < paragraphs.length && paragraphs[next].start - first.start < LEAF_CHARS) {
      this.#paragraph(leaf, paragraphs[next++]);
    }
    const last = paragraphs[next - 1];
    leaf.style.setProperty("contain-intrinsic-block-size", `auto ${this.#height(first, last)}px`);
    Object.assign(leaf, { first: first.first, last: last.last, from: first.start, to: last.end, heat: null });
    this.leaves.push(leaf);
    this.host.append(leaf);
    this.observer.observe(leaf);
    return next;
  }

  #height(first, last) {
    const perLine = Math.max(20, this.host.clientWidth / 9.2);
    return Math.ceil((1.25 * (last.end - first.start)) / perLine) * 30;
  }

  #paragraph(leaf, { first, last, start, end, level, fenced }) {
    const { text, sentences, pages } = this.read;
    this.page = first === 0 ? 0 : this.page;
    while (this.page < pages.length && pages[this.page][0] < end) {
      leaf.append(element("p", "page", pages[this.page++][1]));
    }
    const own = text.slice(start, end);
    const { kind, indent } = fenced ? { kind: "code", indent: 0 } : layout(own);
    const rule = ONLY_RULES.test(own);
    const block = level
      ? element(`h${Math.min(6, level + 1)}`, "heading")
      : element("p", rule ? "rule" : kind);
    if (indent && !level) block.style.setProperty("--indent", indent);
    let at = start;
    for (let i = first; i < last; i++) {
      const [from, to] = [sentences[2 * i], sentences[2 * i + 1]];
      if (at < from) block.append(text.slice(at, from));
      const span = element("span", "s");
      const words = text.slice(from, to);
      const marks = level && i === first ? words.match(/^#+\s*|\s*#+$/)?.[0] ?? "" : "";
      if (marks) span.append(element("span", "marks", marks));
      span.append(words.slice(marks.length));
      this.spans[i] = span;
      block.append(span);
      at = to;
    }
    leaf.append(block);
  }

  #seen(entries) {
    for (const { target, isIntersecting } of entries) {
      target.near = isIntersecting;
      if (isIntersecting) this.#warm(target);
    }
  }

  // Show how relevant each sentence is, from 0 to 255; only where somebody looks, for now.
  show(relevance) {
    this.heat = relevance;
    for (const leaf of this.leaves) if (leaf.near || !relevance) this.#warm(leaf);
  }

  #warm(leaf) {
    if (leaf.heat === this.heat) return;
    leaf.heat = this.heat;
    for (let i = leaf.first; i < leaf.last; i++) {
      const share = this.heat ? (this.heat[i] / 255) ** STEEP : 0;
      const span = this.spans[i];
      span.classList.toggle("hot", share > HOT);
      if (share > HOT) span.style.setProperty("--heat-share", share.toFixed(2));
    }
  }

  // The sentences within a range of the text's characters: [first, last).
  within(start, end) {
    const { sentences } = this.read;
    let low = 0;
    let high = sentences.length / 2;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sentences[2 * middle + 1] <= start) low = middle + 1;
      else high = middle;
    }
    let last = low;
    while (last < sentences.length / 2 && sentences[2 * last] < end) last++;
    return [low, last];
  }

  // Mark a passage, and in it the sentence that answers.
  mark(passage) {
    for (const span of this.marked) {
      span.classList.remove("answer", "passage");
      span.removeAttribute("aria-current");
    }
    this.marked = [];
    if (!passage) return null;
    const range = (className, [first, last]) => {
      for (let i = first; i < last; i++) {
        this.spans[i]?.classList.add(className);
        if (this.spans[i]) this.marked.push(this.spans[i]);
      }
      return this.spans[first];
    };
    range("passage", this.within(passage.start, passage.end));
    const answer = range("answer", this.within(...passage.highlight));
    answer?.setAttribute("aria-current", "true");
    return answer;
  }

  // Scroll to an element; leaves on the way take their true height when they come near.
  async reveal(target, top) {
    if (!target) return;
    const goal = () => target.getBoundingClientRect().top - top;
    const near = Math.abs(goal()) < 1.5 * innerHeight;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const run = (this.scroll = Symbol("scroll"));
    if (near && !still) {
      scrollBy({ top: goal(), behavior: "smooth" });
      return;
    }
    for (let turn = 0; turn < 8 && this.scroll === run; turn++) {
      scrollBy({ top: goal(), behavior: "instant" });
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      if (Math.abs(goal()) < 2) return;
    }
  }

  // The character at a height of the window, about.
  charAt(y) {
    let low = 0;
    let high = this.leaves.length - 1;
    if (high < 0) return 0;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.leaves[middle].getBoundingClientRect().bottom <= y) low = middle + 1;
      else high = middle;
    }
    const leaf = this.leaves[low];
    const box = leaf.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (y - box.top) / Math.max(1, box.height)));
    return leaf.from + share * (leaf.to - leaf.from);
  }

  // Scroll so that a character is at a height of the window, about.
  jump(char, top) {
    this.scroll = null;
    const leaf = this.leaves.find((each) => each.to >= char) ?? this.leaves.at(-1);
    if (!leaf) return;
    const box = leaf.getBoundingClientRect();
    const share = (char - leaf.from) / Math.max(1, leaf.to - leaf.from);
    scrollBy({ top: box.top + share * box.height - top, behavior: "instant" });
  }

  // The nearest heading above a character.
  headingAt(char) {
    const above = this.read.headings.findLast(([start]) => start <= char);
    return above ? this.words(this.read, above) : "";
  }

  // The words of a heading.
  words({ text }, [start, end]) {
    return text.slice(start, end).replace(/^[#=*\s]+|[#=*\s]+$/g, "");
  }
}
