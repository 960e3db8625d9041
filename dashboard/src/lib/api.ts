/** The calls of the page. Their types are generated from the mesh's OpenAPI document. */
import type { components, paths } from "./schema";
import { addressOf, isEmbedded, signsInAgain, passedOn } from "./host";
import { keepAnswer, keptAnswer } from "./kept";

export type Dashboard = components["schemas"]["analytics.GetDashboardResponse"];
export type Figure = components["schemas"]["analytics.Figure"];
export type Ranking = components["schemas"]["analytics.Ranking"];
export type Report = components["schemas"]["analytics.GetReportResponse"];
export type Column = components["schemas"]["analytics.Column"];
export type Books = components["schemas"]["ingestion.GetAccountingResponse"];

export type Destinations = components["schemas"]["destinations.ListDestinationsResponse"];

export type Agreement = components["schemas"]["purchases.GetNewestComparisonResponse"];

export type Attribution = components["schemas"]["journeys.GetAttributionResponse"];
export type Funnel = components["schemas"]["journeys.GetFunnelResponse"];

export type Path = keyof paths & `/api/v1/${"analytics/" | "events/accounting" | "comparisons/" | "destinations" | "attribution" | "funnels"}${string}`;

export interface Query {
  path: Path;
  parameters: Record<string, string>;
  /** Name under which the answer is kept for the time when the mesh does not answer; by default it is not kept. */
  keep?: string;
}

/** The newest comparison of the ledger with the shop. */
export const AGREEMENT: Query = { path: "/api/v1/comparisons/newest", parameters: {}, keep: "agreement" };

/** The systems outside of the mesh that are sent what happens. */
export const DESTINATIONS: Query = { path: "/api/v1/destinations", parameters: {}, keep: "destinations" };

/** Why there is no answer. */
export type Failure =
  | { kind: "signed-out" | "away" }
  | { kind: "busy" | "refused"; message: string };

export type Outcome<T> = { answer: T; at: number; failure?: Failure } | { answer?: undefined; at: 0; failure: Failure };

/** Address of a call. */
export function address(path: Path, parameters: Record<string, string>): string {
  const set = Object.entries(parameters).filter(([, value]) => value !== "");
  return addressOf(path, new URLSearchParams(set).toString());
}

/** Calls the mesh. When it does not answer, the outcome has the last answer, if one was kept. */
export async function ask<T>(query: Query, signal: AbortSignal): Promise<Outcome<T>> {
  const url = address(query.path, query.parameters);
  let failure: Failure;
  try {
    const response = await fetch(url, { signal, headers: { accept: "application/json" } });
    if (response.ok) {
      const answer = (await response.json()) as T;
      const { age, isAway } = passedOn(response);
      if (query.keep && !isEmbedded) keepAnswer(query.keep, answer);
      return { answer, at: Date.now() - age, ...(isAway ? { failure: { kind: "away" } } : {}) };
    }
    failure = await refusal(response);
  } catch (error) {
    if (signal.aborted) throw error;
    failure = { kind: "away" };
  }
  const kept = failure.kind === "away" && query.keep ? keptAnswer<T>(query.keep) : undefined;
  return kept ? { ...kept, failure } : { at: 0, failure };
}

/** Why the mesh answered so. */
export async function refusal(response: Response): Promise<Failure> {
  if (response.status === 401) return { kind: "signed-out" };
  if (response.status >= 500) return { kind: "away" };
  const body = (await response.json().catch(() => ({}))) as { code?: unknown; message?: string };
  if (signsInAgain(body.code)) return { kind: "away" };
  return { kind: response.status === 429 ? "busy" : "refused", message: body.message ?? String(response.status) };
}
