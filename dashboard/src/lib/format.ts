/** Numbers, amounts and days in the reader's locale. */
import { language, text } from "./texts";

/** The reader's own region, if it has the page's language. */
export const locale = navigator.languages.find((each) => each.split("-")[0] === language) ?? language;

const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const ratio = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1 });
const change = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0, signDisplay: "exceptZero" });
const points = new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1, signDisplay: "exceptZero" });
const longDay = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeZone: "UTC" });
const shortDay = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", timeZone: "UTC" });
const clock = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
const time = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });
const month = new Intl.DateTimeFormat(locale, { month: "short", year: "numeric", timeZone: "UTC" });
const regions = new Intl.DisplayNames(locale, { type: "region" });
const fraction = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
const amounts = new Map<string, Intl.NumberFormat>();

export type Value = string | number | null | undefined;

export function isCurrency(unit: string): boolean {
  return /^[A-Z]{3}$/.test(unit);
}

/** An amount, or a number of what the unit says. */
export function shownValue(value: Value, unit: string): string {
  if (value === null || value === undefined || value === "") return "–";
  if (unit === "text") return String(value);
  if (unit === "day") return dayName(String(value));
  const number = Number(value);
  if (unit === "ratio") return ratio.format(number);
  if (unit === "seconds") return duration(number);
  if (isCurrency(unit)) return amount(number, unit);
  return whole.format(number);
}

export function amount(value: number, currency: string): string {
  let format = amounts.get(currency);
  if (!format) amounts.set(currency, (format = new Intl.NumberFormat(locale, { style: "currency", currency })));
  return format.format(value);
}

/** A label of an axis: an amount without decimals. */
export function axisLabel(value: number, unit: string): string {
  if (!isCurrency(unit)) return whole.format(value);
  return new Intl.NumberFormat(locale, { style: "currency", currency: unit, maximumFractionDigits: value % 1 ? 2 : 0 }).format(value);
}

/** The change from one value to another: points of a rate, else percent; undefined where there is none to state. */
export function shownChange(value: Value, before: Value, unit: string): string | undefined {
  if (value === null || value === undefined || before === null || before === undefined) return undefined;
  const [now, then] = [Number(value), Number(before)];
  if (unit === "ratio") return text.points(points.format((now - then) * 100));
  return then === 0 ? undefined : change.format((now - then) / Math.abs(then));
}

export function dayName(day: string): string {
  return isDate(day) ? longDay.format(new Date(day)) : day;
}

export function shortDayName(day: string): string {
  return isDate(day) ? shortDay.format(new Date(day)) : day;
}

/** A month, YYYY-MM. */
export function monthName(of: string): string {
  return /^\d{4}-\d\d$/.test(of) ? month.format(new Date(of)) : of;
}

/** A value of a dimension: days, months and countries by their names, others as they are. */
export function valueName(dimension: string, value: string): string {
  if (dimension === "country" && /^[A-Z]{2}$/.test(value)) return regions.of(value) ?? value;
  return dimension === "day" ? dayName(value) : dimension === "month" ? monthName(value) : value;
}

function isDate(day: string): boolean {
  return /^\d{4}-\d\d-\d\d$/.test(day);
}

export function moment(at: number): string {
  return clock.format(new Date(at));
}

/** A number of parts, such as 1.4 orders. */
export function parts(value: number): string {
  return fraction.format(value);
}

/** Seconds of a duration of the mesh, such as `1.5s`; undefined without one. */
export function secondsOf(duration: string | null | undefined): number | undefined {
  return duration ? Number.parseFloat(duration) : undefined;
}

/** The time of day; given a moment in RFC 3339, or in milliseconds since 1970. */
export function clockTime(at: string | number): string {
  return time.format(new Date(at));
}

/** A page by its path, as a reader of the shop knows it. */
export function pathOf(url: string): string {
  if (!URL.canParse(url)) return url;
  const { pathname } = new URL(url);
  try {
    return decodeURI(pathname);
  } catch {
    return pathname;
  }
}

export function age(at: number): string {
  const minutes = Math.round((Date.now() - at) / 60_000);
  if (minutes < 60) return relative.format(-minutes, "minute");
  return minutes < 2880 ? relative.format(-Math.round(minutes / 60), "hour") : relative.format(-Math.round(minutes / 1440), "day");
}

function duration(seconds: number): string {
  const rounded = Math.round(seconds);
  const [minutes, rest] = [Math.floor(rounded / 60), rounded % 60];
  return minutes ? text.minutes(whole.format(minutes), String(rest)) : text.seconds(String(rest));
}
