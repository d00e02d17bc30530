/**
 * What a web server's answer says of a file.
 * @module
 */

/** Bytes in which it shows that something is a page. */
const LONGEST_START = 4096;
/** What a page begins with: some servers call all that they do not know text/html. */
const PAGE = /^\s*(<!--((?!-->)[^])*-->\s*)*<(!doctype\s+html|html)\b/i;

/** What a partial answer says it is; nothing where it says nothing usable. */
export function rangeOf(
  response: Response,
): { first: number; last: number; size: number } | undefined {
  const header = response.headers.get("content-range") ?? "";
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(header);
  if (response.status !== 206 || !match) return undefined;
  const [first, last, size] = match.slice(1).map(Number);
  return { first, last, size };
}

/** Bytes that an answer announces; nothing where it is compressed, or does not say. */
export function lengthOf({ headers }: Response): number | undefined {
  const length = headers.get("content-length") ?? "";
  const isPlain = (headers.get("content-encoding") ?? "identity") === "identity";
  return isPlain && /^\d{1,15}$/.test(length) ? Number(length) : undefined;
}

/** Whether it calls itself a page, which some servers do of all that they do not know. */
export function isHtml({ headers }: Response): boolean {
  return /^text\/html\b/i.test(headers.get("content-type") ?? "");
}

/** Whether a file begins as a page does. */
export function startsPage(bytes: Uint8Array): boolean {
  return PAGE.test(new TextDecoder().decode(bytes.subarray(0, LONGEST_START)));
}

/** Takes no more of it. */
export async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => {});
}
