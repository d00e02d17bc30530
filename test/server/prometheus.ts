/**
 * A strict reader of Prometheus' text format, version 0.0.4, as far as the server has use for it: each
 * metric has HELP and TYPE before its samples, samples of a metric lie together, none comes twice.
 * @module
 */

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/;

/**
 * The samples of a text.
 *
 * @returns Values by name with labels, as they are written: `requests_total{route="/",status="200"}`.
 * @throws {Error} Naming the line that is wrong.
 */
export function samplesOf(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  const seen = new Set<string>();
  let help = "";
  let metric = "";
  let type = "";
  const lines = text.split("\n");
  if (lines.pop() !== "") throw new Error("the last line does not end");
  for (const line of lines) {
    const bad = (why: string) => new Error(`${why}: ${line}`);
    if (line === "") continue;
    const [, kind, name, rest] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (kind === "HELP") {
      help = name;
    } else if (kind === "TYPE") {
      if (name !== help || !NAME.test(name)) throw bad("a type without help");
      if (seen.has(name)) throw bad("a metric in two places");
      if (!/^(counter|gauge|histogram|summary|untyped)$/.test(rest)) throw bad("no type");
      seen.add(metric = name);
      type = rest;
    } else {
      const [, name, labels, value] = SAMPLE.exec(line) ?? [];
      if (name === undefined) throw bad("no sample");
      const suffix = name.startsWith(metric) ? name.slice(metric.length) : "?";
      const suffixes = type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
      if (!suffixes.includes(suffix)) throw bad("a sample of no metric");
      assertLabels(labels ?? "", bad);
      if (!/^([+-]?(\d+(\.\d+)?(e[+-]?\d+)?|Inf)|NaN|Nan)$/i.test(value)) throw bad("no number");
      const key = line.slice(0, line.lastIndexOf(" "));
      if (samples.has(key)) throw bad("a sample that was there");
      samples.set(key, Number(value.replace("Inf", "Infinity")));
    }
  }
  return samples;
}

function assertLabels(labels: string, bad: (why: string) => Error): void {
  for (let rest = labels; rest !== "";) {
    const [whole] = LABEL.exec(rest) ?? [];
    if (whole === undefined) throw bad("no label");
    rest = rest.slice(whole.length);
  }
}
