/** What the mesh's streams send. Of each object, fields that are empty are left out. */
export interface LiveEvent {
  id: string;
  page_url?: string;
  course?: string;
  source?: string;
  is_bot?: boolean;
  is_update?: boolean;
}

export interface LiveOrder {
  purchase_id: string;
  order_id?: string;
  payment_status: string;
  currency: string;
  /** A decimal number, like all amounts. */
  amount: string;
  lines?: { product_id: string; product_name?: string; quantity: number }[];
  excluded?: boolean;
}

export interface LiveMessage {
  type: string;
  timestamp: string;
  event?: LiveEvent;
  order?: LiveOrder;
}

export interface EventsResponse {
  messages?: LiveMessage[];
  /** Number of messages, as a text. */
  missed?: string;
  trimmed?: boolean;
}

/** The source of visits without one. */
export const DIRECT = "direct";

export interface Ranked {
  label: string;
  count: number;
}

/** The figures of the moment; a response lacks those that did not change. */
export interface Moment {
  visitors?: number;
  page_views_per_minute?: number;
  orders_per_minute?: number;
  orders_today?: number;
  revenue_today?: { amounts?: { currency: string; amount: string }[] };
  top_pages?: { rows?: Ranked[] };
  top_sources?: { rows?: Ranked[] };
}
