/**
 * Formats of strings, as patterns.
 * @module
 */
import { regexes } from "zod/v4/core";

const DATE = "\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|" +
  "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))";
const TIME =
  "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";
const DIGITS = "\\d{1,9}";
/** Of a duration: what is there follows without a gap, as RFC 3339 has it. */
const MONTH_ON = `${DIGITS}M(?:${DIGITS}D)?`;
const YEAR_ON = `${DIGITS}Y(?:${MONTH_ON})?`;
const MINUTE_ON = `${DIGITS}M(?:${DIGITS}S)?`;
const TIME_OF = `T(?:${DIGITS}H(?:${MINUTE_ON})?|${MINUTE_ON}|${DIGITS}S)`;
const BYTE = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
/** A part of a host's name. Two hyphens together say that it is encoded, which some readers then check. */
const LABEL = "[A-Za-z0-9]{1,20}(?:-[A-Za-z0-9]{1,20}){0,2}";
/** Ends a host's name: numbers at the end are those of an address. */
const TOP = "[A-Za-z]{2,10}";
const GROUP = "[0-9a-fA-F]{1,4}";
const SEGMENT = "[A-Za-z0-9._~-]{1,40}";
const WORDS = "[A-Za-z0-9_+-]{1,30}";

/**
 * The patterns of formats. All that matches has the format; not all that has it matches: no
 * February 29, no leap second, no quoted part of an address, no groups of zeros left out, and of URIs only those
 * of the web, with a host's name.
 */
export const FORMATS: ReadonlyMap<string, string> = new Map([
  ["date", `^${DATE}$`],
  ["time", `^${TIME}$`],
  ["date-time", `^${DATE}T${TIME}$`],
  ["duration", `^P(?:${DIGITS}W|(?:${YEAR_ON}|${MONTH_ON}|${DIGITS}D)(?:${TIME_OF})?|${TIME_OF})$`],
  ["email", `^${WORDS}(?:\\.${WORDS}){0,3}@(?:${LABEL}\\.){1,3}${TOP}$`],
  ["hostname", `^${LABEL}(?:\\.${LABEL}){0,3}$`],
  ["ipv4", `^${BYTE}(?:\\.${BYTE}){3}$`],
  ["ipv6", `^${GROUP}(?::${GROUP}){7}$`],
  [
    "uri",
    `^https?://(?:${LABEL}\\.){1,3}${TOP}(?::[1-9]\\d{0,3})?(?:/${SEGMENT}){0,5}/?` +
    `(?:\\?${SEGMENT}=${SEGMENT}(?:&${SEGMENT}=${SEGMENT}){0,3})?(?:#${SEGMENT})?$`,
  ],
  ["uuid", "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"],
]);

/** A digit of base64. */
const SIXTY_FOUR = "[A-Za-z0-9+/]";
/**
 * The patterns of encodings of bytes, by the names that `contentEncoding` has for them: bits that belong to no byte
 * are 0, as strict readers ask, and `base64url` has no `=` at its end.
 */
export const ENCODINGS: ReadonlyMap<string, string> = new Map([
  ["base16", "^(?:[0-9A-F]{2})*$"],
  [
    "base32",
    "^(?:[A-Z2-7]{8})*(?:[A-Z2-7][AEIMQUY4]={6}|[A-Z2-7]{3}[AQ]={4}|" +
    "[A-Z2-7]{4}[ACEGIKMOQSUWY246]={3}|[A-Z2-7]{6}[AIQY]=)?$",
  ],
  [
    "base64",
    `^(?:${SIXTY_FOUR}{4})*(?:${SIXTY_FOUR}[AQgw]==|${SIXTY_FOUR}{2}[AEIMQUYcgkosw048]=)?$`,
  ],
  ["base64url", "^(?:[\\w-]{4})*(?:[\\w-][AQgw]|[\\w-]{2}[AEIMQUYcgkosw048])?$"],
]);

/**
 * Patterns that zod writes beside formats, of which they say more than these do: they look ahead in their middle, or
 * take more states than there may be.
 */
export const SAID_BY_FORMATS: ReadonlyMap<string, string> = new Map([
  ["duration", regexes.duration.source],
  ["hostname", regexes.hostname.source],
]);

/** The formats of JSON Schema, those that no pattern is known of included. */
export const STANDARD_FORMATS: ReadonlySet<string> = new Set([
  ...FORMATS.keys(),
  ..."idn-email idn-hostname uri-reference iri iri-reference uri-template".split(" "),
  ..."json-pointer relative-json-pointer regex".split(" "),
]);
