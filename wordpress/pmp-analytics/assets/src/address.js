const CAMPAIGN = /^(utm_(source|medium|campaign|term|content)|ref|epik|\w*(cl?k?|fat_)id|.braid|gad_source)$/i;
const PRIVATE = /^(key|code|login|state)$|mail|nonce|pass|phone|secret|token/i;
const ADDRESS_LENGTH = 4096;

/** Truncates a text. Half a surrogate pair would make a whole batch malformed. */
export const clip = (text, length) => String(text ?? '').slice(0, length).replace(/\p{Cs}/gu, '');

/** A page's URL without sensitive parameters: order keys, tokens, e-mail addresses. A fragment stays if it is a route. */
export function address(href) {
  let url;
  try { url = new URL(href); } catch { return ''; }
  for (const name of [...url.searchParams.keys()]) if (PRIVATE.test(name)) url.searchParams.delete(name);
  if (!/^#[/!]/.test(url.hash)) url.hash = '';
  return clip(url, ADDRESS_LENGTH);
}

/** The parameters of a query that identify a campaign or partner; empty if there are none. */
export function campaign(search) {
  return new URLSearchParams([...new URLSearchParams(search)].filter(([name]) => CAMPAIGN.test(name))).toString();
}

/** Campaign parameters under the mesh's names. */
export function utm(query) {
  const found = {};
  for (const [name, value] of new URLSearchParams(query)) if (name.startsWith('utm_')) found[name.slice(4)] = clip(value, 255);
  return found;
}

/** The `data-pmp-*` marks of an element: `data-pmp-course-id` is `course_id`. */
export function marks(element) {
  const found = {};
  for (const [name, value] of Object.entries(element?.dataset ?? {})) {
    const [, mark] = /^pmp(?!Event$)([A-Z].*)/.exec(name) ?? [];
    if (mark) found[mark.replace(/\B[A-Z]/g, '_$&').toLowerCase()] = clip(value, 255);
  }
  return found;
}
