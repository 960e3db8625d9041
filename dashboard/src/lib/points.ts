/** The points of a chart: hours, days or months, in the reader's locale. */
import type { Dashboard } from "./api";
import { dayName, locale, shortDayName } from "./format";

export type Point = Dashboard["series"][number];

const hours = new Intl.DateTimeFormat(locale, { timeStyle: "short", timeZone: "UTC" });
const longMonth = new Intl.DateTimeFormat(locale, { month: "long", year: "numeric", timeZone: "UTC" });
const shortMonth = new Intl.DateTimeFormat(locale, { month: "short", year: "2-digit", timeZone: "UTC" });

export function pointName(point: Point, grain: string): string {
  if (grain === "hour") return `${dayName(point.day)}, ${hourName(point)}`;
  return grain === "month" ? longMonth.format(new Date(point.day)) : dayName(point.day);
}

export function shortPointName(point: Point | undefined, grain: string): string {
  if (!point) return "";
  if (grain === "hour") return hourName(point);
  return grain === "month" ? shortMonth.format(new Date(point.day)) : shortDayName(point.day);
}

/** The point in a file: its hour with the offset, or its day. */
export function pointKey(point: Point | undefined): string | undefined {
  return point?.hour || point?.day;
}

/** The hour where the shop is, whatever the reader's own time zone. */
function hourName(point: Point): string {
  return hours.format(new Date(`${point.hour.slice(0, "YYYY-MM-DDTHH:MM".length)}Z`));
}
