const PREFIX = 'pmp.';

/** An id as the mesh takes it. Pages without TLS have no `randomUUID`. */
export const newId = () => crypto.randomUUID?.()
  ?? [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join('-');

/** Values that outlive the page; where the browser refuses to store, they live as long as the page does. */
export class Store {
  #memory = new Map();
  #area;

  /** @param {() => Storage} open the area; asking for it throws where storage is switched off */
  constructor(open) {
    try { this.#area = open(); } catch { /* memory has to do */ }
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

  /** The names that begin so, sorted. */
  names(start) {
    return [...Object.keys(this.#area ?? {}), ...this.#memory.keys()]
      .filter((key) => key.startsWith(PREFIX + start)).map((key) => key.slice(PREFIX.length)).sort();
  }
}
