/**
 * What a model of the Hugging Face Hub is called on a command line: `hf:owner/name[@revision]`.
 * @module
 */
import { quote } from "../checks.ts";
import { UsageError } from "../errors.ts";

/** What such a word begins with; a folder of that name is `./hf:…`. */
const PREFIX = "hf:";
/** Characters of the longest name of a repository, with its owner. */
const LONGEST_NAME = 96;
/** Characters of the longest revision: it becomes the name of a file. */
const LONGEST_REVISION = 200;

/** A model of the Hub. */
export interface HubReference {
  /** `owner/name`. */
  readonly repository: string;
  /** A branch, a tag, a pull request (`refs/pr/1`) or a commit. */
  readonly revision: string;
}

/** Whether a word names a model of the Hub, rightly or not. */
export function isHubReference(word: unknown): word is string {
  return typeof word === "string" && word.startsWith(PREFIX);
}

/**
 * Reads `hf:owner/name[@revision]`; the revision is `main` where none is given.
 *
 * Owner, name and revision become parts of paths and of URLs: what could lead elsewhere is no name.
 *
 * @throws {UsageError} For what is none.
 */
export function parseReference(word: string): HubReference {
  if (!isHubReference(word)) {
    throw new UsageError(`${quote(word)} names no model of the Hub: write hf:owner/name`);
  }
  const rest = word.slice(PREFIX.length);
  const at = rest.indexOf("@");
  const repository = at < 0 ? rest : rest.slice(0, at);
  const revision = at < 0 ? "main" : rest.slice(at + 1);
  const parts = repository.split("/");
  if (parts.length !== 2 || !parts.every(isName) || repository.length > LONGEST_NAME) {
    throw new UsageError(
      `${quote(word)}: ${quote(repository)} is no name of a repository; write hf:owner/name, ` +
        "with @revision behind it for another revision than main",
    );
  }
  if (!isRevision(revision)) {
    throw new UsageError(
      `${quote(word)}: ${quote(revision)} is no revision; write a branch, a tag or a commit`,
    );
  }
  return { repository, revision };
}

/** Whether a text is a whole commit. */
export function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}$/.test(text);
}

/** Letters, digits, dots, dashes, underscores; the cache has two dashes for the slash. */
function isName(part: string): boolean {
  return /^\w([\w.-]*\w)?$/.test(part) && !/--|\.\./.test(part);
}

/** As narrow as git's names of branches, and safe as a path on every system. */
function isRevision(text: string): boolean {
  return text.length <= LONGEST_REVISION &&
    text.split("/").every((part) => /^[\w][\w.+=-]*$/.test(part) && !/\.\.|\.$|\.lock$/.test(part));
}
