/** What happens now: the figures of the moment and the newest events and orders, at a pace that can be read. */
import type { Failure } from "./api";
import type { EventsResponse, LiveMessage, Moment } from "./realtime";
import { type Connection, Stream } from "./stream.svelte";
import { text } from "./texts";

const PACE_MILLISECONDS = 250;
/** A screen reader is not interrupted more often, nor by a connection that is back at once. */
const SPOKEN_MILLISECONDS = 10_000;
const LASTING_MILLISECONDS = 3_000;
const MOST_EVENTS = 30;
const MOST_ORDERS = 10;
/** From the worst to the best. */
const CONNECTIONS: readonly Connection[] = ["reconnecting", "delayed", "connecting", "connected"];

interface Shown {
  moment: Moment;
  events: readonly LiveMessage[];
  orders: readonly LiveMessage[];
  /** Since when the lists lack nothing but the oldest, in milliseconds since 1970. */
  since: number;
  /** Messages that were left out since then, because they came too quickly. */
  missed: number;
}

const NOTHING: Shown = { moment: {}, events: [], orders: [], since: 0, missed: 0 };

export class Live {
  shown = $state.raw<Shown>(NOTHING);
  paused = $state(false);
  /** Number of events and orders that arrived during the pause. */
  waiting = $state(0);
  /** What a screen reader says. */
  spoken = $state("");
  #hidden = $state(document.visibilityState === "hidden");
  #newest = NOTHING;
  #arrived = 0;
  #orders = 0;
  #spokenAt = 0;
  #spokenConnection: Connection = "connected";
  readonly #events: Stream<EventsResponse>;
  readonly #moments: Stream<Moment>;
  readonly connection = $derived.by(() => {
    const both = [this.#events.connection, this.#moments.connection];
    return CONNECTIONS.find((each) => both.includes(each)) ?? "connected";
  });
  #connectionSince = 0;

  constructor() {
    const wanted = (): boolean => !this.#hidden;
    this.#events = new Stream({ path: "/api/v1/realtime/events", wanted, begun: () => this.#begin(), receive: (each) => this.#take(each) });
    this.#moments = new Stream({
      path: "/api/v1/realtime/dashboard",
      wanted,
      receive: (changes: Moment) => (this.#newest = { ...this.#newest, moment: { ...this.#newest.moment, ...changes } }),
    });
    $effect(() => {
      void this.connection;
      this.#connectionSince = Date.now();
    });
    $effect(() => {
      const turned = (): void => void (this.#hidden = document.visibilityState === "hidden");
      const timer = window.setInterval(() => this.#show(), PACE_MILLISECONDS);
      document.addEventListener("visibilitychange", turned);
      return () => {
        window.clearInterval(timer);
        document.removeEventListener("visibilitychange", turned);
      };
    });
  }

  get failure(): Failure | undefined {
    return this.#events.failure ?? this.#moments.failure;
  }

  again(): void {
    this.#events.again();
    this.#moments.again();
  }

  pause(): void {
    this.paused = !this.paused;
    this.#show();
  }

  #begin(): void {
    this.#newest = { ...NOTHING, moment: this.#newest.moment, since: Date.now() };
  }

  #take({ messages = [], missed, trimmed }: EventsResponse): void {
    if (trimmed) this.#begin();
    let { events, orders } = this.#newest;
    for (const each of messages) {
      const { event, order } = each;
      if (event && !event.is_bot && !event.is_update) {
        const others = events.filter((known) => known.event?.id !== event.id);
        events = [each, ...others.slice(0, MOST_EVENTS - 1)];
        this.#arrived += 1;
      }
      if (order) {
        const others = orders.filter((known) => known.order?.purchase_id !== order.purchase_id);
        if (others.length === orders.length) this.#orders += 1;
        orders = [each, ...others.slice(0, MOST_ORDERS - 1)];
        this.#arrived += 1;
      }
    }
    this.#newest = { ...this.#newest, events, orders, missed: this.#newest.missed + Number(missed ?? 0) };
  }

  #show(): void {
    if (this.paused) {
      this.waiting = this.#arrived;
      return;
    }
    this.waiting = this.#arrived = 0;
    this.shown = this.#newest;
    this.#speak();
  }

  #speak(): void {
    const now = Date.now();
    const isLasting = this.connection !== this.#spokenConnection && now - this.#connectionSince > LASTING_MILLISECONDS;
    if (now - this.#spokenAt < SPOKEN_MILLISECONDS || !(isLasting || this.#orders)) return;
    const connection = isLasting ? text.connection[this.connection] : "";
    this.spoken = [connection, this.#orders ? text.newOrders(this.#orders) : ""].filter(Boolean).join(" ");
    this.#spokenAt = now;
    this.#orders = 0;
    if (isLasting) this.#spokenConnection = this.connection;
  }
}
