/** An answer of the mesh that follows its query. */
import { untrack } from "svelte";
import { ask, type Failure, type Query } from "./api";

const RETRY_MILLISECONDS = 30_000;
const FRESH_MILLISECONDS = 60_000;

export class Resource<T> {
  /** The newest answer; while another one is awaited, the one before. */
  answer = $state.raw<T>();
  /** When the answer was received. */
  at = $state(0);
  failure = $state.raw<Failure>();
  loading = $state(true);
  #round = $state(0);

  /** Asks whenever the query changes, again while the mesh is away, and when the reader comes back to the page. */
  constructor(query: () => Query | undefined) {
    $effect(() => {
      const asked = query();
      void this.#round;
      if (!asked) return undefined;
      const stop = new AbortController();
      let timer = 0;
      untrack(() => (this.loading = true));
      void ask<T>(asked, stop.signal).then(
        (outcome) => {
          this.answer = outcome.answer;
          this.at = outcome.at;
          this.failure = outcome.failure;
          this.loading = false;
          if (outcome.failure?.kind === "away") timer = window.setTimeout(() => this.again(), RETRY_MILLISECONDS);
        },
        () => undefined,
      );
      return () => {
        stop.abort();
        window.clearTimeout(timer);
      };
    });
    $effect(() => {
      const comeBack = (): void => {
        if (document.visibilityState === "visible" && this.at && Date.now() - this.at > FRESH_MILLISECONDS) this.again();
      };
      document.addEventListener("visibilitychange", comeBack);
      return () => document.removeEventListener("visibilitychange", comeBack);
    });
  }

  again(): void {
    this.#round += 1;
  }
}
