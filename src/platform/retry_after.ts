/** What an answer says about when to ask again. @module */

/** Seconds that a server asks to be left alone (`Retry-After`, RFC 9110), at least 0; undefined where it says nothing. */
export function retryAfter(headers: Headers): number | undefined {
  const after = headers.get("retry-after")?.trim();
  if (!after) return undefined;
  if (/^\d{1,9}$/.test(after)) return Number(after);
  const date = Date.parse(after);
  return Number.isNaN(date) ? undefined : Math.max(0, Math.ceil((date - Date.now()) / 1000));
}
