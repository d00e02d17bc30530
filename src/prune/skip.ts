/**
 * Names of linears, picked by name or glob.
 * @module
 */

/**
 * Makes a test for weight names such as `model.layers.3.mlp.down_proj.weight`.
 *
 * A pattern fits a name when it fits the whole of it or its last parts: `down_proj`, `mlp.down_proj`,
 * `layers.3.*` and `model.layers.?.mlp.*` all do. `*` stands for any characters, `?` for one.
 *
 * @param patterns Names or globs.
 */
export function nameMatcher(patterns: readonly string[]): (name: string) => boolean {
  const expressions = patterns.map((pattern) => new RegExp(`^${globExpression(pattern)}`));
  return (name) => {
    const bare = name.replace(/\.weight$/, "");
    return expressions.some((expression) => expression.test(bare));
  };
}

/**
 * The regular expression of a name or glob, for names without `.weight`, from their first letter on.
 *
 * It means the same in JavaScript and in Python, whose `re.match` begins at the first letter, too.
 *
 * @param pattern A name or glob, as {@linkcode nameMatcher} takes it.
 */
export function globExpression(pattern: string): string {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&");
  // Several stars say no more than one, and cost a backtracking matcher much.
  const body = escaped.replaceAll(/\*+/g, ".*").replaceAll("?", ".");
  return `(?:.*\\.)?${body}$`;
}
