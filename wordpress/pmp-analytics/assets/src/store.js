const PREFIX = 'pmp.';

/** A new id in the mesh's format. Pages without TLS have no `randomUUID`. */
export const newId = () => crypto.randomUUID?.()
  ?? [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join('-');

/** Values that outlive the page or, if the browser refuses to store them, live as long as the page. */
export class Store {
  #memory = new Map();
  #area;

  /** @param {() => Storage} open returns the area; throws if storage is disabled */
  constructor(open) {
    try { this.#area = open(); } catch { /* falls back to memory */ }
  }

  get(name) {
    const key = PREFIX + name;
    try { return JSON.parse(this.#memory.get(key) ?? this.#area.getItem(key)); } catch { return null; }
  }

  set(name, value) {
    const key = PREFIX + name;
    const text = JSON.stringify(value);
    try {
      this.#area.setItem(key, text);
      this.#memory.delete(key);
    } catch { this.#memory.set(key, text); }
  }

  remove(name) {
    const key = PREFIX + name;
    this.#memory.delete(key);
    this.#area?.removeItem(key);
  }

  /** The names with this prefix, sorted. */
  names(start) {
    return [...Object.keys(this.#area ?? {}), ...this.#memory.keys()]
      .filter((key) => key.startsWith(PREFIX + start)).map((key) => key.slice(PREFIX.length)).sort();
  }
}
