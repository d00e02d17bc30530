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
  const expressions = patterns.map((pattern) => {
    const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&");
    const body = escaped.replaceAll("*", ".*").replaceAll("?", ".");
    return new RegExp(`(^|\\.)${body}$`);
  });
  return (name) => {
    const bare = name.replace(/\.weight$/, "");
    return expressions.some((expression) => expression.test(bare));
  };
}
