/** What the page shows, as its address says: every view can be shared and is found again by the browser's history. */
import { isDay, PRESETS, type Preset } from "./days";
import { isOffered, outer } from "./host";

const ALL_VIEWS = ["overview", "live", "acquisition", "products", "journeys", "customers", "affiliates", "health"] as const;
export type View = (typeof ALL_VIEWS)[number];
export const VIEWS: readonly View[] = ALL_VIEWS.filter(isOffered);
export const METRICS = ["net_revenue", "orders", "visitors", "sessions", "page_views"] as const;
export type Metric = (typeof METRICS)[number];
/** Models of attribution. */
export const MODELS = ["last_non_direct", "first_touch", "last_touch", "linear", "position_based", "time_decay", "markov"] as const;
export type Model = (typeof MODELS)[number];

export interface Shown {
  view: View;
  range: Preset | "custom";
  /** First and last day of a custom range. */
  from: string;
  to: string;
  metric: Metric;
  /** Group of the view's report; empty for its first one. */
  by: string;
  /** The report that is sorted and searched; empty for the view's first one. */
  of: string;
  sort: string;
  filter: string;
  model: Model;
  /** Steps of the reader's own funnel, separated by commas; empty for the first ones. */
  steps: string;
}

const FIRST: Shown = { view: "overview", range: "30d", from: "", to: "", metric: "net_revenue", by: "", of: "", sort: "", filter: "", model: "last_non_direct", steps: "" };

function one<T extends string>(known: readonly T[], found: string | null, otherwise: T): T {
  return known.find((each) => each === found) ?? otherwise;
}

export function read(search: string): Shown {
  const given = new URLSearchParams(search);
  const [from, to] = [given.get("from") ?? "", given.get("to") ?? ""];
  const custom = isDay(from) && isDay(to);
  return {
    view: one(VIEWS, given.get("view"), FIRST.view),
    range: custom ? "custom" : one(PRESETS, given.get("range"), "30d"),
    from: custom ? from : "",
    to: custom ? to : "",
    metric: one(METRICS, given.get("metric"), FIRST.metric),
    by: given.get("by") ?? "",
    of: given.get("of") ?? "",
    sort: given.get("sort") ?? "",
    filter: given.get("filter") ?? "",
    model: one(MODELS, given.get("model"), FIRST.model),
    steps: given.get("steps") ?? "",
  };
}

/** The address of what is shown. Parameters of others stay, such as the name of WordPress's page. */
export function write(shown: Shown): string {
  const others = [...new URLSearchParams(outer.location.search)].filter(([key]) => !(key in FIRST));
  const own = Object.entries(shown).filter(([key, value]) => value !== FIRST[key as keyof Shown] && value !== "custom");
  const query = new URLSearchParams([...others, ...own]).toString();
  return outer.location.pathname + (query && `?${query}`);
}

let current = $state.raw(read(outer.location.search));
outer.addEventListener("popstate", () => (current = read(outer.location.search)));

export const shown = {
  get now(): Shown {
    return current;
  },
};

/** Another view has its own groups, and keeps the range. */
export function changed(change: Partial<Shown>): Shown {
  const fresh = change.view && change.view !== current.view ? { by: "", of: "", sort: "", filter: "", model: FIRST.model, steps: "" } : change.by ? { of: "", sort: "", filter: "" } : {};
  const range = change.range && change.range !== "custom" ? { from: "", to: "" } : {};
  return { ...current, ...fresh, ...range, ...change };
}

export function go(change: Partial<Shown>, replace = false): void {
  current = changed(change);
  outer.history[replace ? "replaceState" : "pushState"](null, "", write(current));
}

/** Follows a link within the page, unless the reader opens it elsewhere. */
export function follow(event: MouseEvent, change: Partial<Shown>): void {
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(change);
}
