/**
 * The page that shows this one in a frame: one of WordPress's admin, whose plugin passes calls on to the mesh. Its frame says how,
 * in attributes `data-`: `rest` is the address before a path of the mesh, `nonce` proves to WordPress that its own page asks, and
 * `language` is the reader's.
 *
 * Without such a frame the mesh serves the page itself, and nobody else can show it.
 */
const frame = (window.frameElement as HTMLElement | null)?.dataset;
const rest = frame?.["rest"];

/** Whether the page is shown within WordPress, where WordPress signs readers in and keeps the last figures. */
export const isEmbedded = rest !== undefined;

/** The window whose address says what is shown. */
export const outer: Window = isEmbedded ? window.parent : window;

/** The language of WordPress's reader; empty where the browser decides. */
export const hostLanguage = frame?.["language"] ?? "";

/** Whether a view is there: WordPress passes no streams on, and without them nothing is live. */
export function isOffered(view: string): boolean {
  return !isEmbedded || view !== "live";
}

/** Address of a call, relative to the page, so that the mesh may be served below a path. */
export function addressOf(path: string, query: string): string {
  if (rest === undefined) return `${path.slice(1)}?${query}`;
  // Where WordPress has no pretty addresses, the route is a part of the query.
  const route = rest + path;
  return `${route}${route.includes("?") ? "&" : "?"}${query}&_wpnonce=${frame?.["nonce"] ?? ""}`;
}

/** What WordPress says with an answer: its age in milliseconds, and whether the mesh is away, so that it is the last one. */
export function passedOn(response: Response): { age: number; isAway: boolean } {
  const nonce = response.headers.get("x-wp-nonce");
  if (frame && nonce) frame["nonce"] = nonce;
  return { age: 1000 * Number(response.headers.get("x-pmp-age") ?? 0), isAway: response.headers.has("x-pmp-away") };
}

/** Lets WordPress ask its reader to sign in again when it does not accept the page's proof any more; true if so. */
export function signsInAgain(code: unknown): boolean {
  if (!isEmbedded || code !== "rest_cookie_invalid_nonce") return false;
  outer.location.reload();
  return true;
}
