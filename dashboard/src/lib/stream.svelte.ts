/** A stream of the mesh as server-sent events, which is opened again where it was left. */
import { type Failure, refusal } from "./api";

/** The mesh sends something every 15 seconds at least. */
const DELAYED_MILLISECONDS = 25_000;
const LOST_MILLISECONDS = 60_000;
const AGAIN_MILLISECONDS = 5_000;
/** A stream that was left for longer begins anew: what happened meanwhile may be more than a page can read. */
const STALE_MILLISECONDS = 300_000;

/** Delayed: nothing arrives, not even what a stream sends while nothing happens. */
export type Connection = "connecting" | "connected" | "delayed" | "reconnecting";

interface Options<T> {
  path: `/api/v1/realtime/${string}`;
  /** Whether the stream should be open. */
  wanted: () => boolean;
  /** Is called before the first response of a stream that does not continue an earlier one. */
  begun?: () => void;
  receive: (response: T) => void;
}

export class Stream<T> {
  connection = $state<Connection>("connecting");
  /** Why the mesh refuses the stream. */
  failure = $state.raw<Failure>();
  readonly #options: Options<T>;
  #source: EventSource | undefined;
  #asking: AbortController | undefined;
  #timer = 0;
  #cursor = "";
  #left = 0;

  constructor(options: Options<T>) {
    this.#options = options;
    $effect(() => {
      if (!options.wanted()) return undefined;
      this.#open();
      return () => this.#close();
    });
  }

  /** Opens the stream anew. */
  again(): void {
    this.#close();
    this.#open();
  }

  #address(): string {
    const query = this.#cursor ? `?${new URLSearchParams({ since: this.#cursor }).toString()}` : "";
    return `${this.#options.path.slice(1)}${query}`;
  }

  #open(): void {
    if (Date.now() - this.#left > STALE_MILLISECONDS) this.#cursor = "";
    if (!this.#cursor) this.#options.begun?.();
    const source = (this.#source = new EventSource(this.#address()));
    source.onopen = () => this.#heard();
    source.onmessage = (event: MessageEvent<string>) => {
      this.#heard();
      this.#cursor = event.lastEventId;
      this.#options.receive(JSON.parse(event.data) as T);
    };
    source.onerror = () => {
      window.clearTimeout(this.#timer);
      this.connection = "reconnecting";
      // After an answer that is no stream the browser gives up; otherwise it comes back by itself.
      if (source.readyState === EventSource.CLOSED) void this.#ask();
    };
  }

  #close(): void {
    this.#source?.close();
    this.#asking?.abort();
    window.clearTimeout(this.#timer);
    this.#left = Date.now();
  }

  #heard(): void {
    this.connection = "connected";
    this.failure = undefined;
    window.clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => {
      this.connection = "delayed";
      this.#timer = window.setTimeout(() => this.again(), LOST_MILLISECONDS - DELAYED_MILLISECONDS);
    }, DELAYED_MILLISECONDS);
  }

  /** Asks why there is no stream, which the browser does not say, and opens it again later. */
  async #ask(): Promise<void> {
    const asking = (this.#asking = new AbortController());
    let failure: Failure | undefined;
    try {
      const response = await fetch(this.#address(), { signal: asking.signal });
      if (!response.ok) failure = await refusal(response);
    } catch {
      failure = { kind: "away" };
    }
    if (asking.signal.aborted) return;
    asking.abort();
    this.failure = failure;
    // The cursor may be that of another mesh.
    if (failure?.kind === "refused") this.#cursor = "";
    if (failure?.kind !== "signed-out") this.#timer = window.setTimeout(() => this.again(), failure ? AGAIN_MILLISECONDS : 0);
  }
}
