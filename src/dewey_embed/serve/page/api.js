// Requests to this server: errors become one line, a busy server is asked again, a key is kept.

const KEY = "dewey-key";
const RETRIES = 5;

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let askForKey = async () => null;
export function onLocked(handler) {
  askForKey = handler;
}

let onWaiting = () => {};
export function onBusy(handler) {
  onWaiting = handler;
}

export async function pause(seconds, signal) {
  onWaiting(seconds);
  await new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
  onWaiting(0);
}

export function retryAfter(value) {
  const seconds = Number(value);
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, 60) : 2;
}

async function refusal(response) {
  let message = "";
  try {
    const body = await response.json();
    const said = body.error?.message ?? body.error ?? body.detail ?? body.message;
    if (typeof said === "string") message = said;
  } catch {
    // not JSON: a proxy, say
  }
  return new Refused(message || `the server answers ${response.status}`, response.status);
}

export async function request(path, options = {}) {
  for (let attempt = 0; ; attempt++) {
    const headers = { ...options.headers };
    const key = sessionStorage.getItem(KEY);
    if (key) headers.Authorization = `Bearer ${key}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("the server cannot be reached; is dewey serve still running?", 0);
    }
    if (response.ok) return response;
    if (response.status === 401 && attempt < RETRIES) {
      const given = await askForKey();
      if (!given) throw await refusal(response);
      sessionStorage.setItem(KEY, given);
    } else if (response.status === 429 && attempt < RETRIES) {
      await pause(retryAfter(response.headers.get("Retry-After")), options.signal);
    } else {
      throw await refusal(response);
    }
  }
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

export function json(body, options = {}) {
  return {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    ...options,
  };
}

// The states of a document that is being read, as the server writes them: a line of JSON each.
export async function* states(path, options) {
  const response = await request(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) yield JSON.parse(line);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the connection to the server broke off; open the document again", 0);
  } finally {
    reader.cancel().catch(() => {});
  }
}
