/** The last figures, kept in the browser for the time when the mesh does not answer. Reports are never kept: they may name persons. */
const KEY = "pmp.kept";
const MOST = 8;

export interface Kept<T> {
  /** When it was received, in milliseconds since 1970. */
  at: number;
  answer: T;
}

export function keepAnswer(name: string, answer: unknown): void {
  const others = Object.entries(readAll()).filter(([key]) => key !== name);
  const newest = others.sort(([, a], [, b]) => b.at - a.at).slice(0, MOST - 1);
  localStorage.setItem(KEY, JSON.stringify(Object.fromEntries([...newest, [name, { at: Date.now(), answer }]])));
}

export function keptAnswer<T>(name: string): Kept<T> | undefined {
  return readAll()[name] as Kept<T> | undefined;
}

export function forgetAnswers(): void {
  localStorage.removeItem(KEY);
}

function readAll(): Record<string, Kept<unknown>> {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}") as Record<string, Kept<unknown>>;
  } catch {
    return {};
  }
}
