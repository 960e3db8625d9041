/** Periods of whole days, YYYY-MM-DD, in the shop's time zone. */
export interface Period {
  from: string;
  to: string;
}

export const PRESETS = ["today", "7d", "30d", "month", "12m"] as const;
export type Preset = (typeof PRESETS)[number];

/** Today in a time zone. */
export function today(zone: string | undefined): string {
  // The format of Canada's English is that of ISO 8601.
  return new Intl.DateTimeFormat("en-CA", { dateStyle: "short", ...(zone ? { timeZone: zone } : {}) }).format(new Date());
}

export function periodOf(preset: Preset, now: string): Period {
  switch (preset) {
    case "today":
      return { from: now, to: now };
    case "7d":
      return { from: moved(now, -6), to: now };
    case "30d":
      return { from: moved(now, -29), to: now };
    case "month":
      return { from: `${now.slice(0, 8)}01`, to: now };
    case "12m":
      return { from: moved(now, -364), to: now };
  }
}

export function isDay(text: string): boolean {
  return /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(Date.parse(text));
}

/** From the beginning of a period's first day to the end of its last one, in RFC 3339, for calls that take times. */
export function moments({ from, to }: Period, zone: string | undefined): { from: string; to: string } {
  return isDay(from) && isDay(to) ? { from: beginning(from, zone), to: beginning(moved(to, 1), zone) } : { from, to };
}

function beginning(day: string, zone: string | undefined): string {
  const midnight = (offset: string): string => `${day}T00:00:00${offset}`;
  // The zone's offset at midnight there, which may differ from that at midnight in UTC.
  return midnight(offsetAt(midnight(offsetAt(midnight("Z"), zone)), zone));
}

function offsetAt(at: string, zone: string | undefined): string {
  const format = new Intl.DateTimeFormat("en", { timeZoneName: "longOffset", ...(zone ? { timeZone: zone } : {}) });
  const name = format.formatToParts(new Date(at)).find((each) => each.type === "timeZoneName")?.value ?? "GMT";
  return name.slice(3) || "Z";
}

function moved(day: string, days: number): string {
  return new Date(Date.parse(day) + days * 86_400_000).toISOString().slice(0, 10);
}
