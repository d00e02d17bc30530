/**
 * What the Hub's refusals mean.
 * @module
 */
import { quote } from "../checks.ts";
import {
  type EspalierError,
  GatedRepositoryError,
  HubAnswerError,
  HubFailedError,
  HubFileNotFoundError,
  RateLimitError,
  RepositoryNotFoundError,
  RevisionNotFoundError,
  UnauthorizedError,
} from "../errors.ts";
import { retryAfter } from "../platform/retry_after.ts";
import type { HubReference } from "./reference.ts";

/** What was asked for: messages name it. */
export interface Subject extends HubReference {
  /** Path of the file; without one it was the repository itself. */
  readonly path?: string;
}

/** A request that did not succeed. */
export interface Failure {
  readonly error: EspalierError;
  /** Whether it may go better the next time. */
  readonly passes: boolean;
  /** Seconds after which to ask again, where the server said so. */
  readonly after?: number;
}

/** Who refused, and whom. */
export interface Refusal {
  readonly status: number;
  readonly headers: Headers;
  readonly subject: Subject;
  /** The Hub's address. */
  readonly endpoint: string;
  /** Host that answered. */
  readonly host: string;
  /** Whether that is the Hub, and not a server that it sends files from. */
  readonly isHub: boolean;
  readonly hasToken: boolean;
}

/** The failure that a status stands for. */
export function failureOf(refusal: Refusal): Failure {
  const { status, headers, host, isHub } = refusal;
  const said = headers.get("x-error-message");
  const why = said ? `: it says ${quote(said)}` : "";
  if (status === 429) {
    const after = waitAskedFor(headers);
    const when = after === undefined ? "later" : `in ${after} seconds`;
    const error = new RateLimitError(
      `${host} takes no more requests for now${why}: try again ${when}` +
        (refusal.hasToken ? "" : ", or set HF_TOKEN, which raises the limit"),
    );
    return { error, passes: true, after };
  }
  if (status >= 500 || status === 408) {
    const error = new HubFailedError(`${host} fails with status ${status}${why}: try again later`);
    return { error, passes: true, after: waitAskedFor(headers) };
  }
  if (!isHub) {
    // Addresses of files are signed for some time: from the Hub comes a new one.
    const error = new HubFailedError(
      `${host} refuses ${whatOf(refusal)} with status ${status}${why}`,
    );
    return { error, passes: status === 403 };
  }
  return { error: refusedByHub(refusal, why), passes: false };
}

function refusedByHub(refusal: Refusal, why: string): EspalierError {
  const { status, headers, subject, endpoint, hasToken } = refusal;
  const { repository, revision, path } = subject;
  const code = headers.get("x-error-code");
  const page = `${endpoint}/${repository}`;
  if (code === "GatedRepo") {
    return new GatedRepositoryError(
      `${repository} is gated${why}: accept its licence at ${page}` +
        (hasToken ? ", with the account that the token belongs to" : " and set HF_TOKEN"),
    );
  }
  const isMissing = status === 404 || status === 410;
  if (code === "RevisionNotFound") {
    return new RevisionNotFoundError(
      `${repository} has no revision ${quote(revision)}: see ${page}/tree/main for its branches`,
    );
  }
  // The Hub asks for a token, too, where there is no such repository: who asks shall not learn which.
  if (code === "RepoNotFound" || (isMissing && path === undefined)) {
    return new RepositoryNotFoundError(
      `there is no model ${repository} at ${endpoint}, or it is private: check the name` +
        (hasToken ? ", and that the token may read it" : ", or set HF_TOKEN"),
    );
  }
  if (isMissing) {
    return new HubFileNotFoundError(
      `${repository} at revision ${revision} has no file ${quote(path!)}${why}`,
    );
  }
  if (status === 401 || status === 403) {
    return new UnauthorizedError(
      hasToken
        ? `${endpoint} does not let the token read ${repository}${why}: check HF_TOKEN, or have hf auth login ` +
          "write another one"
        : `${endpoint} wants to know who reads ${repository}${why}: set HF_TOKEN`,
    );
  }
  return new HubAnswerError(
    `${endpoint} answers status ${status} for ${whatOf(refusal)}${why}: check HF_ENDPOINT`,
  );
}

function whatOf({ subject: { repository, path } }: Refusal): string {
  return path === undefined ? repository : `${quote(path)} of ${repository}`;
}

/** Seconds that a server asks to be left alone, at least 0. */
function waitAskedFor(headers: Headers): number | undefined {
  const after = retryAfter(headers);
  if (after !== undefined) return after;
  // The Hub says in how many seconds its window ends: "api";r=0;t=120.
  const window = /(?:^|;)\s*t=(\d{1,9})\b/.exec(headers.get("ratelimit") ?? "");
  return window ? Number(window[1]) : undefined;
}
