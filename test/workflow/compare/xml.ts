/**
 * Whether a text is a well-formed XML document, by a small reader of its own: elements, attributes,
 * text and the five entities that need no declaration.
 * @module
 */

/** Reads a document; `problem` says what is wrong, and where. */
export function XMLValidator(text: string): { root?: string; problem?: string } {
  const open: string[] = [];
  let root: string | undefined;
  let at = 0;
  const problem = (what: string) => ({
    root,
    problem: `${what} at ${at}: ${text.slice(at, at + 40)}`,
  });
  while (at < text.length) {
    if (text[at] !== "<") {
      const end = text.indexOf("<", at);
      const run = text.slice(at, end < 0 ? undefined : end);
      if (!isText(run)) return problem("bad text");
      if (open.length === 0 && run.trim() !== "") return problem("text outside");
      at += run.length;
      continue;
    }
    const closing = /^<\/([A-Za-z][\w.-]*)\s*>/.exec(text.slice(at, at + 200));
    if (closing) {
      if (open.pop() !== closing[1]) return problem("closes another");
      at += closing[0].length;
      continue;
    }
    const tag = /^<([A-Za-z][\w.-]*)((?:\s+[A-Za-z_:][\w:.-]*="[^"<]*")*)\s*(\/?)>/.exec(
      text.slice(at, at + 20_000),
    );
    if (!tag) return problem("no element");
    const names = [...tag[2].matchAll(/([A-Za-z_:][\w:.-]*)="([^"]*)"/g)];
    if (names.some(([, , value]) => !isText(value))) return problem("bad attribute");
    if (new Set(names.map(([, name]) => name)).size !== names.length) return problem("twice");
    if (open.length === 0) {
      if (root !== undefined) return problem("two roots");
      root = tag[1];
    }
    if (tag[3] === "") open.push(tag[1]);
    at += tag[0].length;
  }
  if (open.length > 0) return problem(`${open.join(" ")} left open`);
  return { root, problem: undefined };
}

/** Characters that XML allows, and no `&` but of an entity. */
function isText(text: string): boolean {
  // deno-lint-ignore no-control-regex
  if (/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/.test(text)) return false;
  return !/&(?!(amp|lt|gt|quot|apos|#\d+|#x[0-9a-fA-F]+);)/.test(text);
}
