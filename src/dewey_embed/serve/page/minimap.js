// The map: all of the document at once, one bar a few lines, warm where it is relevant.

const PITCH = 3;
const LINE_CHARS = 80;
const LEAST = 0.1;

export class Minimap {
  constructor(canvas, tip, text, { top }) {
    Object.assign(this, { canvas, tip, text, top });
    this.base = document.createElement("canvas");
    this.read = null;
    this.relevance = null;
    this.passages = [];
    this.current = -1;
    new ResizeObserver(() => this.#sized()).observe(canvas.parentElement);
    addEventListener("scroll", () => this.#later(), { passive: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    canvas.addEventListener("pointerdown", (event) => this.#pressed(event));
    canvas.addEventListener("pointermove", (event) => this.#moved(event));
    canvas.addEventListener("pointerleave", () => (tip.hidden = true));
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  show(read) {
    this.read = read;
    this.relevance = null;
    this.passages = [];
    this.current = -1;
    this.#sized();
  }

  heat(relevance) {
    this.relevance = relevance;
    this.redraw();
  }

  answers(passages, current) {
    this.passages = passages;
    this.current = current;
    this.#later();
  }

  #sized() {
    if (!this.read) return;
    const room = this.canvas.parentElement.getBoundingClientRect();
    const lines = Math.ceil(this.read.text.length / LINE_CHARS);
    this.height = Math.floor(Math.min(room.height, Math.max(120, PITCH * lines)));
    this.width = Math.floor(room.width);
    this.ratio = devicePixelRatio || 1;
    for (const each of [this.canvas, this.base]) {
      each.width = this.width * this.ratio;
      each.height = this.height * this.ratio;
    }
    this.canvas.style.setProperty("height", `${this.height}px`);
    this.redraw();
  }

  #y(char) {
    return (char / Math.max(1, this.read.text.length)) * this.height;
  }

  // The highest relevance, and how full the lines are, of each bar.
  #bars() {
    const num = Math.max(1, Math.floor(this.height / PITCH));
    const heat = new Float32Array(num);
    const ink = new Float32Array(num);
    const { sentences, text } = this.read;
    const scale = num / Math.max(1, text.length);
    for (let i = 0; i < sentences.length / 2; i++) {
      const [start, end] = [sentences[2 * i] * scale, sentences[2 * i + 1] * scale];
      const share = this.relevance ? this.relevance[i] / 255 : 0;
      for (let bar = Math.floor(start); bar < Math.min(num, end); bar++) {
        heat[bar] = Math.max(heat[bar], share);
        ink[bar] += Math.min(bar + 1, end) - Math.max(bar, start);
      }
    }
    return { num, heat, ink };
  }

  redraw() {
    if (!this.read || !this.width || !this.height) return;
    const style = getComputedStyle(this.canvas);
    const [ink, warm] = ["--map-ink", "--map-heat"].map((name) => style.getPropertyValue(name));
    const strength = Number(style.getPropertyValue("--strength"));
    const context = this.base.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const bars = this.#bars();
    const left = this.width > 40 ? 10 : 3;
    const room = this.width - left - (this.width > 40 ? 6 : 2);
    for (let bar = 0; bar < bars.num; bar++) {
      // Where a bar stands for much text its lines are as long as lines are.
      const jitter = 0.82 + 0.18 * Math.abs(Math.sin(bar * 12.9898) * Math.cos(bar * 4.1414));
      const width = room * Math.min(1, Math.max(0.12, bars.ink[bar] ** 0.8)) * jitter;
      context.globalAlpha = 1;
      context.fillStyle = ink;
      context.fillRect(left, bar * PITCH, width, PITCH - 1);
      const share = (bars.heat[bar] - LEAST) / (1 - LEAST);
      if (share > 0) {
        context.globalAlpha = strength * Math.min(1, share ** 1.7);
        context.fillStyle = warm;
        context.fillRect(left, bar * PITCH, room, PITCH - 1);
      }
    }
    context.globalAlpha = 1;
    this.#frame();
  }

  #later() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.#frame();
    });
  }

  #frame() {
    if (!this.read || !this.width || this.canvas.offsetParent === null) return;
    const style = getComputedStyle(this.canvas);
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.base, 0, 0);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const first = this.text.charAt(this.top());
    const last = this.text.charAt(innerHeight);
    const [start, end] = [this.#y(first), this.#y(last)];
    const height = Math.max(8, end - start);
    context.fillStyle = style.getPropertyValue("--map-frame");
    context.fillRect(0, start, this.width, height);
    context.strokeStyle = style.getPropertyValue("--map-edge");
    context.strokeRect(0.5, Math.round(start) + 0.5, this.width - 1, Math.round(height) - 1);
    context.fillStyle = style.getPropertyValue("--map-answer");
    context.globalAlpha = Number(style.getPropertyValue("--strength"));
    this.passages.forEach((passage, rank) => {
      const y = this.#y(passage.highlight[0]);
      const size = rank === this.current ? 5 : 3;
      context.beginPath();
      context.moveTo(0, y - size);
      context.lineTo(size * 1.4, y);
      context.lineTo(0, y + size);
      context.fill();
    });
    context.globalAlpha = 1;
    const place = Math.round((100 * first) / Math.max(1, this.read.text.length));
    this.canvas.setAttribute("aria-valuenow", place);
    this.canvas.setAttribute("aria-valuetext", `${place}%, ${this.text.headingAt(first)}`);
  }

  #char(event) {
    const y = event.clientY - this.canvas.getBoundingClientRect().top;
    return Math.min(1, Math.max(0, y / this.height)) * this.read.text.length;
  }

  #pressed(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.text.jump(this.#char(event), (this.top() + innerHeight) / 2);
    event.preventDefault();
    this.canvas.focus({ preventScroll: true, focusVisible: false });
  }

  #moved(event) {
    if (event.buttons && this.canvas.hasPointerCapture(event.pointerId)) {
      this.text.jump(this.#char(event), (this.top() + innerHeight) / 2);
    }
    const heading = this.text.headingAt(this.#char(event));
    this.tip.hidden = !heading || event.pointerType === "touch";
    this.tip.textContent = heading;
    const box = this.canvas.parentElement.getBoundingClientRect();
    this.tip.style.setProperty("top", `${event.clientY - box.top}px`);
  }

  #key(event) {
    const step = innerHeight - this.top();
    const length = this.read?.text.length ?? 0;
    const here = this.text.charAt(this.top());
    const moves = {
      ArrowUp: () => scrollBy({ top: -step / 2, behavior: "instant" }),
      ArrowDown: () => scrollBy({ top: step / 2, behavior: "instant" }),
      PageUp: () => this.text.jump(Math.max(0, here - length / 10), this.top()),
      PageDown: () => this.text.jump(Math.min(length, here + length / 10), this.top()),
      Home: () => scrollTo({ top: 0, behavior: "instant" }),
      End: () => scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" }),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    moves[event.key]();
    event.preventDefault();
    event.stopPropagation();
  }
}
