/** A table of the page as a CSV file (RFC 4180). */
type Cell = string | number | null | undefined;

export function saveCsv(name: string, rows: readonly (readonly Cell[])[]): void {
  const body = rows.map((row) => row.map(cell).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${body}\r\n`], { type: "text/csv;charset=utf-8" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function cell(value: Cell): string {
  const shown = String(value ?? "");
  // A spreadsheet would run it as a formula.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(shown) ? `'${shown}` : shown;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
